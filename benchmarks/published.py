"""Measure the import of synthetic data in published formats: msmarco-hard-negatives and a pickle of scores.

    python benchmarks/published.py --queries 800000 --scores 20
    python benchmarks/published.py --queries 80000 --systems 13 --negatives 50

The defaults are a tenth of the scores published for MS MARCO: 800 thousand queries, 16 million scores, and a tenth of
the passages. The second command has a tenth of the published hard negatives, 52 million ids. The scores define the
pairs. Every import runs first for a tenth of the queries. The benchmark fails if an import takes 0.5 GB of memory in
all its processes, or 10 % more than for the tenth. Every step runs in a new process, so that memory of another step is
not counted. For comparison, the pickle is also loaded whole, as its users do.
"""

from __future__ import annotations

import argparse
import gzip
import json
import pickle
import struct
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from meter import Meter

from pipeline.imports.hard_negatives import read_lists
from pipeline.imports.lists import ListOptions, file_source, import_lists
from pipeline.imports.msmarco import import_msmarco
from pipeline.imports.scores import ScoreOptions, import_scores
from pipeline.storage.workspace import Workspace

MOST_GB, MOST_GROWTH = 0.5, 1.1
BLOCK = 10_000


def write_files(folder: Path, queries: int, passages: int, scores: int, systems: int, negatives: int) -> None:
    """Write short texts, hard negatives and a pickle of scores; the first passage of a query is its positive."""
    rng = np.random.default_rng(0)
    with (folder / "collection.tsv").open("w") as stream:
        stream.writelines(f"{number}\tpassage {number}\n" for number in range(passages))
    with (
        (folder / "queries.tsv").open("w") as texts,
        (folder / "qrels.tsv").open("w") as qrels,
        gzip.open(folder / "hard-negatives.jsonl.gz", "wt", compresslevel=1) as lists,
        gzip.open(folder / "scores.pkl.gz", "wb", compresslevel=1) as packed,
    ):
        packed.write(b"\x80\x04}\x94")
        for first in range(0, queries, BLOCK):
            block = range(first, min(first + BLOCK, queries))
            drawn = rng.integers(0, passages, (len(block), scores)).tolist()
            values = rng.normal(0, 5, (len(block), scores)).astype(np.float32).astype(float).tolist()
            scored = {}
            for query, candidates, logits in zip(block, drawn, values, strict=True):
                texts.write(f"{query}\tquery {query}\n")
                qrels.write(f"{query}\t0\t{candidates[0]}\t1\n")
                others = rng.integers(0, passages, (systems, negatives)).tolist() if negatives else ()
                dealt = others or [candidates[1 + number :: systems] for number in range(systems)]
                named = {f"system-{number}": ids for number, ids in enumerate(dealt)}
                lists.write(json.dumps({"qid": query, "pos": candidates[:1], "neg": named}) + "\n")
                scored[query] = dict(zip(candidates, logits, strict=True))
            write_items(scored, packed)
        packed.write(b".")


def write_items(scored: dict[int, dict[int, float]], stream: BinaryIO) -> None:
    """Write the items of a dict as pickle does, a thousand at a time, without the memo that keeps them."""
    integer, score = struct.Struct("<ci"), struct.Struct(">cd")
    items = list(scored.items())
    for start in range(0, len(items), 1000):
        stream.write(b"(")
        for query, scores in items[start : start + 1000]:
            stream.write(_integer(query, integer) + b"}\x94(")
            stream.write(b"".join(_integer(key, integer) + score.pack(b"G", value) for key, value in scores.items()))
            stream.write(b"u")
        stream.write(b"u")


def _integer(value: int, long: struct.Struct) -> bytes:
    if value < 1 << 8:
        return b"K" + bytes([value])
    return b"M" + value.to_bytes(2, "little") if value < 1 << 16 else long.pack(b"J", value)


def load_whole(folder: Path) -> int:
    with gzip.open(folder / "scores.pkl.gz") as stream:
        return sum(map(len, pickle.load(stream).values()))


def import_base(folder: Path) -> None:
    queries, qrels = ([("train", folder / f"{kind}.tsv")] for kind in ("queries", "qrels"))
    import_msmarco(workspace(folder), folder / "collection.tsv", queries, qrels)


def import_negatives(folder: Path) -> int:
    source = file_source(folder / "hard-negatives.jsonl.gz", "hard-negatives", read_lists)
    return sum(import_lists(workspace(folder), source, ListOptions()).systems.values())


def import_as_pairs(folder: Path) -> int:
    return import_scores(workspace(folder), folder / "scores.pkl.gz", "published", ScoreOptions(as_pairs=True)).pairs


def import_aligned(folder: Path) -> int:
    return import_scores(workspace(folder), folder / "scores.pkl.gz", "again", ScoreOptions()).pairs


def workspace(folder: Path) -> Workspace:
    return Workspace.open(str(folder / "ws"), create=True)


STEPS = {
    "pickle.load": load_whole,
    "import hard negatives": import_negatives,
    "import scores --as-pairs": import_as_pairs,
    "import scores, aligned": import_aligned,
}


def alone(task: Callable[..., Any], *arguments: Any) -> Any:
    """Run a task in a new process and return its result; a process that dies is an error."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(task, *arguments).result()


def measured(step: str, folder: Path) -> tuple[int, Meter]:
    meter = Meter()
    with meter.watch():
        rows = STEPS[step](folder)
    return rows, meter


def run(options: argparse.Namespace, queries: int) -> dict[str, Meter]:
    """Run all steps with this number of queries."""
    steps = {}
    with tempfile.TemporaryDirectory() as name:
        sizes = (options.passages, options.scores, options.systems, options.negatives)
        alone(write_files, Path(name), queries, *sizes)
        alone(import_base, Path(name))
        print(f"{queries:,} queries, {options.passages:,} passages")
        for step in STEPS:
            rows, steps[step] = alone(measured, step, Path(name))
            meter = steps[step]
            times = f"wall {meter.wall_s:6.1f} s, CPU {meter.cpu_s:6.1f} s"
            print(f"{step:26} {rows:12,} rows, {times}, {meter.peak_gb:.3f} GB", flush=True)
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=800_000)
    parser.add_argument("--passages", type=int, default=884_182)
    parser.add_argument("--scores", type=int, default=20, help="scores of each query")
    parser.add_argument("--systems", type=int, default=4)
    parser.add_argument(
        "--negatives",
        type=int,
        default=0,
        help="negatives of each system and query; by default the scored passages are divided",
    )
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    small, large = run(options, options.queries // 10), run(options, options.queries)
    if options.json:
        facts = {
            size: {step: asdict(meter) for step, meter in steps.items()}
            for size, steps in (("small", small), ("large", large))
        }
        options.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    # With --negatives the scores are few, and the memory for a tenth of them says nothing.
    checked = ["import hard negatives"] if options.negatives else [step for step in STEPS if step != "pickle.load"]
    failed = [
        f"{step}: {meter.peak_gb:.3f} GB, {small[step].peak_gb:.3f} GB for a tenth"
        for step, meter in large.items()
        if step in checked and not meter.peak_gb < min(MOST_GB, MOST_GROWTH * small[step].peak_gb)
    ]
    sys.exit("too much memory: " + "; ".join(failed) if failed else 0)


if __name__ == "__main__":
    main()
