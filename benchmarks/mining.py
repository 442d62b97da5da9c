"""Measure BM25 mining on synthetic passages, and extrapolate to MS MARCO.

    python benchmarks/mining.py --passages 1000000 --queries 1000 --k 100 --processes 2

The index holds the terms of `--indexed-queries`, by default as many as in MS MARCO; `--queries` of them are searched.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from meter import Meter
from synthetic import MARCO_PASSAGES, MARCO_QUERIES, PASSAGE_WORDS, QUERY_WORDS, texts, words

from pipeline.retrieval.bm25 import Bm25Settings, build_index
from pipeline.tables.parts import ROW_GROUP_ROWS

FILE_PASSAGES = 4 * ROW_GROUP_ROWS


def write_passages(folder: Path, count: int) -> None:
    """Write Parquet files with the layout of a workspace."""
    vocabulary, rng = words(), np.random.default_rng(1)
    for first in range(0, count, FILE_PASSAGES):
        stop = min(first + FILE_PASSAGES, count)
        ids = pa.array(np.arange(first, stop, dtype=np.int32))
        table = pa.table({"passage_id": ids, "text": texts(vocabulary, rng, stop - first, PASSAGE_WORDS)})
        pq.write_table(table, folder / f"{first:09d}.parquet", row_group_size=ROW_GROUP_ROWS, compression="zstd")


def measure(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Meter], dict[str, float]]:
    """Build an index and search it: a meter for each step, and figures extrapolated to MS MARCO."""
    passages, directory = folder / "passages", folder / "index"
    passages.mkdir()
    # In another process, so that its memory is not counted.
    maker = get_context("spawn").Process(target=write_passages, args=(passages, options.passages))
    maker.start()
    maker.join()
    queries = texts(words(), np.random.default_rng(2), options.indexed_queries, QUERY_WORDS).to_pylist()
    files, settings, processes = sorted(passages.iterdir()), Bm25Settings(), options.processes
    steps = {name: Meter() for name in ("tokenize queries", "index, all", "start workers", "search, all")}
    tokenize, build, start, search = steps.values()

    with tokenize.watch():
        build_index([], queries, directory, settings, processes=1)
    with build.watch():
        index = build_index(files, queries, directory, settings, processes=processes)
    with start.watch():
        list(index.search_all([range(0)] * processes, options.k, processes=processes))
    bounds = [*range(0, options.queries, options.batch), options.queries]
    with search.watch():
        batches = [range(first, stop) for first, stop in pairwise(bounds)]
        found = sum(len(part.query) for part in index.search_all(batches, options.k, processes=processes))

    more_passages = MARCO_PASSAGES / options.passages
    more_queries = MARCO_QUERIES / options.queries
    index_gb = sum(path.stat().st_size for path in directory.iterdir()) / 1e9
    return steps, {
        "found per query": found / options.queries,
        "search, wall ms per query": (search.wall_s - start.wall_s) / options.queries * 1000,
        "search, CPU ms per query": (search.cpu_s - start.cpu_s) / options.queries * 1000,
        "index on disk, GB": index_gb,
        "MS MARCO index, GB": index_gb * more_passages,
        "MS MARCO index, CPU hours": (tokenize.cpu_s + (build.cpu_s - tokenize.cpu_s) * more_passages) / 3600,
        "MS MARCO search, CPU hours": (search.cpu_s - start.cpu_s) * more_passages * more_queries / 3600,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--queries", type=int, default=1000, help="number of queries to search")
    parser.add_argument(
        "--indexed-queries", type=int, default=MARCO_QUERIES, help="number of queries whose terms are indexed"
    )
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--batch", type=int, default=250, help="queries in a unit of work")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    options.indexed_queries = max(options.indexed_queries, options.queries)
    with tempfile.TemporaryDirectory() as folder:
        steps, figures = measure(options, Path(folder))
    settings = {name: value for name, value in vars(options).items() if name != "json"}
    print(" ".join(f"{name}={value}" for name, value in settings.items()))
    print(f"{'':26} {'wall s':>9} {'CPU s':>9} {'peak GB':>9}")
    for name, step in steps.items():
        print(f"{name:26} {step.wall_s:9.2f} {step.cpu_s:9.2f} {step.peak_gb:9.2f}")
    for name, value in figures.items():
        print(f"{name:26} {value:9.2f}")
    if options.json:
        taken = {name: asdict(step) for name, step in steps.items()}
        facts = {"settings": settings, "steps": taken, "figures": figures}
        options.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
