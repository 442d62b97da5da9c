"""A small collection with structure: each query shares words with its relevant passages."""

import json
import random
from pathlib import Path

import numpy as np

from pipeline.imports.beir import beir_collection
from pipeline.imports.collection_source import import_collection
from pipeline.imports.msmarco import import_msmarco
from pipeline.retrieval.mining import mine
from pipeline.retrieval.retrievers import Bm25Retriever, RandomRetriever
from pipeline.scores.pairs import build_pairs, load_pairs
from pipeline.scores.scores import read_pair_ids, write_scores
from pipeline.storage.workspace import Workspace

PASSAGES, TRAIN, DEV = 80, 16, 8


def words(rng: random.Random, count: int) -> str:
    return " ".join(rng.choice("abcd") + rng.choice("aeio") + rng.choice("klmn") for _ in range(count))


def write_files(directory: Path, seed: int = 0) -> dict[str, Path]:
    """Writes files in MS MARCO's format, with ids that differ from row numbers."""
    rng = random.Random(seed)
    texts = [words(rng, rng.randint(3, 20)) for _ in range(PASSAGES)]
    files = {name: directory / f"{name}.tsv" for name in ("collection", "train", "dev", "train.qrels", "dev.qrels")}
    files["collection"].write_text("".join(f"p{i * 7}\t{text}\n" for i, text in enumerate(texts)))
    first = 0
    for split, count in (("train", TRAIN), ("dev", DEV)):
        queries, qrels = [], []
        for i in range(first, first + count):
            relevant = rng.sample(range(PASSAGES), rng.choice([1, 1, 2]))
            queries.append(f"q{i * 3}\t{' '.join(rng.sample(texts[relevant[0]].split(), 3))}\n")
            qrels += [f"q{i * 3}\t0\tp{p * 7}\t1\n" for p in relevant]
        files[split].write_text("".join(queries))
        files[f"{split}.qrels"].write_text("".join(qrels))
        first += count
    return files


def import_options(files: dict[str, Path]) -> str:
    """The options of `prep import msmarco` for these files."""
    ends = {"queries": "", "qrels": ".qrels"}
    named = [f"--{kind} {split}={files[split + end]}" for kind, end in ends.items() for split in ("train", "dev")]
    return " ".join([f"--collection {files['collection']}", *named])


def imported(directory: Path, location: str | None = None) -> Workspace:
    """Imports the collection into a workspace at the location, by default beside the files."""
    files = write_files(directory)
    workspace = Workspace.open(location or str(directory / "ws"), create=True)
    import_msmarco(
        workspace,
        files["collection"],
        [("train", files["train"]), ("dev", files["dev"])],
        [("train", files["train.qrels"]), ("dev", files["dev.qrels"])],
    )
    return workspace


def paired(workspace: Workspace, k: int = 10, pairs_per_shard: int = 40) -> Workspace:
    mine(workspace, ["train", "dev"], k, Bm25Retriever())
    build_pairs(workspace, pairs_per_shard)
    return workspace


def scored(workspace: Workspace, teachers: dict[str, int], digits: int | None = None, spread: float = 4) -> Workspace:
    """Writes random scores for each teacher, by its seed; few digits make ties."""
    pairs = load_pairs(workspace)
    for teacher, seed in teachers.items():
        for number, path in enumerate(pairs.paths):
            ids = read_pair_ids(path)
            scores = np.random.default_rng((seed, number)).normal(0, spread, len(ids[0]))
            scores = scores if digits is None else np.round(scores, digits)
            described = {"fingerprint": f"{teacher} {seed}"}
            write_scores(
                workspace,
                teacher,
                number,
                pairs.footers[number],
                ids,
                scores.astype(np.float32),
                described,
                {},
            )
    return workspace


def graded(directory: Path, digits: int = 0) -> Workspace:
    """Like `imported`, with the irregularities of real collections: grades, several positives, queries without any,
    two retrievers, passages with equal texts; mined, paired in shards of one query or more, scored by a, b and c."""
    files = write_files(directory)
    lines = files["collection"].read_text().splitlines()
    for copy, original in ((4, 3), *((i, i - 1) for i in range(9, PASSAGES, 4)), (5, 3)):
        lines[copy] = f"p{copy * 7}\t{lines[original].split(chr(9))[1].upper().replace(' ', '  ')} "
    files["collection"].write_text("".join(line + "\n" for line in lines))
    qrels = files["train.qrels"].read_text().splitlines()
    rng = random.Random(5)
    texts = {line.split("\t")[0]: line.split("\t")[1] for line in qrels}
    kept = [line for line in qrels if line.split("\t")[0] not in sorted(texts)[:3]]
    judged = {tuple(line.split("\t")[::2]) for line in kept}
    for query in sorted(texts)[3:]:
        for grade in (0, 1, 2, 2, 1):
            passage = f"p{rng.randrange(PASSAGES) * 7}"
            if (query, passage) not in judged:
                judged.add((query, passage))
                kept.append(f"{query}\t0\t{passage}\t{grade}")
    files["train.qrels"].write_text("".join(line + "\n" for line in kept))
    workspace = Workspace.open(str(directory / "ws"), create=True)
    splits = ([(split, files[f"{split}{kind}"]) for split in ("train", "dev")] for kind in ("", ".qrels"))
    import_msmarco(workspace, files["collection"], *splits)
    mine(workspace, ["train", "dev"], 6, RandomRetriever(3))
    return scored(paired(workspace, pairs_per_shard=30), {"a": 1, "b": 2, "c": 3}, digits)


def arguana(directory: Path) -> Workspace:
    """A collection in BEIR's format in which every query is a passage and its own best match; `test` is mined."""
    folder = directory / "arguana"
    (folder / "qrels").mkdir(parents=True)
    texts = [f"w{i} w{i + 1} w{i + 2} w{i + 3}" for i in range(30)]
    corpus = [{"_id": f"d{i}", "title": "", "text": text} for i, text in enumerate(texts)]
    queries = [{"_id": f"d{i}", "text": texts[i]} for i in range(0, 30, 5)]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    lines = [f"d{i}\td{i + 1}\t1\n" for i in range(0, 30, 5)]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    workspace = Workspace.open(str(directory / "ws"), create=True)
    import_collection(workspace, beir_collection(folder))
    mine(workspace, ["test"], 5, Bm25Retriever())
    return workspace
