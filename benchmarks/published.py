"""Measure the import of synthetic published data: msmarco-hard-negatives and the pickle of cross-encoder scores.

    python benchmarks/published.py --queries 800000 --scores 20

By default a tenth of what is published for MS MARCO: 800 thousand queries and 16 million scores, over a tenth of
its passages. The scores define the pairs. For comparison the pickle is also loaded whole, as its users do.
"""

from __future__ import annotations

import argparse
import gzip
import json
import pickle
import tempfile
import time
from dataclasses import asdict
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import numpy as np
from meter import Meter

from pipeline.hard_negatives import read_lists
from pipeline.import_lists import ListOptions, file_source, import_lists
from pipeline.import_scores import ScoreOptions, import_scores
from pipeline.msmarco import import_msmarco
from pipeline.workspace import Workspace

BLOCK = 10_000


def write_files(folder: Path, queries: int, passages: int, scores: int, systems: int) -> None:
    """A collection of short texts, hard negatives and a pickle of scores; the first passage is the positive."""
    rng = np.random.default_rng(0)
    with (folder / "collection.tsv").open("w") as stream:
        stream.writelines(f"{number}\tpassage {number}\n" for number in range(passages))
    found: dict[int, dict[int, float]] = {}
    with (
        (folder / "queries.tsv").open("w") as texts,
        (folder / "qrels.tsv").open("w") as qrels,
        gzip.open(folder / "hard-negatives.jsonl.gz", "wt", compresslevel=1) as negatives,
    ):
        for first in range(0, queries, BLOCK):
            block = range(first, min(first + BLOCK, queries))
            drawn = rng.integers(0, passages, (len(block), scores)).tolist()
            values = rng.normal(0, 5, (len(block), scores)).astype(np.float32).astype(float).tolist()
            for query, own, logits in zip(block, drawn, values, strict=True):
                texts.write(f"{query}\tquery {query}\n")
                qrels.write(f"{query}\t0\t{own[0]}\t1\n")
                lists = {f"system-{number}": own[1 + number :: systems] for number in range(systems)}
                negatives.write(json.dumps({"qid": query, "pos": own[:1], "neg": lists}) + "\n")
                found[query] = dict(zip(own, logits, strict=True))
    with gzip.open(folder / "scores.pkl.gz", "wb", compresslevel=1) as packed:
        pickle.dump(found, packed)


def load_whole(path: Path, result: Connection) -> None:
    started, meter = time.perf_counter(), Meter()
    with meter.watch(), gzip.open(path) as stream:
        kept = pickle.load(stream)
    result.send((time.perf_counter() - started, meter.peak_gb, sum(map(len, kept.values()))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--queries", type=int, default=800_000)
    parser.add_argument("--passages", type=int, default=884_182)
    parser.add_argument("--scores", type=int, default=20, help="for each query")
    parser.add_argument("--systems", type=int, default=4, help="among which the negatives are dealt out")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder, spawn = Path(name), get_context("spawn")
        arguments = (folder, options.queries, options.passages, options.scores, options.systems)
        maker = spawn.Process(target=write_files, args=arguments)
        maker.start()
        maker.join()
        receiver, sender = spawn.Pipe(duplex=False)
        loader = spawn.Process(target=load_whole, args=(folder / "scores.pkl.gz", sender))
        loader.start()
        load_s, load_gb, count = receiver.recv()
        loader.join()
        ws = Workspace.open(str(folder / "ws"), create=True)
        # In a process of its own, so that what its memory grew to is not counted.
        base = spawn.Process(target=import_base, args=(folder,))
        base.start()
        base.join()
        steps = {name: Meter() for name in ("hard negatives", "scores with their pairs", "scores again, aligned")}
        lists, scores, again = steps.values()
        with lists.watch():
            import_lists(
                ws, file_source(folder / "hard-negatives.jsonl.gz", "hard-negatives", read_lists), ListOptions()
            )
        with scores.watch():
            import_scores(ws, folder / "scores.pkl.gz", "published", ScoreOptions(as_pairs=True))
        with again.watch():
            import_scores(ws, folder / "scores.pkl.gz", "again", ScoreOptions())
    print(f"{options.queries:,} queries, {options.passages:,} passages, {count:,} scores")
    print(f"{'pickle.load':26} wall {load_s:6.1f} s, peak {load_gb:.2f} GB")
    for step, meter in steps.items():
        print(f"{step:26} wall {meter.wall_s:6.1f} s, CPU {meter.cpu_s:6.1f} s, peak {meter.peak_gb:.2f} GB")
    if options.json:
        facts = {"scores": count, "load_s": load_s, "load_gb": load_gb}
        facts |= {step: asdict(meter) for step, meter in steps.items()}
        options.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def import_base(folder: Path) -> None:
    queries, qrels = ([("train", folder / f"{kind}.tsv")] for kind in ("queries", "qrels"))
    import_msmarco(Workspace.open(str(folder / "ws")), folder / "collection.tsv", queries, qrels)


if __name__ == "__main__":
    main()
