"""The state of every stage of a workspace: done, missing, incomplete or stale, and what to do.

Staleness is decided by content: a stage is stale when its inputs differ from those it was made from.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Literal, NamedTuple

from jobs.models.stored_passages import encoded_from, load_stored, stored_names
from jobs.training.stage import is_training_of, training_recipe
from pipeline.collection.selection import view_tables
from pipeline.errors import MissingError, PrepError, WorkspaceError
from pipeline.retrieval.lists import IMPORTED, load_retrieved
from pipeline.scores.pairs import PairSet, is_current, load_pairs
from pipeline.scores.scores import ScoreSet, load_scores
from pipeline.storage.workspace import Workspace
from pipeline.tables.database import connect, single_row
from pipeline.tables.parts import content_fingerprint, read_footers
from pipeline.triples.build import triples_recipe
from pipeline.triples.inputs import ScoredPairs, table_contents
from pipeline.triples.sets import STAGES, layout_of, load_set, settings_of
from students.settings import STUDENT_FILE, TrainSettings

State = Literal["done", "missing", "incomplete", "stale"]


class Stage(NamedTuple):
    """One line of the status."""

    name: str
    state: State
    detail: str
    """Counts if the stage is done, else what is wrong and what to do."""


def workspace_status(workspace: Workspace) -> list[Stage]:
    """All stages in the order of the flow."""
    return list(_stages(workspace))


class _Loaded:
    """Pairs, scores and tables of a workspace, each loaded when first used."""

    def __init__(self, workspace: Workspace) -> None:
        self.pairs: Callable[[], PairSet] = cache(partial(load_pairs, workspace))
        self.scores: Callable[[str], ScoreSet] = cache(lambda teacher: load_scores(workspace, self.pairs(), teacher))
        self.tables: Callable[[], dict[str, str]] = cache(partial(table_contents, workspace))


def _stages(workspace: Workspace) -> Iterator[Stage]:
    loaded = _Loaded(workspace)
    yield from _collection(workspace)
    if not workspace.names("retrieved"):
        yield Stage("retrieved", "missing", "run: prep mine --system bm25")
    yield from _each(workspace, "retrieved", _retrieved)
    yield _checked("pairs", lambda: _pairs(workspace, loaded.pairs()))
    if not workspace.names("scores"):
        yield Stage("scores", "missing", "run: prep score --teacher NAME=CHECKPOINT")
    yield from _each(workspace, "scores", lambda _, teacher: _scores(loaded, teacher))
    if not workspace.names("triples"):
        yield Stage("triples", "missing", "run: prep build-triples --threshold 3")
    for dataset in STAGES:
        yield from _each(workspace, dataset, partial(_row_set, loaded, dataset))
    yield from _each(workspace, "students", _student)
    for name in stored_names(workspace):
        yield _checked(f"encoded/{name}", partial(_encoded, workspace, name))
    for name in sorted(path.name for path in workspace.path("students").glob(".training-*")):
        yield Stage(
            f"students/{name.removeprefix('.training-')}",
            "incomplete",
            "training was cut short: run it again to go on",
        )


def _each(workspace: Workspace, dataset: str, look: Callable[[Workspace, str], tuple[State, str]]) -> Iterator[Stage]:
    for name in workspace.names(dataset):
        yield _checked(f"{dataset}/{name}", partial(look, workspace, name))


def _checked(name: str, look: Callable[[], tuple[State, str]]) -> Stage:
    try:
        return Stage(name, *look())
    except PrepError as error:
        state: State = "missing" if isinstance(error, MissingError) else "incomplete"
        return Stage(name, state, "; ".join(filter(None, [error.what, error.todo])))


def _collection(workspace: Workspace) -> Iterator[Stage]:
    for table in ("passages", "queries", "qrels"):
        if not workspace.parts(table):
            yield Stage(table, "missing", "run: prep import msmarco")
            continue
        footers = read_footers(workspace.parts(table))
        detail = f"{sum(footer.rows for footer in footers):,}"
        if table == "queries":
            with connect(workspace.local) as connection:
                view_tables(connection, workspace, "queries")
                counts = (
                    "SELECT string_agg(split || ' ' || n, ', ' ORDER BY split) FROM "
                    "(SELECT split, count(*) AS n FROM (SELECT unnest(splits) AS split FROM queries) GROUP BY split)"
                )
                detail += f" ({single_row(connection, counts)[0]})"
        yield Stage(table, "done", detail)


def _retrieved(workspace: Workspace, system: str) -> tuple[State, str]:
    passages = content_fingerprint(read_footers(workspace.parts("passages"))) if workspace.parts("passages") else None
    found = load_retrieved(workspace, system)
    shown = []
    for split, footers in sorted(found.splits().items()):
        settings = footers[0].recipe.settings
        queries = sum(footer.extra.get("queries", 0) for footer in footers)
        if split == IMPORTED:
            shown.append(f"{queries:,} queries, imported from {settings['source']}")
            continue
        shown.append(f"{split}: {queries:,} queries, top {settings.get('k')}")
        if footers[0].recipe.inputs["passages"] != passages:
            return (
                "stale",
                f"{split} was mined from another state of the collection; run: prep mine --split {split}",
            )
    return "done", "; ".join(shown)


def _pairs(workspace: Workspace, pairs: PairSet) -> tuple[State, str]:
    if not is_current(workspace, pairs):
        return "stale", "qrels, queries or retrieved lists have changed; run: prep build-pairs"
    return "done", f"{pairs.pairs:,} in {len(pairs.paths)} shards"


def _scores(loaded: _Loaded, teacher: str) -> tuple[State, str]:
    pairs = loaded.pairs()
    try:
        scores = loaded.scores(teacher)
    except PrepError as error:
        return "incomplete", f"{error.found or error.what}; {error.todo}"
    settings = scores.footers[0].recipe.settings
    if "imported_from" in settings:
        return "done", f"{pairs.pairs:,} pairs, imported from {settings['imported_from']}"
    how = settings.get("reads") or f"{settings.get('max_length_tokens')} tokens"
    return "done", f"{pairs.pairs:,} pairs, {settings.get('dtype')}, {how}"


def _row_set(loaded: _Loaded, dataset: str, workspace: Workspace, name: str) -> tuple[State, str]:
    _, footers = load_set(workspace, dataset, name)
    teachers, settings, layout = footers[0].recipe.settings["teachers"], settings_of(footers[0]), layout_of(footers[0])
    scored = ScoredPairs(tuple(map(loaded.scores, teachers)), loaded.tables())
    if triples_recipe(scored, settings, layout, footers[0]).fingerprint != footers[0].fingerprint:
        return "stale", f"pairs, scores or queries have changed; run: {STAGES[dataset]} --name {name}"
    rows = sum(footer.rows for footer in footers)
    shape = "".join(f", {key.replace('_', ' ')} {value}" for key, value in layout.settings.items())
    return "done", f"{rows:,} from {', '.join(teachers)}, threshold {settings.threshold}{shape}"


def _student(workspace: Workspace, name: str) -> tuple[State, str]:
    facts = workspace.read_json("students", name, STUDENT_FILE)
    settings = TrainSettings.from_dict(facts["settings"])
    if not is_training_of(facts, settings, training_recipe(workspace, settings)):
        return "stale", "what it was trained on has changed; train it again with --overwrite"
    return "done", f"{facts['architecture']}, {settings.loss}, {facts['steps']:,} steps"


def _encoded(workspace: Workspace, name: str) -> tuple[State, str]:
    where = encoded_from(workspace, name)
    try:
        stored = load_stored(workspace, name, where)
    except WorkspaceError as error:
        return "stale", f"{error.what}; {error.todo}"
    return "done", f"{len(stored.paths):,} shards by {where}, {stored.dtype}"
