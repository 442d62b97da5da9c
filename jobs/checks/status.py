"""The state of every stage of a workspace: done, missing, incomplete or stale, and what to do.

The loaders of the sets decide what is stale (`pipeline.tables.staleness`), for this table as for every command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from typing import Literal, NamedTuple

from jobs.models.stored_passages import encoded_from, load_stored, stored_names
from jobs.training.stage import changed_since_training
from pipeline.collection.selection import view_tables
from pipeline.errors import MissingError, PrepError, StaleError
from pipeline.retrieval.lists import IMPORTED, usable_retrieved
from pipeline.scores.pairs import PairSet, load_pairs, require_current_pairs
from pipeline.scores.scores import ScoreSet, load_scores
from pipeline.storage.workspace import Workspace
from pipeline.tables.database import connect, single_row
from pipeline.tables.parts import read_footers
from pipeline.tables.provenance import Footer
from pipeline.tables.staleness import STALE_INPUTS
from pipeline.triples.sets import STAGES, layout_of, settings_of, usable_set
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
    """Pairs and scores of a workspace, each loaded when first used."""

    def __init__(self, workspace: Workspace) -> None:
        self.pairs: Callable[[], PairSet] = cache(partial(load_pairs, workspace))
        self.scores: Callable[[str], ScoreSet] = cache(lambda teacher: load_scores(workspace, self.pairs(), teacher))


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
        yield from _each(workspace, dataset, partial(_row_set, dataset))
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
        if isinstance(error, StaleError):
            state = "stale"
        return Stage(name, state, "; ".join(filter(None, [error.reason, error.todo])))


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
    retrieved = usable_retrieved(workspace, system)
    shown = []
    for split, footers in sorted(retrieved.splits().items()):
        settings = footers[0].recipe.settings
        queries = sum(footer.extra.get("queries", 0) for footer in footers)
        if split == IMPORTED:
            shown.append(f"{queries:,} queries, imported from {settings['source']}")
        else:
            shown.append(f"{split}: {queries:,} queries, top {settings.get('k')}")
    return "done", "; ".join(shown) + _made_from_stale(retrieved.footers)


def _pairs(workspace: Workspace, pairs: PairSet) -> tuple[State, str]:
    require_current_pairs(workspace, pairs)
    return "done", f"{pairs.pairs:,} in {len(pairs.paths)} shards" + _made_from_stale(pairs.footers)


def _made_from_stale(footers: Sequence[Footer]) -> str:
    """A remark on a set that was made from stale sets, knowingly."""
    return "; made with --stale-ok" if any(STALE_INPUTS in footer.extra for footer in footers) else ""


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


def _row_set(dataset: str, workspace: Workspace, name: str) -> tuple[State, str]:
    _, footers = usable_set(workspace, dataset, name)
    teachers, settings, layout = footers[0].recipe.settings["teachers"], settings_of(footers[0]), layout_of(footers[0])
    rows = sum(footer.rows for footer in footers)
    shape = "".join(f", {key.replace('_', ' ')} {value}" for key, value in layout.settings.items())
    shown = f"{rows:,} from {', '.join(teachers)}, threshold {settings.threshold}{shape}"
    return "done", shown + _made_from_stale(footers)


def _student(workspace: Workspace, name: str) -> tuple[State, str]:
    """A model is no set: it stays usable, and the detail says what has changed since its training."""
    facts = workspace.read_json("students", name, STUDENT_FILE)
    settings = TrainSettings.from_dict(facts["settings"])
    shown = f"{facts['architecture']}, {settings.loss}, {facts['steps']:,} steps"
    changed = changed_since_training(workspace, facts)
    if STALE_INPUTS in facts:
        shown += "; trained with --stale-ok"
    return "done", shown + (f"; trained before these changed: {', '.join(changed)}" if changed else "")


def _encoded(workspace: Workspace, name: str) -> tuple[State, str]:
    where = encoded_from(workspace, name)
    stored = load_stored(workspace, name, where)
    return "done", f"{len(stored.paths):,} shards by {where}, {stored.dtype}"
