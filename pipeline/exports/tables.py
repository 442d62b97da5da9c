"""Writers of Parquet formats: sentence-transformers and PyLate.

A trainer of sentence-transformers takes the first of `label`, `labels`, `score` and `scores` as the label, and every
other column as an input, in their order. So exports with texts have inputs and at most one label, and no ids. Scores
are raw logits of the ensemble, float32. Every writer returns the configurations that its files make up.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa

from pipeline.exports.card import Config
from pipeline.exports.files import write_parquet
from pipeline.exports.rows import Groups
from pipeline.exports.text_lookup import TextLookup, TextTable

Batches = Iterable[pa.RecordBatch]


def triplet(batches: Batches, lookup: TextLookup, directory: Path) -> list[Config]:
    """Write query, positive and negative, without a label (MultipleNegativesRankingLoss, TripletLoss)."""
    return _parquet(directory, (pa.table(_inputs(batch, lookup)) for batch in batches))


def margin(batches: Batches, lookup: TextLookup, directory: Path) -> list[Config]:
    """Write query, positive and negative, with the margin as the label (MarginMSELoss)."""
    return _parquet(
        directory, (pa.table({**_inputs(batch, lookup), "label": batch.column("margin")}) for batch in batches)
    )


def n_tuple(groups: Iterable[Groups], lookup: TextLookup, directory: Path) -> list[Config]:
    """Write a query, each passage in a separate column, and the list of scores (MarginMSELoss, DistillKLDivLoss)."""

    def tables() -> Iterator[pa.Table]:
        for group in groups:
            width = int(group.lengths[0])
            column = lookup.column("{}", "{}_id")
            names = [column.format("positive"), *(column.format(f"negative_{i}") for i in range(1, width))]
            columns = {lookup.column("query", "query_id"): lookup.query(group.query)}
            for name, ids in zip(names, group.passage.reshape(-1, width).T, strict=True):
                columns[name] = lookup.passage(ids)
            columns["scores"] = group.lists(pa.array(group.score))
            yield pa.table(columns)

    return _parquet(directory, tables())


def labelled_list(groups: Iterable[Groups], lookup: TextLookup, directory: Path) -> list[Config]:
    """Write a query, the list of its passages, and the list of scores as labels (CrossEncoder's listwise losses)."""

    def tables() -> Iterator[pa.Table]:
        for group in groups:
            columns = {
                lookup.column("query", "query_id"): lookup.query(group.query),
                lookup.column("docs", "doc_ids"): group.lists(lookup.passage(group.passage)),
                "labels": group.lists(pa.array(group.score)),
            }
            yield pa.table(columns)

    return _parquet(directory, tables())


def pylate(groups: Iterable[Groups], lookup: TextLookup, directory: Path) -> list[Config]:
    """Write PyLate's three tables: train (query_id, document_ids, scores), queries and documents (id, text)."""

    def tables() -> Iterator[pa.Table]:
        for group in groups:
            lookup.queries.number(group.query)
            lookup.passages.number(group.passage)
            yield pa.table(lookup.named(group)).rename_columns(["query_id", "document_ids", "scores"])

    return [
        Config("train", "train/*.parquet", write_parquet(directory / "train", tables())),
        _texts(lookup.queries, "query_id", "queries", directory),
        _texts(lookup.passages, "document_id", "documents", directory),
    ]


def _texts(table: TextTable, key: str, name: str, directory: Path) -> Config:
    tables = (pa.table({key: ids, "text": pa.array(texts, pa.string())}) for ids, texts in table.numbered())
    return Config(name, f"{name}/*.parquet", write_parquet(directory / name, tables))


def _inputs(batch: pa.RecordBatch, lookup: TextLookup) -> dict[str, pa.Array]:
    query, positive, negative = (batch.column(name).to_numpy() for name in ("query_id", "positive_id", "negative_id"))
    return {
        lookup.column("query", "query_id"): lookup.query(query),
        lookup.column("positive", "positive_id"): lookup.passage(positive),
        lookup.column("negative", "negative_id"): lookup.passage(negative),
    }


def _parquet(directory: Path, tables: Iterable[pa.Table]) -> list[Config]:
    return [Config("default", "train/*.parquet", write_parquet(directory / "train", tables))]
