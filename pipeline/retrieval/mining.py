"""First-stage retrieval: writes the top k passages of each query to `retrieved/<system>/<split>-NNNNN.parquet`.

A part holds up to 8,192 queries of one split. Parts with the right fingerprint are kept; only missing and stale parts
are mined. Does not know how a retriever works.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline import schemas
from pipeline.collection.selection import SelectedQueries, select_queries, view_tables
from pipeline.errors import UsageError
from pipeline.names import refuse_case_twins
from pipeline.retrieval.bm25_index import MAX_K, Retrieved
from pipeline.retrieval.retrievers import Retriever, SearchRequest
from pipeline.storage.workspace import Workspace
from pipeline.tables.database import connect
from pipeline.tables.parts import content_fingerprint, footer_of, part_name, read_footers, write_part
from pipeline.tables.provenance import Recipe

QUERIES_PER_PART = 8_192
QUERIES_PER_BATCH = 1_024
LEAST_BATCHES = 8  # keeps several processes busy even with few queries


@dataclass(frozen=True)
class Mined:
    """The result of mining one split."""

    split: str
    queries: int
    parts: int
    kept_parts: int
    """Number of parts that existed before and were kept."""


@dataclass(frozen=True)
class _Part:
    """One file to be mined: a slice of a split's queries."""

    name: str
    recipe: Recipe
    number: int
    parts: int
    ids: np.ndarray  # (Q,) int32
    texts: list[str]


def mine(
    workspace: Workspace,
    splits: Sequence[str],
    k: int,
    retriever: Retriever,
    *,
    max_queries: int | None = None,
    on_search: Callable[[int, int], None] = lambda done, total: None,
) -> list[Mined]:
    """Retrieve the top `k` passages for every query of the splits.

    Args:
        workspace: read from and written to.
        splits: names of splits.
        k: number of passages per query, 1 to 32,767.
        retriever: searches the collection.
        max_queries: mine a stable sample of this many judged queries per split; None mines all queries.
        on_search: receives the number of queries searched so far and the number to search.

    Raises:
        WorkspaceError: nothing is imported, a split is unknown, another retriever's name differs only in case, or
            another run is mining.
        UsageError: k is out of range.
    """
    if not 1 <= k <= MAX_K:
        raise UsageError("--k out of range", expected=f"1 to {MAX_K}", found=k)
    refuse_case_twins("retriever", [*workspace.names("retrieved"), retriever.system])
    name = f"mine-{retriever.system}"
    with workspace.exclusive(name), workspace.staging(name) as staging:
        with connect(staging / "spill") as connection:
            view_tables(connection, workspace, "passages", "queries")
            selected = {split: select_queries(connection, workspace, split, max_queries) for split in splits}
        passages = workspace.parts("passages")
        footers = read_footers(passages)
        plan = {
            split: _plan(queries, split, k, max_queries, retriever, content_fingerprint(footers))
            for split, queries in selected.items()
        }
        missing = [part for parts in plan.values() for part in parts if not _is_done(workspace, part)]
        if missing:
            ids = np.concatenate([part.ids for part in missing])
            texts = [text for part in missing for text in part.texts]
            batches = _batches(missing)
            request = SearchRequest(passages, sum(footer.rows for footer in footers), ids, texts)
            flat = [batch for of_part in batches for batch in of_part]
            results = retriever.search(request, flat, k, staging / "index")
            _write_parts(workspace, missing, batches, results, on_search)
        mined = []
        for split, parts in plan.items():
            _remove_beyond(workspace, retriever.system, split, len(parts))
            kept = sum(part not in missing for part in parts)
            mined.append(Mined(split, len(selected[split].ids), len(parts), kept))
        return mined


def _plan(
    queries: SelectedQueries,
    split: str,
    k: int,
    max_queries: int | None,
    retriever: Retriever,
    passages: str,
) -> list[_Part]:
    recipe = Recipe(
        "retrieved",
        {"system": retriever.system, "split": split, "k": k, "max_queries": max_queries, **retriever.settings},
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
    path = workspace.current_path("retrieved", part.recipe.settings["system"]) / part.name
    if not path.exists():
        return False
    footer = footer_of(path)
    return (footer.fingerprint, footer.part, footer.parts) == (
        part.recipe.fingerprint,
        part.number,
        part.parts,
    )


def _batches(missing: Sequence[_Part]) -> list[list[range]]:
    """The batches of each part, as positions in the concatenated queries of all parts."""
    batches: list[list[range]] = []
    size = min(QUERIES_PER_BATCH, -(-sum(len(part.ids) for part in missing) // LEAST_BATCHES) or 1)
    start = 0
    for part in missing:
        stop = start + len(part.ids)
        batches.append([range(i, min(i + size, stop)) for i in range(start, stop, size)])
        start = stop
    return batches


def _write_parts(
    workspace: Workspace,
    missing: Sequence[_Part],
    batches: Sequence[Sequence[range]],
    results: Iterator[Retrieved],
    on_search: Callable[[int, int], None],
) -> None:
    """Write each part once its batches are searched."""
    first, total = 0, sum(len(part.ids) for part in missing)
    for part, of_part in zip(missing, batches, strict=True):
        rows = []
        for batch in of_part:
            rows.append(next(results))
            on_search(batch.stop, total)
        _write(workspace, part, rows, first)
        first += len(part.ids)


def _write(workspace: Workspace, part: _Part, results: list[Retrieved], first: int) -> None:
    """Write a part, whose first query is number `first` of the search."""
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
        for rows in results
    ]
    extra = {"queries": len(part.ids)}
    path = workspace.current_path("retrieved", part.recipe.settings["system"]) / part.name
    write_part(path, batches, schemas.RETRIEVED, part.recipe, part=part.number, parts=part.parts, extra=extra)


def _remove_beyond(workspace: Workspace, system: str, split: str, count: int) -> None:
    """Remove parts of an earlier, longer set of this split."""
    of_split = re.compile(re.escape(split) + r"-\d+\.parquet")
    kept = {part_name(number, split) for number in range(count)}
    for path in workspace.parts("retrieved", system):
        if of_split.fullmatch(path.name) and path.name not in kept:
            path.unlink()
