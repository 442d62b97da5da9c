"""Measure the import of synthetic published data: msmarco-hard-negatives and the pickle of cross-encoder scores.

    python benchmarks/published.py --queries 800000 --scores 20
    python benchmarks/published.py --queries 80000 --systems 13 --negatives 50

By default a tenth of what is published for MS MARCO: 800 thousand queries and 16 million scores, over a tenth of
its passages; the second is a tenth of the hard negatives as published, 52 million ids. The scores define the pairs.
Everything is done for a tenth of the queries first. It fails where an import takes 0.5 GB of memory, all its processes
together, or a tenth more than the tenth took. Every step has a process of its own, so that none is charged with what
another left behind. For comparison the pickle is also loaded whole, as its users do.
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
    """A collection of short texts, hard negatives and a pickle of scores; the first passage is the positive."""
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
            found = {}
            for query, own, logits in zip(block, drawn, values, strict=True):
                texts.write(f"{query}\tquery {query}\n")
                qrels.write(f"{query}\t0\t{own[0]}\t1\n")
                others = rng.integers(0, passages, (systems, negatives)).tolist() if negatives else ()
                dealt = others or [own[1 + number :: systems] for number in range(systems)]
                named = {f"system-{number}": one for number, one in enumerate(dealt)}
                lists.write(json.dumps({"qid": query, "pos": own[:1], "neg": named}) + "\n")
                found[query] = dict(zip(own, logits, strict=True))
            write_items(found, packed)
        packed.write(b".")


def write_items(found: dict[int, dict[int, float]], stream: BinaryIO) -> None:
    """What pickle writes for the items of a dict, without keeping it: integers, floats, a thousand at a time."""
    integer, score = struct.Struct("<ci"), struct.Struct(">cd")
    items = list(found.items())
    for start in range(0, len(items), 1000):
        stream.write(b"(")
        for query, own in items[start : start + 1000]:
            stream.write(_integer(query, integer) + b"}\x94(")
            stream.write(b"".join(_integer(key, integer) + score.pack(b"G", value) for key, value in own.items()))
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
    """What a task returns in a process of its own; one that dies is an error."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(task, *arguments).result()


def measured(step: str, folder: Path) -> tuple[int, Meter]:
    meter = Meter()
    with meter.watch():
        rows = STEPS[step](folder)
    return rows, meter


def run(options: argparse.Namespace, queries: int) -> dict[str, Meter]:
    """All steps with so many queries."""
    steps = {}
    with tempfile.TemporaryDirectory() as name:
        sizes = (options.passages, options.scores, options.systems, options.negatives)
        alone(write_files, Path(name), queries, *sizes)
        alone(import_base, Path(name))
        print(f"{queries:,} queries, {options.passages:,} passages")
        for step in STEPS:
            rows, steps[step] = alone(measured, step, Path(name))
            told = steps[step]
            print(
                f"{step:26} {rows:12,} rows, wall {told.wall_s:6.1f} s, CPU {told.cpu_s:6.1f} s, {told.peak_gb:.3f} GB"
            )
            sys.stdout.flush()
    return steps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=800_000)
    parser.add_argument("--passages", type=int, default=884_182)
    parser.add_argument("--scores", type=int, default=20, help="for each query")
    parser.add_argument("--systems", type=int, default=4)
    parser.add_argument("--negatives", type=int, default=0, help="of each system; by default the scored are dealt out")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    small, large = run(options, options.queries // 10), run(options, options.queries)
    if options.json:
        facts = {
            size: {step: asdict(meter) for step, meter in found.items()}
            for size, found in (("small", small), ("large", large))
        }
        options.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
    # Scores are few beside negatives of that number, and what a tenth of few takes says nothing.
    checked = ["import hard negatives"] if options.negatives else [step for step in STEPS if step != "pickle.load"]
    failed = [
        f"{step}: {meter.peak_gb:.3f} GB, {small[step].peak_gb:.3f} GB for a tenth"
        for step, meter in large.items()
        if step in checked and not meter.peak_gb < min(MOST_GB, MOST_GROWTH * small[step].peak_gb)
    ]
    sys.exit("too much memory: " + "; ".join(failed) if failed else 0)


if __name__ == "__main__":
    main()
