"""Loads finished sets of triples and lists: files, footers, layout, settings, ensemble and row order."""

from __future__ import annotations

from collections.abc import Mapping

import pyarrow as pa

from pipeline import schemas
from pipeline.errors import WorkspaceError
from pipeline.scores.pairs import load_pairs
from pipeline.scores.scores import ScoreSet, load_scores
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace
from pipeline.tables.content import ContentHash
from pipeline.tables.parts import open_part, read_footers, require_complete
from pipeline.tables.provenance import Footer
from pipeline.triples.ensemble import Ensemble
from pipeline.triples.layouts import Layout, Lists, Triples
from pipeline.triples.settings import TripleSettings

STAGES = {"triples": "prep build-triples", "lists": "prep build-lists"}
"""Dataset → the command that builds its sets."""
_IDS = ("query_id", "positive_id", "negative_id")


def load_set(workspace: Workspace, dataset: str, name: str) -> tuple[list[AnyPath], list[Footer]]:
    """Paths and footers of a complete set of triples or lists.

    Raises:
        WorkspaceError: there is no set of this name, or files are missing or mixed.
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
    """Paths and footers of a complete set of triples; as `load_set`."""
    return load_set(workspace, "triples", name)


def load_lists(workspace: Workspace, name: str) -> tuple[list[AnyPath], list[Footer]]:
    """Paths and footers of a complete set of lists; as `load_set`."""
    return load_set(workspace, "lists", name)


def load_ensemble(workspace: Workspace, name: str) -> tuple[Ensemble, list[ScoreSet]]:
    """The ensemble that scored a set of triples, and the score sets of its teachers, in the same order.

    Raises:
        WorkspaceError: there is no such set, or a teacher has other scores now.
    """
    paths, footers = load_triples(workspace, name)
    ensemble, inputs = Ensemble.from_dict(footers[0].extra["ensemble"]), footers[0].recipe.inputs
    pairs = load_pairs(workspace)
    scores = [load_scores(workspace, pairs, teacher) for teacher in ensemble.teachers]
    stale = [teacher.teacher for teacher in scores if inputs[f"scores/{teacher.teacher}"] != teacher.content]
    if stale:
        raise WorkspaceError(
            f"triples {name!r} were built from other scores of {', '.join(stale)}",
            where=paths[0].parent,
            todo=f"run: {STAGES['triples']} --name {name}, with the options it was built with",
        )
    return ensemble, scores


def layout_of(footer: Footer) -> Layout:
    """The layout of a set.

    Raises:
        WorkspaceError: an older version built it.
    """
    layout = footer.recipe.settings.get("layout")
    if not isinstance(layout, Mapping):
        raise WorkspaceError(f"{footer.recipe.kind} of an older version", todo=f"run: {STAGES[footer.recipe.kind]}")
    return Lists(**layout) if footer.recipe.kind == "lists" else Triples()


def settings_of(footer: Footer) -> TripleSettings:
    """The settings that a set was built with."""
    recorded = footer.recipe.settings
    return TripleSettings(**{name: recorded[name] for name in TripleSettings.__dataclass_fields__ if name in recorded})


def triple_order(workspace: Workspace, name: str) -> str:
    """Fingerprint of the ids of a triple set, row by row, whatever the scores.

    Two sets with the same fingerprint give the same training rows. Students of different teachers are compared fairly
    only on the same triples in the same order.

    Raises:
        WorkspaceError: there is no such set, or it is not complete.
    """
    paths, _ = load_triples(workspace, name)
    content = ContentHash(pa.schema([schemas.TRIPLES.field(column) for column in _IDS]))
    for path in paths:
        file, _ = open_part(path, schemas.TRIPLES)
        with file:
            for batch in file.iter_batches(columns=list(_IDS)):
                content.update(batch)
    return content.hexdigest()
