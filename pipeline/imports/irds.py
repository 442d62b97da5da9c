"""Reads a collection through the optional package `ir_datasets`, by the id of a data set.

Documents, queries and qrels are each read where the data set has them; the text of a document or query is its
`default_text()`. The package downloads data that it does not have yet.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import pyarrow as pa

from pipeline.collection.importing import Rows
from pipeline.errors import InputError, UsageError
from pipeline.imports.collection_source import JUDGEMENT_COLUMNS, TEXT_COLUMNS, CollectionSource
from pipeline.imports.columns import ColumnCheck, Layout
from pipeline.imports.text_rows import string_rows
from pipeline.names import check_name
from pipeline.tables.content import ContentHash

_QRELS = Layout("judgements", frozenset({"query_id", "doc_id", "relevance"}), frozenset({"iteration"}))


class Dataset(Protocol):
    """The part of a data set of ir_datasets that is used here."""

    def has_docs(self) -> bool:
        """Whether there are documents."""

    def has_queries(self) -> bool:
        """Whether there are queries."""

    def has_qrels(self) -> bool:
        """Whether there are judgements."""

    def docs_iter(self) -> Iterable[Any]:
        """Documents, with `doc_id` and `default_text()`."""

    def queries_iter(self) -> Iterable[Any]:
        """Queries, with `query_id` and `default_text()`."""

    def qrels_iter(self) -> Iterable[Any]:
        """Judgements, with `query_id`, `doc_id`, `relevance`."""

    def qrels_cls(self) -> type:
        """The named tuple of a judgement."""

    def has_scoreddocs(self) -> bool:
        """Whether there are candidates of a system."""

    def has_docpairs(self) -> bool:
        """Whether there are triples."""


def load(name: str) -> Dataset:
    """Load a data set by its id, such as `msmarco-passage/train`.

    Raises:
        UsageError: the package is not installed.
        InputError: no such data set.
    """
    try:
        ir_datasets = import_module("ir_datasets")
    except ImportError:
        raise UsageError("ir_datasets is not installed", todo="python -m pip install ir_datasets") from None
    try:
        dataset: Dataset = ir_datasets.load(name)
    except KeyError as error:
        raise InputError("no such data set of ir_datasets", where=name, found=error) from error
    return dataset


def ir_collection(name: str, dataset: Dataset, split: str) -> CollectionSource:
    """The collection of a data set; all its queries and judgements belong to the split.

    Reads everything once, for the fingerprints.

    Raises:
        UsageError: a bad name for a split.
        InputError: the data set has neither documents nor queries nor qrels.
    """
    check_name("split", split)
    where = Path(f"ir_datasets:{name}")
    more = [kind for kind in ("scoreddocs", "docpairs") if getattr(dataset, f"has_{kind}")()]
    if dataset.has_qrels():
        ColumnCheck(_QRELS, where).see(dataset.qrels_cls()._fields)  # type: ignore[attr-defined]
    docs = _rows(where, partial(_docs, dataset), TEXT_COLUMNS) if dataset.has_docs() else None
    queries = _rows(where, partial(_queries, dataset), TEXT_COLUMNS) if dataset.has_queries() else None
    qrels = _rows(where, partial(_qrels, dataset), JUDGEMENT_COLUMNS) if dataset.has_qrels() else None
    if not (docs or queries or qrels):
        raise InputError("neither documents nor queries nor judgements", where=where)
    return CollectionSource(
        f"ir_datasets {name}",
        docs,
        [(split, queries)] if queries else [],
        [(split, qrels)] if qrels else [],
        keep_unknown=True,
        unused_columns=dict.fromkeys(more),
    )


def _rows(where: Path, records: Any, columns: list[str]) -> Rows:
    def read() -> Iterator[pa.RecordBatch]:
        return string_rows(enumerate(records(), 1), columns)

    content: ContentHash | None = None
    for batch in read():
        content = content or ContentHash(batch.schema)
        content.update(batch)
    return Rows(where, read, content.hexdigest() if content else "")


def _docs(dataset: Dataset) -> Iterator[tuple[str, str]]:
    return ((doc.doc_id, doc.default_text()) for doc in dataset.docs_iter())


def _queries(dataset: Dataset) -> Iterator[tuple[str, str]]:
    return ((query.query_id, query.default_text()) for query in dataset.queries_iter())


def _qrels(dataset: Dataset) -> Iterator[tuple[str, str, str]]:
    return ((row.query_id, row.doc_id, str(row.relevance)) for row in dataset.qrels_iter())
