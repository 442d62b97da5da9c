"""What each trainer reads: one function for each format, from rows to files.

A trainer of sentence-transformers takes the first of `label`, `labels`, `score`, `scores` for its label and every
other column for an input, by order: so text exports hold inputs and at most one label, and no ids. Scores are raw
logits of the ensemble, in float32.

Shapes: N rows of a batch, M passages of all its groups.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.export_files import number, write_json_lines, write_parquet, write_tsv
from pipeline.export_rows import Groups, Names
from pipeline.texts import Texts

Source = Literal["triples", "positive", "query"]


@dataclass(frozen=True)
class Words:
    """What ids stand for."""

    queries: Texts
    passages: Texts
    query_names: Names
    passage_names: Names
    ids: bool
    """Whether external ids are written where texts could be."""

    def query(self, ids: np.ndarray) -> pa.Array:
        """Texts or external ids (N,) of queries."""
        return self.query_names.take(ids) if self.ids else pa.array(self.queries.take(ids), pa.string())

    def passage(self, ids: np.ndarray) -> pa.Array:
        """Texts or external ids (N,) of passages."""
        return self.passage_names.take(ids) if self.ids else pa.array(self.passages.take(ids), pa.string())

    def column(self, text: str, external: str) -> str:
        """Name of a column with either."""
        return external if self.ids else text


@dataclass(frozen=True)
class Config:
    """One configuration of a data set, for its card."""

    name: str
    files: str
    rows: int
    options: dict[str, Any] | None = None
    """What the loader needs beside the files."""


Batches = Iterable[pa.RecordBatch]


def triplet(batches: Batches, words: Words, directory: Path) -> list[Config]:
    """Query, positive, negative; no label (MultipleNegativesRankingLoss, TripletLoss)."""
    return _parquet(directory, (pa.table(_inputs(batch, words)) for batch in batches))


def margin(batches: Batches, words: Words, directory: Path) -> list[Config]:
    """Query, positive, negative, and the margin as the label (MarginMSELoss)."""
    return _parquet(
        directory, (pa.table({**_inputs(batch, words), "label": batch.column("margin")}) for batch in batches)
    )


def n_tuple(groups: Iterable[Groups], words: Words, directory: Path) -> list[Config]:
    """Query, passages in columns of their own, and all their scores (MarginMSELoss, DistillKLDivLoss)."""

    def tables() -> Iterator[pa.Table]:
        for group in groups:
            width = int(group.lengths[0])
            first = words.column("positive", "positive_id") if group.positives[0] else words.column("doc_1", "doc_1_id")
            others = range(1, width) if group.positives[0] else range(2, width + 1)
            form = words.column("{}_{}", "{}_{}_id")
            names = [first, *(form.format("negative" if group.positives[0] else "doc", i) for i in others)]
            columns = {words.column("query", "query_id"): words.query(group.query)}
            for name, ids in zip(names, group.passage.reshape(-1, width).T, strict=True):
                columns[name] = words.passage(ids)
            columns["scores"] = _lists(group, pa.array(group.score))
            yield pa.table(columns)

    return _parquet(directory, tables())


def labelled_list(groups: Iterable[Groups], words: Words, directory: Path) -> list[Config]:
    """Query, a list of passages, the list of their scores (CrossEncoder's listwise losses)."""
    names = words.column("query", "query_id"), words.column("docs", "doc_ids"), "labels"
    return _parquet(directory, (_list_table(group, words, names) for group in groups))


def pylate(groups: Iterable[Groups], words: Words, directory: Path) -> list[Config]:
    """PyLate's three tables: train (query_id, document_ids, scores), queries and documents (id, text)."""
    used = {"query": np.zeros(len(words.queries), bool), "document": np.zeros(len(words.passages), bool)}

    def tables() -> Iterator[pa.Table]:
        for group in groups:
            used["query"][group.query] = True
            used["document"][group.passage] = True
            columns = {
                "query_id": words.query_names.take(group.query),
                "document_ids": _lists(group, words.passage_names.take(group.passage)),
                "scores": _lists(group, pa.array(group.score)),
            }
            yield pa.table(columns)

    made = [Config("train", "train/*.parquet", write_parquet(directory / "train", tables()))]
    for what, folder, names, texts in (
        ("query", "queries", words.query_names, words.queries),
        ("document", "documents", words.passage_names, words.passages),
    ):
        ids = np.flatnonzero(used[what])
        rows = write_parquet(directory / folder, _named_texts(f"{what}_id", ids, names, texts))
        made.append(Config(folder, f"{folder}/*.parquet", rows))
    return made


def colbert(groups: Iterable[Groups], words: Words, directory: Path) -> list[Config]:
    """ColBERTv2's examples.json, [query, [passage, score], …] a line, and the same as Parquet for `datasets`.

    Ids are external ones, numbers where they are written as such.
    """

    def tables() -> Iterator[pa.Table]:
        for group in groups:
            columns = {
                "query_id": words.query_names.take(group.query),
                "passage_ids": _lists(group, words.passage_names.take(group.passage)),
                "scores": _lists(group, pa.array(group.score)),
            }
            yield pa.table(columns)

    rows = write_parquet(directory / "train", tables())

    def examples() -> Iterator[list[Any]]:
        for path in sorted((directory / "train").glob("*.parquet")):
            for batch in pq.ParquetFile(path).iter_batches():
                for row in batch.to_pylist():
                    pairs = zip(row["passage_ids"], row["scores"], strict=True)
                    yield [_json_id(row["query_id"]), *([_json_id(passage), score] for passage, score in pairs)]

    write_json_lines(directory / "examples.json", examples())
    return [Config("default", "train/*.parquet", rows)]


def flag_embedding(groups: Iterable[Groups], words: Words, directory: Path) -> list[Config]:
    """FlagEmbedding's JSON lines: query, pos, neg, pos_scores, neg_scores."""

    def values() -> Iterator[dict[str, Any]]:
        for group in groups:
            queries = words.queries.take(group.query)
            passages, scores = group.split(words.passages.take(group.passage)), group.split(group.score.tolist())
            for query, n, texts, logits in zip(queries, group.positives, passages, scores, strict=True):
                cut = {"pos": texts[:n], "neg": texts[n:], "pos_scores": logits[:n], "neg_scores": logits[n:]}
                yield {"query": query, **cut}

    return [Config("default", "train.jsonl", write_json_lines(directory / "train.jsonl", values()))]


def tevatron(groups: Iterable[Groups], words: Words, directory: Path) -> list[Config]:
    """Tevatron's JSON lines: query_id, query, positive_passages and negative_passages of docid, text, score."""

    def values() -> Iterator[dict[str, Any]]:
        for group in groups:
            queries = words.query_names.take(group.query).to_pylist(), words.queries.take(group.query)
            columns = words.passage_names.take(group.passage).to_pylist(), words.passages.take(group.passage)
            told = [
                {"docid": docid, "text": text, "score": score}
                for docid, text, score in zip(*columns, group.score.tolist(), strict=True)
            ]
            for name, query, n, own in zip(*queries, group.positives, group.split(told), strict=True):
                passages = {"positive_passages": own[:n], "negative_passages": own[n:]}
                yield {"query_id": name, "query": query, **passages}

    return [Config("default", "train.jsonl", write_json_lines(directory / "train.jsonl", values()))]


_RUN = ["query_id", "q0", "doc_id", "rank", "score", "system"]
_KD = ["positive_score", "negative_score", "query_id", "positive_id", "negative_id"]


def lightning_ir(groups: Iterable[Groups], words: Words, directory: Path) -> list[Config]:
    """A TREC run of every query's passages by score, as lightning-ir's RunDataset and any evaluation tool read it."""

    def batches() -> Iterator[Iterable[Iterable[str]]]:
        for group in groups:
            owner = np.repeat(np.arange(len(group.query)), group.lengths)
            order = np.lexsort((group.passage, -group.score, owner))
            ranks = np.arange(len(owner)) - np.repeat(np.cumsum(group.lengths) - group.lengths, group.lengths) + 1
            queries = words.query_names.take(group.query[owner]).to_pylist()
            passages = words.passage_names.take(group.passage[order]).to_pylist()
            scores = map(number, group.score[order].tolist())
            yield (
                (query, "Q0", passage, str(rank), score, "prep")
                for query, passage, rank, score in zip(queries, passages, ranks, scores, strict=True)
            )

    rows = write_tsv(directory / "train.tsv", batches())
    return [Config("default", "train.tsv", rows, {"sep": "\t", "names": _RUN})]


def kd_tsv(batches: Batches, words: Words, directory: Path) -> list[Config]:
    """The five columns of neural-ranking-kd: both scores, then query, positive and negative id."""

    def rows() -> Iterator[Iterable[Iterable[str]]]:
        for batch in batches:
            query, positive, negative = (batch.column(name).to_numpy() for name in _KD[2:])
            yield zip(
                *(map(number, batch.column(name).to_pylist()) for name in _KD[:2]),
                words.query_names.take(query).to_pylist(),
                words.passage_names.take(positive).to_pylist(),
                words.passage_names.take(negative).to_pylist(),
                strict=True,
            )

    count = write_tsv(directory / "train.tsv", rows())
    return [Config("default", "train.tsv", count, {"sep": "\t", "names": _KD})]


@dataclass(frozen=True)
class Format:
    """How a format is written."""

    write: Callable[[Any, Words, Path], list[Config]]
    rows: Source
    """Triples as they come, or what each positive or each query has."""
    negatives: int | None = None
    """How many a group has, where nobody says; None is all there are."""
    even: bool = False
    """Whether every group must have as many."""
    texts: bool = True
    """Whether texts are written unless ids are asked for."""
    either: bool = False
    """Whether it can have ids instead of texts."""
    lists: bool = False
    """Whether it can be made of n-way lists, which do not tell positives from negatives."""


FORMATS = {
    "triplet": Format(triplet, "triples", either=True),
    "margin": Format(margin, "triples", either=True),
    "n-tuple": Format(n_tuple, "positive", 7, even=True, either=True, lists=True),
    "labelled-list": Format(labelled_list, "positive", either=True, lists=True),
    "pylate": Format(pylate, "positive", 31, even=True, lists=True),
    "colbert": Format(colbert, "positive", 63, even=True, texts=False, lists=True),
    "flag-embedding": Format(flag_embedding, "query"),
    "tevatron": Format(tevatron, "query"),
    "lightning-ir": Format(lightning_ir, "query", texts=False, lists=True),
    "kd": Format(kd_tsv, "triples", texts=False),
}


def _inputs(batch: pa.RecordBatch, words: Words) -> dict[str, pa.Array]:
    query, positive, negative = (batch.column(name).to_numpy() for name in ("query_id", "positive_id", "negative_id"))
    return {
        words.column("query", "query_id"): words.query(query),
        words.column("positive", "positive_id"): words.passage(positive),
        words.column("negative", "negative_id"): words.passage(negative),
    }


def _parquet(directory: Path, tables: Iterable[pa.Table]) -> list[Config]:
    return [Config("default", "train/*.parquet", write_parquet(directory / "train", tables))]


def _list_table(group: Groups, words: Words, names: tuple[str, str, str]) -> pa.Table:
    columns = (
        words.query(group.query),
        _lists(group, words.passage(group.passage)),
        _lists(group, pa.array(group.score)),
    )
    return pa.table(dict(zip(names, columns, strict=True)))


def _lists(group: Groups, values: pa.Array) -> pa.ListArray:
    """Values (M,) as a list for each group."""
    offsets = np.concatenate([[0], np.cumsum(group.lengths)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), values)


def _named_texts(key: str, ids: np.ndarray, names: Names, texts: Texts) -> Iterator[pa.Table]:
    for start in range(0, len(ids), 16_384):
        own = ids[start : start + 16_384]
        yield pa.table({key: names.take(own), "text": pa.array(texts.take(own), pa.string())})


def _json_id(name: str) -> int | str:
    """A canonical integer as a number: ColBERT counts passages."""
    return int(name) if name.isascii() and name.isdigit() and (name == "0" or name[0] != "0") else name
