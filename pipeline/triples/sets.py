"""Loads finished sets of triples and lists: files, footers, layout, settings, ensemble and row order.

`usable_set` refuses stale sets; `load_set` gives fresh and stale ones, for those who only look.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping

import pyarrow as pa

from pipeline import schemas
from pipeline.errors import WorkspaceError
from pipeline.scores.pairs import load_pairs
from pipeline.scores.scores import ScoreSet, load_scores
from pipeline.settings import command_words
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace
from pipeline.tables.content import ContentHash
from pipeline.tables.parts import open_part, read_footers, require_complete
from pipeline.tables.provenance import Footer
from pipeline.tables.staleness import refuse_stale, require_current, then
from pipeline.triples.build import triples_recipe
from pipeline.triples.ensemble import Ensemble
from pipeline.triples.inputs import current_scored_pairs
from pipeline.triples.layouts import Layout, Lists, Triples
from pipeline.triples.settings import TripleSettings

STAGES = {"triples": "prep build-triples", "lists": "prep build-lists"}
"""Dataset → the command that builds its sets."""
_IDS = ("query_id", "positive_id", "negative_id")


def load_set(workspace: Workspace, dataset: str, name: str) -> tuple[list[AnyPath], list[Footer]]:
    """Paths and footers of a complete set of triples or lists, fresh or stale.

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
    """Paths and footers of a complete set of triples, fresh or stale; as `load_set`."""
    return load_set(workspace, "triples", name)


def usable_set(workspace: Workspace, dataset: str, name: str) -> tuple[list[AnyPath], list[Footer]]:
    """Paths and footers of a complete set of triples or lists that its command would build again from today's data.

    Raises:
        WorkspaceError: as `load_set`.
        StaleError: judgements, texts, lists, pairs or scores have changed since, and the workspace accepts no stale
            sets.
    """
    paths, footers = load_set(workspace, dataset, name)
    made, what, where = footers[0].recipe, f"{dataset} {name!r}", paths[0].parent
    if not made.inputs:  # No build writes such a set: another program did, and from nothing that could change here.
        return paths, footers
    command = build_command(footers[0], name)
    try:
        scored = current_scored_pairs(workspace, made.settings["teachers"])
        now = triples_recipe(scored, settings_of(footers[0]), layout_of(footers[0]), footers[0])
    except WorkspaceError as error:
        refuse_stale(workspace, what, error.reason, where=where, todo=then(error.todo, command))
    else:
        require_current(workspace, what, made, now, where=where, todo=f"run: {command}")
    return paths, footers


def build_command(footer: Footer, name: str) -> str:
    """The command that builds a set again, with the options that it was built with."""
    made, dataset = footer.recipe.settings, footer.recipe.kind
    layout = made.get("layout") or {}
    words = [*STAGES[dataset].split(), "--name", name]
    # A list holds a limited number of negatives by its size, and its defaults are not those of triples.
    without = ("negatives_per_query", "pairs") if dataset == "lists" else ()
    words += command_words(TripleSettings, made, always=("threshold", "strategy"), without=without)
    words += [word for teacher in made["teachers"] for word in ("--teacher", teacher)]
    if dataset == "lists":
        words += ["--size", str(layout.get("size"))] + ["--drop-short"] * bool(layout.get("drop_short"))
    return shlex.join(words)


def load_ensemble(workspace: Workspace, name: str) -> tuple[Ensemble, list[ScoreSet]]:
    """The ensemble that scored a set of triples, and the score sets of its teachers, in the same order.

    Raises:
        WorkspaceError: there is no such set.
        StaleError: as `usable_set`, or a teacher's scores do not fit the pairs.
    """
    _, footers = usable_set(workspace, "triples", name)
    ensemble, pairs = Ensemble.from_dict(footers[0].extra["ensemble"]), load_pairs(workspace)
    return ensemble, [load_scores(workspace, pairs, teacher) for teacher in ensemble.teachers]


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
    paths, _ = load_set(workspace, "triples", name)
    content = ContentHash(pa.schema([schemas.TRIPLES.field(column) for column in _IDS]))
    for path in paths:
        file, _ = open_part(path, schemas.TRIPLES)
        with file:
            for batch in file.iter_batches(columns=list(_IDS)):
                content.update(batch)
    return content.hexdigest()
