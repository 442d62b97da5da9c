"""First-stage retrieval: `retrieved/<system>/<split>-NNNNN.parquet`, top k passages for each query.

A part holds some thousand queries of one split. A part that is there with the right fingerprint is kept;
only missing and stale parts are mined. Does not know how BM25 works.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass

import numpy as np
import pyarrow as pa

from pipeline import schemas
from pipeline.bm25 import Bm25Index, Bm25Settings, Retrieved, build_index
from pipeline.database import connect
from pipeline.errors import UsageError
from pipeline.provenance import Recipe
from pipeline.selection import SelectedQueries, select_queries, view_tables
from pipeline.tables import footer_of, part_name, set_content, set_footers, write_part
from pipeline.workspace import Workspace

QUERIES_PER_PART = 8_192
QUERIES_PER_BATCH = 1_024
SYSTEM = "bm25"
MAX_K = np.iinfo(np.int16).max


@dataclass(frozen=True)
class Mined:
    """What a split now has."""

    split: str
    queries: int
    parts: int
    kept_parts: int
    """Parts that were there already."""


@dataclass(frozen=True)
class _Part:
    """One file to be mined: a slice of a split's queries."""

    name: str
    recipe: Recipe
    number: int
    parts: int
    ids: np.ndarray  # (Q,) int32
    texts: list[str]


def mine_bm25(
    workspace: Workspace,
    splits: Sequence[str],
    k: int,
    *,
    max_queries: int | None = None,
    settings: Bm25Settings | None = None,
    processes: int = 1,
    on_index: Callable[[int, int], None] = lambda done, total: None,
    on_search: Callable[[int, int], None] = lambda done, total: None,
) -> list[Mined]:
    """Retrieve the top `k` passages by BM25 for every query of the splits.

    The callbacks get what is done and the total: passages indexed, queries searched.

    Raises:
        WorkspaceError: nothing imported, an unknown split, or another run is mining.
        UsageError: k out of range.
    """
    if not 1 <= k <= MAX_K:
        raise UsageError("--k out of range", expected=f"1 to {MAX_K}", found=k)
    settings = settings or Bm25Settings()
    with workspace.exclusive(f"mine-{SYSTEM}"), workspace.staging(f"mine-{SYSTEM}") as staging:
        with connect(staging / "spill") as connection:
            view_tables(connection, workspace, "passages", "queries")
            selected = {split: select_queries(connection, workspace, split, max_queries) for split in splits}
        passages = workspace.parts("passages")
        footers = set_footers(passages)
        plan = {
            split: _plan(queries, split, k, max_queries, settings, set_content(footers))
            for split, queries in selected.items()
        }
        missing = [part for parts in plan.values() for part in parts if not _is_done(workspace, part)]
        if missing:
            total = sum(footer.rows for footer in footers)
            indexed = _Counter(on_index, total)
            texts = [text for part in missing for text in part.texts]
            index = build_index(
                passages, texts, staging / "index", settings, processes=processes, on_progress=indexed.add
            )
            _search(workspace, index, missing, k, processes, _Counter(on_search, len(texts)))
        mined = []
        for split, parts in plan.items():
            _remove_beyond(workspace, split, len(parts))
            kept = sum(part not in missing for part in parts)
            mined.append(Mined(split, len(selected[split].ids), len(parts), kept))
        return mined


class _Counter:
    def __init__(self, report: Callable[[int, int], None], total: int) -> None:
        self._report, self._total, self._done = report, total, 0

    def add(self, count: int) -> None:
        self._done += count
        self._report(self._done, self._total)


def _plan(
    queries: SelectedQueries,
    split: str,
    k: int,
    max_queries: int | None,
    settings: Bm25Settings,
    passages: str,
) -> list[_Part]:
    recipe = Recipe(
        "retrieved",
        {"system": SYSTEM, "split": split, "k": k, "max_queries": max_queries, **asdict(settings)},
        {"passages": passages, "queries": queries.fingerprint},
    )
    starts = range(0, max(len(queries.ids), 1), QUERIES_PER_PART)
    return [
        _Part(
            part_name(number, split),
            recipe,
            number,
            len(starts),
            queries.ids[start : start + QUERIES_PER_PART],
            queries.texts[start : start + QUERIES_PER_PART],
        )
        for number, start in enumerate(starts)
    ]


def _is_done(workspace: Workspace, part: _Part) -> bool:
    path = workspace.path("retrieved", SYSTEM, part.name)
    if not path.exists():
        return False
    footer = footer_of(path)
    return (footer.fingerprint, footer.part, footer.parts) == (
        part.recipe.fingerprint,
        part.number,
        part.parts,
    )


def _search(
    workspace: Workspace, index: Bm25Index, missing: list[_Part], k: int, processes: int, searched: _Counter
) -> None:
    """Search small batches in parallel, and write each part when its batches are in."""
    size = min(QUERIES_PER_BATCH, -(-sum(len(part.ids) for part in missing) // max(processes, 1)))
    batches: list[list[range]] = []
    start = 0
    for part in missing:
        cuts = range(0, len(part.ids), max(size, 1))
        batches.append([range(start + i, start + min(i + size, len(part.ids))) for i in cuts])
        start += len(part.ids)
    results = iter(index.search_all([batch for own in batches for batch in own], k, processes=processes))
    first = 0
    for part, own in zip(missing, batches, strict=True):
        rows = []
        for batch in own:
            rows.append(next(results))
            searched.add(len(batch))
        _write(workspace, part, rows, first)
        first += len(part.ids)


def _write(workspace: Workspace, part: _Part, found: list[Retrieved], first: int) -> None:
    batches = [
        pa.RecordBatch.from_arrays(
            [
                pa.array(part.ids[rows.query - first]),
                pa.array(rows.passage_id),
                pa.array(rows.rank),
                pa.array(rows.score),
            ],
            schema=schemas.RETRIEVED,
        )
        for rows in found
    ]
    extra = {"queries": len(part.ids)}
    path = workspace.path("retrieved", SYSTEM, part.name)
    write_part(path, batches, schemas.RETRIEVED, part.recipe, part=part.number, parts=part.parts, extra=extra)


def _remove_beyond(workspace: Workspace, split: str, count: int) -> None:
    """Remove parts of an earlier, longer set of this split."""
    of_split = re.compile(re.escape(split) + r"-\d+\.parquet")
    kept = {part_name(number, split) for number in range(count)}
    for path in workspace.parts("retrieved", SYSTEM):
        if of_split.fullmatch(path.name) and path.name not in kept:
            path.unlink()
