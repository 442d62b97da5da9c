"""Formats that are lines of text: ColBERTv2's, FlagEmbedding's, Tevatron's, lightning-ir's, and neural-ranking-kd's.

Scores are raw logits of the ensemble; written as text they give the same float32 again.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.exports.card import Config
from pipeline.exports.files import number, text_file, write_json_lines, write_parquet, write_tsv
from pipeline.exports.rows import Groups
from pipeline.exports.text_lookup import TextLookup, TextTable

NUMBERED = "numbered"
"""Folder of a ColBERT export with texts."""
_RUN = ["query_id", "q0", "doc_id", "rank", "score", "system"]
_KD = ["positive_score", "negative_score", "query_id", "positive_id", "negative_id"]


def colbert(groups: Iterable[Groups], lookup: TextLookup, directory: Path) -> list[Config]:
    """ColBERTv2's examples.json, [query, [passage, score], …] a line, and the same as Parquet for `datasets`.

    Ids are external ones, numbers where they are written as such. ColBERT itself reads a passage by the number of
    its line: unless only ids are wanted, `numbered/` holds the examples by such numbers, queries.tsv and
    collection.tsv.
    """
    numbered = directory / NUMBERED
    with ExitStack() as open_files:
        examples = open_files.enter_context(text_file(directory / "examples.json"))
        own = None if lookup.ids else open_files.enter_context(text_file(numbered / "examples.json"))

        def tables() -> Iterator[pa.Table]:
            for group in groups:
                columns = lookup.named(group)
                names = map(_json_id, columns["query_id"].to_pylist())
                passages = list(map(_json_id, columns["passage_ids"].flatten().to_pylist()))
                examples.writelines(_examples(group, names, passages))
                if own is not None:
                    passages = lookup.passages.number(group.passage).tolist()
                    own.writelines(_examples(group, lookup.queries.number(group.query).tolist(), passages))
                yield pa.table(columns)

        rows = write_parquet(directory / "train", tables())
    if not lookup.ids:
        write_tsv(numbered / "queries.tsv", _lines(lookup.queries))
        write_tsv(numbered / "collection.tsv", _lines(lookup.passages))
    return [Config("default", "train/*.parquet", rows)]


def flag_embedding(groups: Iterable[Groups], lookup: TextLookup, directory: Path) -> list[Config]:
    """FlagEmbedding's JSON lines: query, pos, neg, pos_scores, neg_scores."""

    def values() -> Iterator[dict[str, Any]]:
        for group in groups:
            queries = lookup.queries.texts(group.query)
            passages, scores = group.split(lookup.passages.texts(group.passage)), group.split(group.score.tolist())
            for query, n, texts, logits in zip(queries, group.positives, passages, scores, strict=True):
                cut = {"pos": texts[:n], "neg": texts[n:], "pos_scores": logits[:n], "neg_scores": logits[n:]}
                yield {"query": query, **cut}

    return [Config("default", "train.jsonl", write_json_lines(directory / "train.jsonl", values()))]


def tevatron(groups: Iterable[Groups], lookup: TextLookup, directory: Path) -> list[Config]:
    """Tevatron's JSON lines: query_id, query, positive_passages and negative_passages of docid, text, score."""

    def values() -> Iterator[dict[str, Any]]:
        for group in groups:
            queries = lookup.queries.names(group.query).to_pylist(), lookup.queries.texts(group.query)
            columns = lookup.passages.names(group.passage).to_pylist(), lookup.passages.texts(group.passage)
            told = [
                {"docid": docid, "text": text, "score": score}
                for docid, text, score in zip(*columns, group.score.tolist(), strict=True)
            ]
            for name, query, n, own in zip(*queries, group.positives, group.split(told), strict=True):
                passages = {"positive_passages": own[:n], "negative_passages": own[n:]}
                yield {"query_id": name, "query": query, **passages}

    return [Config("default", "train.jsonl", write_json_lines(directory / "train.jsonl", values()))]


def lightning_ir(groups: Iterable[Groups], lookup: TextLookup, directory: Path) -> list[Config]:
    """A TREC run of every query's passages by score, as lightning-ir's RunDataset and any evaluation tool read it.

    Unless only ids are wanted, queries.jsonl and docs.jsonl are what ir_datasets, which lightning-ir takes its texts
    from, reads as a data set.
    """

    def batches() -> Iterator[Iterable[Iterable[str]]]:
        for group in groups:
            lookup.queries.number(group.query)
            lookup.passages.number(group.passage)
            owner = np.repeat(np.arange(len(group.query)), group.lengths)
            order = np.lexsort((group.passage, -group.score, owner))
            ranks = np.arange(len(owner)) - np.repeat(np.cumsum(group.lengths) - group.lengths, group.lengths) + 1
            queries = lookup.queries.names(group.query[owner]).to_pylist()
            passages = lookup.passages.names(group.passage[order]).to_pylist()
            scores = map(number, group.score[order].tolist())
            yield (
                (query, "Q0", passage, str(rank), score, "prep")
                for query, passage, rank, score in zip(queries, passages, ranks, scores, strict=True)
            )

    rows = write_tsv(directory / "train.tsv", batches())
    if not lookup.ids:
        for name, key, table in (("queries", "query_id", lookup.queries), ("docs", "doc_id", lookup.passages)):
            values = ({key: one, "text": text} for ids, texts in table.numbered() for one, text in _zip(ids, texts))
            write_json_lines(directory / f"{name}.jsonl", values)
    return [Config("default", "train.tsv", rows, {"sep": "\t", "names": _RUN})]


def kd(batches: Iterable[pa.RecordBatch], lookup: TextLookup, directory: Path) -> list[Config]:
    """The five columns of neural-ranking-kd: both scores, then query, positive and negative id."""

    def rows() -> Iterator[Iterable[Iterable[str]]]:
        for batch in batches:
            query, positive, negative = (batch.column(name).to_numpy() for name in _KD[2:])
            yield zip(
                *(map(number, batch.column(name).to_pylist()) for name in _KD[:2]),
                lookup.queries.names(query).to_pylist(),
                lookup.passages.names(positive).to_pylist(),
                lookup.passages.names(negative).to_pylist(),
                strict=True,
            )

    count = write_tsv(directory / "train.tsv", rows())
    return [Config("default", "train.tsv", count, {"sep": "\t", "names": _KD})]


def _examples(group: Groups, queries: Iterable[int | str], passages: list[int | str]) -> Iterator[str]:
    pairs = group.split(list(zip(passages, group.score.tolist(), strict=True)))
    for query, own in zip(queries, pairs, strict=True):
        yield json.dumps([query, *own], ensure_ascii=False, allow_nan=False) + "\n"


def _lines(table: TextTable) -> Iterator[list[tuple[str, str]]]:
    """Numbers and texts; white space, which could end a field or a line, is one blank."""
    first = 0
    for _, texts in table.numbered():
        yield [(str(place), " ".join(text.split())) for place, text in enumerate(texts, first)]
        first += len(texts)


def _zip(ids: pa.Array, texts: list[str]) -> Iterator[tuple[str, str]]:
    return zip(ids.to_pylist(), texts, strict=True)


def _json_id(name: str) -> int | str:
    """A canonical integer as a number: ColBERT counts passages."""
    return int(name) if name.isascii() and name.isdigit() and (name == "0" or name[0] != "0") else name
