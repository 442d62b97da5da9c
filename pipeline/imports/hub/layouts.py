"""What the table of a data set holds, by the names of its columns.

A layout is recognised only if every column that would matter is one that it reads: rows with `query_id`, `query` and
`positive_passages` are lists, not queries. `--as` decides where names do not.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import InputError
from pipeline.imports.columns import meaning_of
from pipeline.imports.score_tables import (
    PASSAGE,
    PASSAGE_TEXTS,
    QUERY,
    QUERY_TEXTS,
    SCORE,
    is_list,
    looks_like_grades,
    positives_column,
)
from pipeline.imports.settings import HubKind

ID_NAMES = {
    "passages": (*PASSAGE, "_id", "id"),
    "queries": ("query_id", "query-id", "qid", "_id", "id"),
}
TEXT_NAMES = {
    "passages": ("passage", "text", "document", "contents", "content"),
    "queries": ("query", "question", "text"),
}
TITLE = "title"
_GRADE = ("relevance", "rel", "grade", "score", "label")
_POSITIVE = r"pos(itives?)?([-_](ids?|passages|corpus-ids|docs|documents))?|gold[-_]ids"
_NEGATIVE = (
    r"(hard[-_])?neg(atives?)?([-_]?\d+|[-_](ids?|passages|corpus-ids|docs|documents))?|(\w+-ranked-|corpus-)ids"
)


class Side(NamedTuple):
    """A column with the positives or the negatives of a query: a value, or a list of values."""

    column: str
    is_positive: bool
    score: str | None
    """The column with their scores."""


class ListRows(NamedTuple):
    """The columns of rows that hold a query with its positives and negatives."""

    query: str
    sides: tuple[Side, ...]

    @property
    def columns(self) -> frozenset[str]:
        """All columns that are read."""
        return frozenset([self.query, *(side.column for side in self.sides), *(s.score for s in self.sides if s.score)])


def list_rows(names: Sequence[str], texts: bool = False) -> ListRows | None:
    """The columns of rows with positives or negatives; None if the table has no column of either.

    Args:
        names: columns of the table.
        texts: whether queries and passages are looked up by text.
    """
    known = (*QUERY_TEXTS, *QUERY) if texts else (*QUERY[:-1], "query", *QUERY_TEXTS)
    query = next((name for name in known if name in names), None)
    sides = [_side(name, names) for name in names if re.fullmatch(f"{_POSITIVE}|{_NEGATIVE}", name)]
    if query and sides and "document" in names and not any(side.is_positive for side in sides):
        sides.insert(0, Side("document", True, next((n for n in ("document_score",) if n in names), None)))
    return ListRows(query, tuple(sides)) if query and sides else None


def _side(name: str, names: Sequence[str]) -> Side:
    stem = re.match(r"(pos|neg)(itive|ative)?", name)
    stems = [name, name.removesuffix("s"), *([stem[0]] if stem and len(name) <= len("negatives") else [])]
    scores = [f"{one}{end}" for one in stems for end in ("_scores", "_score", ".score", ".scores")]
    return Side(name, bool(re.fullmatch(_POSITIVE, name)), next((score for score in scores if score in names), None))


def kind_of(batch: pa.RecordBatch, where: object) -> HubKind:
    """What a table holds, from its first rows.

    Raises:
        InputError: the names of its columns fit nothing or several kinds, its numbers may be scores or grades, or it
            holds the margins of two passages.
    """
    names = batch.schema.names
    found = ", ".join(names)
    if {"positive_id", "negative_id"} <= set(names) and any(name in SCORE for name in names):
        todo = "import the table of scores that the margins were made from"
        raise InputError(
            "column 'score' holds margins of two passages, which do not give the score of each",
            where=where, expected="one score for each passage", found=found, todo=todo,
        )  # fmt: skip
    fitting = [kind for kind, fits in _FITS.items() if fits(names)]
    if {"query-id", "corpus-id", "score"} <= set(names):
        fitting = ["qrels"]
    elif "scores" in fitting:
        column = next((name for name in SCORE if name in names), None)
        if column and looks_like_grades(batch.column(column)):
            raise InputError(
                f"column {column!r} holds whole numbers, which may be grades or scores",
                where=where, expected="grades of judgements, or scores of a teacher", found=found,
                todo="pass --as qrels or --as scores",
            )  # fmt: skip
        fitting = ["scores"]
    elif fitting == ["lists"] and _scores_in_objects(batch):
        fitting = ["scores"]
    if len(fitting) == 1:
        return fitting[0]
    raise InputError(
        "cannot tell what it holds",
        where=where,
        expected=f"columns of one of: {', '.join(_FITS)}",
        found=found,
        todo=f"say so with --as: {' or '.join(fitting)}" if fitting else "say so with --as, or rename the columns",
    )


def _scores_in_objects(batch: pa.RecordBatch) -> bool:
    """Whether the positives and negatives are objects with scores."""
    rows = list_rows(batch.schema.names)
    values = [value for side in rows.sides for value in batch.column(side.column).to_pylist()] if rows else []
    objects = [item for value in values if isinstance(value, list) for item in value if isinstance(item, dict)]
    return bool(objects) and any(item.get("score") is not None for item in objects)


def _has(names: Sequence[str], *groups: Sequence[str]) -> bool:
    return all(any(name in names for name in group) for group in groups)


def _is_scored(names: Sequence[str]) -> bool:
    rows = list_rows(names, texts=True)
    passages = (*PASSAGE, *PASSAGE_TEXTS)
    plain = _has(names, (*QUERY, *QUERY_TEXTS), passages, SCORE) and not _extra(names, positives_column(names))
    return plain or (rows is not None and all(side.score for side in rows.sides))


def _extra(names: Sequence[str], positives: str | None) -> bool:
    """Whether there are lists of passages beside those of the scores."""
    rows = list_rows(names, texts=True)
    return rows is not None and any(side.column != positives for side in rows.sides)


def _is_qrels(names: Sequence[str]) -> bool:
    return _has(names, QUERY[:-1], PASSAGE, _GRADE) and list_rows(names, texts=True) is None


def _is_lists(names: Sequence[str]) -> bool:
    return list_rows(names, texts=True) is not None and not _is_scored(names) and not _is_triples(names)


def _is_triples(names: Sequence[str]) -> bool:
    rows = list_rows(names, texts=True)
    return rows is not None and rows.query in QUERY_TEXTS and "positive" in names and not _is_scored(names)


def _is_text(kind: str, names: Sequence[str]) -> bool:
    columns = text_columns(kind, names)
    return columns is not None and not any(meaning_of(name) for name in names if name not in columns)


_FITS: dict[HubKind, Callable[[Sequence[str]], bool]] = {
    "scores": _is_scored,
    "qrels": _is_qrels,
    "triples": _is_triples,
    "lists": _is_lists,
    "passages": lambda names: _is_text("passages", names),
    "queries": lambda names: _is_text("queries", names),
}


def text_columns(kind: str, names: Sequence[str]) -> dict[str, str] | None:
    """Old name → new name of the columns with ids and texts of a kind; None if the table lacks them."""
    found = [next((name for name in known[kind] if name in names), None) for known in (ID_NAMES, TEXT_NAMES)]
    return None if None in found or len(set(found)) < 2 else {str(found[0]): "external_id", str(found[1]): "text"}


def refuse_texts(column: pa.Array, name: str, where: object) -> None:
    """Refuse a column of texts where ids are expected: no id has white space.

    Raises:
        InputError: a value has white space.
    """
    values = column.flatten() if is_list(column.type) else column
    if not (pa.types.is_string(values.type) or pa.types.is_large_string(values.type)):
        return
    spaced = values.filter(pc.fill_null(pc.match_substring_regex(values, r"\S\s+\S"), False))
    if len(spaced) and not str(spaced[0]).startswith("["):
        raise InputError(
            f"column {name!r} holds texts, not ids",
            where=where,
            expected="ids of the workspace's queries and passages",
            found=str(spaced[0])[:80],
            todo="pass --texts to look queries and passages up by text; the workspace must have them",
        )
