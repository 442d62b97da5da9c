"""Measure BM25 mining on synthetic passages, and extrapolate to MS MARCO.

    python benchmarks/mining.py --passages 1000000 --queries 1000 --k 100 --processes 2

Words follow Zipf's law, the commonest being stop words; passages have about 56 words and queries about 6, as
in MS MARCO. The index holds the terms of `--indexed-queries`, as many as a full run has, of which `--queries`
are searched. Memory is the resident set summed over the process tree: pages that two share count twice.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from bm25s.stopwords import STOPWORDS_EN

from pipeline.bm25 import Bm25Settings, build_index
from pipeline.tables import ROW_GROUP_ROWS

MARCO_PASSAGES, MARCO_QUERIES = 8_841_823, 808_731
VOCABULARY = 300_000
PASSAGE_WORDS, QUERY_WORDS = 56, 6
FILE_PASSAGES = 4 * ROW_GROUP_ROWS


def words() -> pa.Array:
    """The vocabulary, commonest first: stop words, then strings of three to eight letters."""
    rng = np.random.default_rng(0)
    letters = rng.integers(ord("a"), ord("z") + 1, (VOCABULARY, 8), dtype=np.uint8)
    letters[np.arange(8) >= rng.integers(3, 9, (VOCABULARY, 1))] = 0
    made = letters.view("S8").ravel().astype("U8")
    made[: len(STOPWORDS_EN)] = STOPWORDS_EN
    return pa.array(made)


def texts(vocabulary: pa.Array, rng: np.random.Generator, count: int, mean_words: int) -> pa.Array:
    """Texts of Zipf-distributed words: density of rank r proportional to 1 / (r + 2.7)."""
    lengths = np.maximum(rng.normal(mean_words, mean_words * 0.35, count), 1).astype(np.int32)
    ranks = 2.7 * ((VOCABULARY + 2.7) / 2.7) ** rng.random(lengths.sum()) - 2.7
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    chosen = vocabulary.take(pa.array(ranks.astype(np.int32)))
    return pc.binary_join(pa.ListArray.from_arrays(offsets, chosen), " ")


def write_passages(folder: Path, count: int) -> None:
    """Parquet files as a workspace has them."""
    vocabulary, rng = words(), np.random.default_rng(1)
    for first in range(0, count, FILE_PASSAGES):
        stop = min(first + FILE_PASSAGES, count)
        ids = pa.array(np.arange(first, stop, dtype=np.int32))
        table = pa.table({"passage_id": ids, "text": texts(vocabulary, rng, stop - first, PASSAGE_WORDS)})
        pq.write_table(table, folder / f"{first:09d}.parquet", row_group_size=ROW_GROUP_ROWS, compression="zstd")


@dataclass
class Meter:
    """Seconds and largest resident set of this process and its children while `watch` runs."""

    wall_s: float = 0.0
    cpu_s: float = 0.0
    """Nearly free of what else runs on the machine."""
    peak_gb: float = 0.0

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Measure the block; what it starts must end in it."""
        done = threading.Event()
        sampler = threading.Thread(target=self._sample, args=(done,))
        sampler.start()
        wall, cpu = time.perf_counter(), sum(os.times()[:4])
        try:
            yield
        finally:
            self.wall_s, self.cpu_s = time.perf_counter() - wall, sum(os.times()[:4]) - cpu
            done.set()
            sampler.join()

    def _sample(self, done: threading.Event) -> None:
        here = psutil.Process()
        while not done.wait(0.1):
            total = 0
            for process in [here, *here.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    total += process.memory_info().rss
            self.peak_gb = max(self.peak_gb, total / 1e9)


def measure(options: argparse.Namespace, folder: Path) -> tuple[dict[str, Meter], dict[str, float]]:
    """Build and search once: what each step took, and an extrapolation."""
    passages, directory = folder / "passages", folder / "index"
    passages.mkdir()
    # In a process of its own, so that its memory is not counted.
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
    parser.add_argument("--queries", type=int, default=1000, help="how many are searched")
    parser.add_argument("--indexed-queries", type=int, default=MARCO_QUERIES, help="whose terms are indexed")
    parser.add_argument("--k", type=int, default=100)
    parser.add_argument("--batch", type=int, default=250, help="queries in a unit of work")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the figures here")
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
