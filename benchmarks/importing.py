"""Measure the import of a synthetic collection with one query and judgement for every eleven passages.

    python benchmarks/importing.py --passages 1000000

As in MS MARCO, passages have about 56 words and queries about 6. The time of 8.8 million passages is extrapolated.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from dataclasses import asdict
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from meter import Meter
from synthetic import MARCO_PASSAGES, MARCO_QUERIES, PASSAGE_WORDS, QUERY_WORDS, texts, words

from pipeline.imports.msmarco import import_msmarco
from pipeline.storage.workspace import Workspace

BLOCK = 200_000


def write_texts(path: Path, count: int, mean_words: int) -> None:
    """Write lines of id and text."""
    vocabulary, rng = words(), np.random.default_rng(count)
    with path.open("w", encoding="utf-8") as stream:
        for first in range(0, count, BLOCK):
            block = texts(vocabulary, rng, min(BLOCK, count - first), mean_words)
            stream.writelines(f"{first + i}\t{text}\n" for i, text in enumerate(block.to_pylist()))


def write_files(folder: Path, passages: int, queries: int) -> None:
    write_texts(folder / "collection.tsv", passages, PASSAGE_WORDS)
    write_texts(folder / "queries.tsv", queries, QUERY_WORDS)
    relevant = np.random.default_rng(0).integers(0, passages, queries)
    with (folder / "qrels.tsv").open("w", encoding="utf-8") as stream:
        stream.writelines(f"{query}\t0\t{passage}\t1\n" for query, passage in enumerate(relevant.tolist()))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--passages", type=int, default=1_000_000)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        # In another process, so that its memory is not counted.
        queries = options.passages * MARCO_QUERIES // MARCO_PASSAGES
        maker = get_context("spawn").Process(target=write_files, args=(folder, options.passages, queries))
        maker.start()
        maker.join()
        meter, ws = Meter(), Workspace.open(str(folder / "ws"), create=True)
        with meter.watch():
            splits = ([("train", folder / f"{kind}.tsv")] for kind in ("queries", "qrels"))
            import_msmarco(ws, folder / "collection.tsv", *splits)
        read_gb = sum(path.stat().st_size for path in folder.glob("*.tsv")) / 1e9
    more = MARCO_PASSAGES / options.passages
    print(f"{options.passages:,} passages, {queries:,} queries, {read_gb:.2f} GB of files")
    print(f"wall {meter.wall_s:.1f} s, CPU {meter.cpu_s:.1f} s, peak {meter.peak_gb:.2f} GB")
    print(f"MS MARCO, extrapolated: wall {meter.wall_s * more / 60:.1f} minutes")
    if options.json:
        facts = {"passages": options.passages, "read_gb": read_gb, **asdict(meter)}
        options.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
