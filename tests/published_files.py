"""Writes small published files in every format of scores, from plain dicts: query -> {passage -> score}."""

import gzip
import json
import pickle
import random
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.imports.msmarco import import_msmarco
from pipeline.storage.workspace import Workspace

QUERIES, PASSAGES = range(10, 30), range(100, 180)
Scores = dict[int, dict[int, float]]


def workspace_of_numbers(directory: Path) -> Workspace:
    """A collection whose ids are numbers, as in MS MARCO; each query has one judged passage."""
    rng = random.Random(1)
    files = {name: directory / name for name in ("collection", "queries", "qrels")}
    passages = "".join(f"{p}\tpassage {rng.randrange(1000)} text {p}\n" for p in PASSAGES)
    files["collection"].write_text(passages)
    files["queries"].write_text("".join(f"{q}\tquery {q}\n" for q in QUERIES))
    files["qrels"].write_text("".join(f"{q}\t0\t{PASSAGES[q]}\t1\n" for q in QUERIES))
    ws = Workspace.open(str(directory / "ws"), create=True)
    import_msmarco(ws, files["collection"], [("train", files["queries"])], [("train", files["qrels"])])
    return ws


def positive(query: int) -> int:
    return PASSAGES[query]


def make_scores(seed: int = 0) -> Scores:
    """Scores of each query's positive and of five to nine others, exact in float32; some tie."""
    rng = random.Random(seed)
    scores = {}
    for query in QUERIES:
        others = rng.sample([p for p in PASSAGES if p != positive(query)], rng.randint(5, 9))
        scores[query] = {p: rng.randrange(-40, 40) / 8 for p in [positive(query), *others]}
    return scores


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def lines(values) -> bytes:
    return "".join(json.dumps(value) + "\n" for value in values).encode()


def triples_of(scores: Scores) -> list[tuple[int, int, int]]:
    return [(q, positive(q), p) for q, passages in scores.items() for p in passages if p != positive(q)]


def write_kd(path: Path, scores: Scores) -> Path:
    rows = (f"{scores[q][a]!r}\t{scores[q][b]!r}\t{q}\t{a}\t{b}\n" for q, a, b in triples_of(scores))
    return write(path, "".join(rows).encode())


def write_pickle(path: Path, scores: Scores) -> Path:
    return write(path, pickle.dumps(scores))


def write_parquet_pairs(path: Path, scores: Scores) -> Path:
    rows = [(str(q), str(p), s) for q, passages in scores.items() for p, s in passages.items()]
    query, passage, score = (list(column) for column in zip(*rows, strict=True))
    pq.write_table(pa.table({"query_id": query, "passage_id": passage, "score": score}), path)
    return path


def write_parquet_lists(path: Path, scores: Scores) -> Path:
    columns = {
        "query_id": list(scores),
        "corpus_id": [list(passages) for passages in scores.values()],
        "score": [list(passages.values()) for passages in scores.values()],
    }
    pq.write_table(pa.table(columns), path)
    return path


def write_scored_lists(path: Path, scores: Scores) -> Path:
    """The older schema of msmarco-hard-negatives.jsonl."""

    def scored(query, passages):
        return [{"pid": p, "ce-score": scores[query][p]} for p in passages]

    return write(
        path,
        lines(
            {
                "qid": q,
                "pos": scored(q, [positive(q)]),
                "neg": {"bm25": scored(q, list(passages)[1:4]), "x-1": scored(q, list(passages)[2:])},
            }
            for q, passages in scores.items()
        ),
    )


def write_colbert(path: Path, scores: Scores) -> Path:
    return write(path, lines([q, *([p, s] for p, s in passages.items())] for q, passages in scores.items()))


def write_run(path: Path, scores: Scores) -> Path:
    rows = (f"{q} Q0 {p} 1 {s!r} tag\n" for q, passages in scores.items() for p, s in passages.items())
    return write(path, "".join(rows).encode())


WRITERS = {
    "pickle": (write_pickle, "s.pkl.gz"),
    "kd": (write_kd, "s.tsv"),
    "pairs": (write_parquet_pairs, "s.parquet"),
    "parquet": (write_parquet_lists, "s.parquet"),
    "lists": (write_scored_lists, "s.jsonl.gz"),
    "colbert": (write_colbert, "examples.json"),
    "run": (write_run, "s.run"),
}
