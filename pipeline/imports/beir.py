"""Reads a collection in BEIR's format: corpus.jsonl, queries.jsonl and qrels/<split>.tsv, each plain or .gz.

The text of a passage is its title and its text with a space between, as BEIR's own evaluation joins them. A query
belongs to every split that judges it, or to the split `unjudged` if none does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from pipeline.collection.importing import Rows
from pipeline.errors import InputError, UsageError
from pipeline.fingerprint import digest_file, digest_json
from pipeline.imports.candidate_batches import is_id
from pipeline.imports.collection_source import JUDGEMENT_COLUMNS, TEXT_COLUMNS, CollectionSource
from pipeline.imports.text_rows import string_rows, titled
from pipeline.names import check_name
from pipeline.tables.delimited import read_tsv
from pipeline.tables.json_lines import bad_line, read_objects

UNJUDGED = "unjudged"
QRELS_HEADER = ["query-id", "corpus-id", "score"]


def beir_collection(directory: Path) -> CollectionSource:
    """The collection in a directory. Reads queries and qrels, to learn which split each query belongs to.

    Raises:
        InputError: a file is missing or malformed, or the name of a qrels file cannot be the name of a split.
    """
    corpus, queries = (_file(directory, f"{name}.jsonl") for name in ("corpus", "queries"))
    qrels = {_split(path): path for path in sorted((directory / "qrels").glob("*.tsv*"))}
    if not qrels:
        raise InputError("no qrels/<split>.tsv", where=directory, expected="corpus.jsonl, queries.jsonl, qrels/")
    judged = {split: _judged_queries(path) for split, path in qrels.items()}
    judged[UNJUDGED] = {query for _, (query, _) in _texts(queries, _text)} - set().union(*judged.values())
    content = digest_json([digest_file(queries), *([split, digest_file(path)] for split, path in qrels.items())])
    return CollectionSource(
        "beir",
        Rows(corpus, lambda: string_rows(_texts(corpus, _titled), TEXT_COLUMNS), digest_file(corpus)),
        [
            (split, Rows(queries, partial(_queries, queries, names), digest_json([content, split])))
            for split, names in judged.items()
            if names
        ],
        [(split, Rows(path, partial(_judgements, path), digest_file(path))) for split, path in qrels.items()],
        # ArguAna judges a passage that it does not have. BEIR's evaluation counts it as never found.
        keep_unknown=True,
    )


def _file(directory: Path, name: str) -> Path:
    for path in (directory / name, directory / f"{name}.gz"):
        if path.is_file():
            return path
    raise InputError(f"no {name}", where=directory, expected="corpus.jsonl, queries.jsonl, qrels/")


def _split(path: Path) -> str:
    try:
        return check_name("split", path.name.removesuffix(".gz").removesuffix(".tsv"))
    except UsageError as error:
        raise InputError("its name cannot be the name of a split", where=path, expected=error.expected) from error


def _queries(path: Path, names: set[str]) -> Iterator[pa.RecordBatch]:
    return string_rows(((line, row) for line, row in _texts(path, _text) if row[0] in names), TEXT_COLUMNS)


def _texts(path: Path, text_of: Callable[[dict[str, Any]], object]) -> Iterator[tuple[int, tuple[str, str]]]:
    for line, value in read_objects(path):
        name, text = value.get("_id"), text_of(value)
        if not is_id(name) or not isinstance(text, str):
            raise bad_line(path, line, '{"_id", "text"}, and "title" in a corpus', value)
        yield line, (str(name), text)


def _text(value: dict[str, Any]) -> object:
    return value.get("text")


def _titled(value: dict[str, Any]) -> object:
    title, text = value.get("title") or "", value.get("text")
    return titled(title, text) if isinstance(title, str) and isinstance(text, str) else None


def _judged_queries(path: Path) -> set[str]:
    return {name for batch in _judgements(path) for name in batch.column("query").to_pylist()}


def _judgements(path: Path) -> Iterator[pa.RecordBatch]:
    """The rows of a qrels file. BEIR's files begin with a header; those of others may not."""
    yield from read_tsv(path, JUDGEMENT_COLUMNS, header=QRELS_HEADER)
