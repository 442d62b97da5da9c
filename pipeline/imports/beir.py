"""Reads a collection in BEIR's format: corpus.jsonl, queries.jsonl and qrels/<split>.tsv, each plain or compressed.

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
from pipeline.imports.columns import ColumnCheck, Layout
from pipeline.imports.text_rows import string_rows, titled
from pipeline.names import check_name
from pipeline.tables.delimited import read_tsv
from pipeline.tables.json_lines import bad_line, read_objects

UNJUDGED = "unjudged"
_ENDINGS = ("", ".gz", ".bz2", ".xz", ".zst")
_TEXTS = Layout("passages or queries of BEIR", frozenset({"_id", "title", "text"}), frozenset({"metadata"}))
QRELS_HEADER = ["query-id", "corpus-id", "score"]


def beir_collection(directory: Path) -> CollectionSource:
    """The collection in a directory. Reads queries and qrels, to learn which split each query belongs to.

    Raises:
        InputError: a file is missing or malformed, a table has two files, a file of `qrels/` is no qrels file, or its
            name cannot be the name of a split.
    """
    corpus, queries = (_file(directory, f"{name}.jsonl") for name in ("corpus", "queries"))
    qrels = _qrels_files(directory / "qrels")
    passage_check, query_check = (ColumnCheck(_TEXTS, path) for path in (corpus, queries))
    query_check.unused = passage_check.unused
    others = [path.name for path in sorted(directory.glob("*.*")) if path.is_file() and path not in (corpus, queries)]
    passage_check.unused |= {f"the file {name}": None for name in others if not name.startswith((".", "README"))}
    texts = partial(_texts, queries, _text, query_check)
    judged = {split: _judged_queries(path) for split, path in qrels.items()}
    judged[UNJUDGED] = {query for _, (query, _) in texts()} - set().union(*judged.values())
    content = digest_json([digest_file(queries), *([split, digest_file(path)] for split, path in qrels.items())])
    return CollectionSource(
        "beir",
        Rows(corpus, lambda: string_rows(_texts(corpus, _titled, passage_check), TEXT_COLUMNS), digest_file(corpus)),
        [
            (split, Rows(queries, partial(_queries, texts, names), digest_json([content, split])))
            for split, names in judged.items()
            if names
        ],
        [(split, Rows(path, partial(_judgements, path), digest_file(path))) for split, path in qrels.items()],
        # ArguAna judges a passage that it does not have. BEIR's evaluation counts it as never found.
        keep_unknown=True,
        unused_columns=passage_check.unused,
    )


def _file(directory: Path, name: str) -> Path:
    found = [path for ending in _ENDINGS if (path := directory / f"{name}{ending}").is_file()]
    if len(found) > 1:
        raise InputError(f"two files of {name}", where=directory, found=", ".join(path.name for path in found))
    if not found:
        raise InputError(f"no {name}", where=directory, expected="corpus.jsonl, queries.jsonl, qrels/")
    return found[0]


def _qrels_files(directory: Path) -> dict[str, Path]:
    """Split → its file. Every file of the directory must be one: a split under another name would be lost."""
    files = sorted(path for path in directory.glob("*") if not path.name.startswith("."))
    if not files:
        raise InputError("no qrels/<split>.tsv", where=directory.parent, expected="corpus.jsonl, queries.jsonl, qrels/")
    qrels: dict[str, Path] = {}
    for path in files:
        other = qrels.setdefault(_split(path), path)
        if other != path:
            raise InputError(f"two files of split {_split(path)}", where=directory, found=f"{other.name}, {path.name}")
    return qrels


def _split(path: Path) -> str:
    name = path.name
    for ending in filter(None, _ENDINGS):
        name = name.removesuffix(ending)
    if not name.endswith(".tsv") or not path.is_file():
        raise InputError("no qrels file", where=path, expected="<split>.tsv, plain or compressed", todo="move it away")
    try:
        return check_name("split", name.removesuffix(".tsv"))
    except UsageError as error:
        raise InputError("its name cannot be the name of a split", where=path, expected=error.expected) from error


_Texts = Iterator[tuple[int, tuple[str, str]]]


def _queries(texts: Callable[[], _Texts], names: set[str]) -> Iterator[pa.RecordBatch]:
    return string_rows(((line, row) for line, row in texts() if row[0] in names), TEXT_COLUMNS)


def _texts(path: Path, text_of: Callable[[dict[str, Any]], object], check: ColumnCheck) -> _Texts:
    for line, value in read_objects(path):
        check.see(value, line)
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
