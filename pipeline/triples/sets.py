"""Finished sets of triples and lists: where they stand, whether they are whole, and which layout they have."""

from __future__ import annotations

from collections.abc import Mapping

from pipeline.errors import WorkspaceError
from pipeline.scores.pairs import load_pairs
from pipeline.scores.scores import ScoreSet, load_scores
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace
from pipeline.tables.parts import read_footers, require_complete
from pipeline.tables.provenance import Footer
from pipeline.triples.ensemble import Ensemble
from pipeline.triples.layouts import Layout, Lists, Triples
from pipeline.triples.settings import TripleSettings

STAGES = {"triples": "prep build-triples", "lists": "prep build-lists"}
"""Dataset → the command that makes its sets."""


def load_set(workspace: Workspace, dataset: str, name: str) -> tuple[list[AnyPath], list[Footer]]:
    """A complete set of triples or lists.

    Raises:
        WorkspaceError: no set of this name, or files are missing or mixed.
    """
    paths = workspace.parts(dataset, name)
    if not paths:
        known = ", ".join(workspace.names(dataset)) or "none yet"
        raise WorkspaceError(
            f"no {dataset} {name!r}", where=workspace.root, expected=f"one of: {known}", todo=f"run: {STAGES[dataset]}"
        )
    footers = read_footers(paths)
    require_complete(f"{dataset} {name!r}", paths, footers, f"run: {STAGES[dataset]}")
    return paths, footers


def load_triples(workspace: Workspace, name: str) -> tuple[list[AnyPath], list[Footer]]:
    """A complete triple set; as `load_set`."""
    return load_set(workspace, "triples", name)


def load_lists(workspace: Workspace, name: str) -> tuple[list[AnyPath], list[Footer]]:
    """A complete set of lists; as `load_set`."""
    return load_set(workspace, "lists", name)


def load_ensemble(workspace: Workspace, name: str) -> tuple[Ensemble, list[ScoreSet]]:
    """What a set of triples holds the scores of, and the score sets of its teachers, in their order.

    Raises:
        WorkspaceError: no such set, or teachers have other scores by now.
    """
    paths, footers = load_triples(workspace, name)
    ensemble, inputs = Ensemble.from_dict(footers[0].extra["ensemble"]), footers[0].recipe.inputs
    pairs = load_pairs(workspace)
    scores = [load_scores(workspace, pairs, teacher) for teacher in ensemble.teachers]
    stale = [one.teacher for one in scores if inputs[f"scores/{one.teacher}"] != one.content]
    if stale:
        raise WorkspaceError(
            f"triples {name!r} were built from other scores of {', '.join(stale)}",
            where=paths[0].parent,
            todo=f"run: {STAGES['triples']} --name {name}, with the options it was built with",
        )
    return ensemble, scores


def layout_of(footer: Footer) -> Layout:
    """The layout a set was built in.

    Raises:
        WorkspaceError: an older version built it.
    """
    given = footer.recipe.settings.get("layout")
    if not isinstance(given, Mapping):
        raise WorkspaceError(f"{footer.recipe.kind} of an older version", todo=f"run: {STAGES[footer.recipe.kind]}")
    return Lists(**given) if footer.recipe.kind == "lists" else Triples()


def settings_of(footer: Footer) -> TripleSettings:
    """What the set was asked to be."""
    given = footer.recipe.settings
    return TripleSettings(**{name: given[name] for name in TripleSettings.__dataclass_fields__ if name in given})
