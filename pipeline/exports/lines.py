"""Writers of text formats: ColBERTv2, FlagEmbedding, Tevatron, lightning-ir and neural-ranking-kd.

Scores are raw logits of the ensemble, written with enough digits to read back as the same float32. Every writer
returns the configurations that its files make up.
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
"""Folder of a ColBERT export for what ColBERT itself reads."""
_RUN = ["query_id", "q0", "doc_id", "rank", "score", "system"]
_KD = ["positive_score", "negative_score", "query_id", "positive_id", "negative_id"]


def colbert(groups: Iterable[Groups], lookup: TextLookup, directory: Path) -> list[Config]:
    """Write ColBERTv2's examples.json with lines [query, [passage, score], …], and the same rows as Parquet.

    These hold external ids, as numbers where they are integers. ColBERT itself finds a passage by its line number in
    collection.tsv. So an export with texts also has `numbered/`: queries.tsv, collection.tsv, and an examples.json with
    their line numbers.
    """
    numbered = directory / NUMBERED
    with ExitStack() as open_files:
        examples = open_files.enter_context(text_file(directory / "examples.json"))
        numbered_examples = None if lookup.ids else open_files.enter_context(text_file(numbered / "examples.json"))

        def tables() -> Iterator[pa.Table]:
            for group in groups:
                columns = lookup.named(group)
                names = map(_json_id, columns["query_id"].to_pylist())
                passages = list(map(_json_id, columns["passage_ids"].flatten().to_pylist()))
                examples.writelines(_examples(group, names, passages))
                if numbered_examples is not None:
                    passages = lookup.passages.number(group.passage).tolist()
                    numbered_examples.writelines(
                        _examples(group, lookup.queries.number(group.query).tolist(), passages)
                    )
                yield pa.table(columns)

        rows = write_parquet(directory / "train", tables())
    if not lookup.ids:
        write_tsv(numbered / "queries.tsv", _lines(lookup.queries))
        write_tsv(numbered / "collection.tsv", _lines(lookup.passages))
    return [Config("default", "train/*.parquet", rows)]


def flag_embedding(groups: Iterable[Groups], lookup: TextLookup, directory: Path) -> list[Config]:
    """Write FlagEmbedding's JSON lines: query, pos, neg, pos_scores, neg_scores."""

    def values() -> Iterator[dict[str, Any]]:
        for group in groups:
            queries = lookup.queries.texts(group.query)
            passages, scores = group.split(lookup.passages.texts(group.passage)), group.split(group.score.tolist())
            for query, n, texts, logits in zip(queries, group.positives, passages, scores, strict=True):
                cut = {"pos": texts[:n], "neg": texts[n:], "pos_scores": logits[:n], "neg_scores": logits[n:]}
                yield {"query": query, **cut}

    return [Config("default", "train.jsonl", write_json_lines(directory / "train.jsonl", values()))]


def tevatron(groups: Iterable[Groups], lookup: TextLookup, directory: Path) -> list[Config]:
    """Write Tevatron's JSON lines: query_id, query, positive_passages and negative_passages of docid, text, score."""

    def values() -> Iterator[dict[str, Any]]:
        for group in groups:
            queries = lookup.queries.names(group.query).to_pylist(), lookup.queries.texts(group.query)
            columns = lookup.passages.names(group.passage).to_pylist(), lookup.passages.texts(group.passage)
            scored = [
                {"docid": docid, "text": text, "score": score}
                for docid, text, score in zip(*columns, group.score.tolist(), strict=True)
            ]
            for name, query, n, passages in zip(*queries, group.positives, group.split(scored), strict=True):
                sides = {"positive_passages": passages[:n], "negative_passages": passages[n:]}
                yield {"query_id": name, "query": query, **sides}

    return [Config("default", "train.jsonl", write_json_lines(directory / "train.jsonl", values()))]


def lightning_ir(groups: Iterable[Groups], lookup: TextLookup, directory: Path) -> list[Config]:
    """Write the passages of every query, ranked by score, as a TREC run for lightning-ir's RunDataset.

    lightning-ir gets its texts from ir_datasets. So an export with texts also has queries.jsonl and docs.jsonl, which
    ir_datasets reads as a data set.
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
        for file, key, table in (("queries", "query_id", lookup.queries), ("docs", "doc_id", lookup.passages)):
            values = ({key: name, "text": text} for ids, texts in table.numbered() for name, text in _zip(ids, texts))
            write_json_lines(directory / f"{file}.jsonl", values)
    return [Config("default", "train.tsv", rows, {"sep": "\t", "names": _RUN})]


def kd(batches: Iterable[pa.RecordBatch], lookup: TextLookup, directory: Path) -> list[Config]:
    """Write the five columns of neural-ranking-kd: both scores, then query, positive and negative id."""

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
    for query, scored in zip(queries, pairs, strict=True):
        yield json.dumps([query, *scored], ensure_ascii=False, allow_nan=False) + "\n"


def _lines(table: TextTable) -> Iterator[list[tuple[str, str]]]:
    """Line numbers and texts. White space becomes a blank, since it could end a field or a line."""
    first = 0
    for _, texts in table.numbered():
        yield [(str(number), " ".join(text.split())) for number, text in enumerate(texts, first)]
        first += len(texts)


def _zip(ids: pa.Array, texts: list[str]) -> Iterator[tuple[str, str]]:
    return zip(ids.to_pylist(), texts, strict=True)


def _json_id(name: str) -> int | str:
    """An id as a number if it is a canonical integer, since ColBERT's ids are numbers.

    >>> _json_id("7"), _json_id("07"), _json_id("d7")
    (7, '07', 'd7')
    """
    return int(name) if name.isascii() and name.isdigit() and (name == "0" or name[0] != "0") else name
