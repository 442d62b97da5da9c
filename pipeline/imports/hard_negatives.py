"""Readers of msmarco-hard-negatives.jsonl in both of its schemas.

Each line is an object `{"qid", "pos": [...], "neg": {system: [...]}}`. In the newer schema the lists hold passage
ids, in the older schema objects `{"pid", "ce-score"}`. The keys of `neg` are the names of the systems.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from pipeline.errors import InputError, UsageError
from pipeline.imports.candidate_batches import CandidateBatchBuilder, is_id, is_score
from pipeline.imports.columns import ColumnCheck, Layout
from pipeline.imports.intake import POSITIVES, CandidateBatch
from pipeline.names import check_name
from pipeline.tables.json_lines import bad_line, read_objects

_EXPECTED = '{"qid": …, "pos": [ids], "neg": {"system": [ids]}}, or lists of {"pid", "ce-score"}'

_LINE = Layout("lists of hard negatives", frozenset({"qid", "pos", "neg"}))
_PASSAGE_OF_LISTS = Layout("passages of a list", frozenset({"pid"}))
_SCORED_PASSAGE = Layout("passages with scores", frozenset({"pid", "ce-score"}))


class _Line(NamedTuple):
    """The lists of one query."""

    query: int | str
    positives: list[Any]
    negatives: dict[str, list[Any]]


def read_lists(path: Path, systems: dict[str, int]) -> Iterator[CandidateBatch]:
    """Read the negatives as lists, scored by minus the rank, and the positives.

    Args:
        path: the file, plain or compressed.
        systems: filled with the number of each system's list, in the order of their appearance.

    Raises:
        InputError: a line is malformed, or the name of a system cannot be the name of a file.
    """
    check = ColumnCheck(_LINE, path)
    inner = ColumnCheck(_PASSAGE_OF_LISTS, path, lenient=True, unused=check.unused)
    batches = CandidateBatchBuilder(check.unused)
    for line, (query, positives, negatives) in _lines(path, check):
        for system, values in negatives.items():
            if system not in systems:
                systems[_checked(path, line, system)] = len(systems)
            passages = [_passage(path, line, value, inner) for value in values]
            batches.add(line, query, passages, range(-1, -1 - len(passages), -1), systems[system])
        passages = [_passage(path, line, value, inner) for value in positives]
        batches.add(line, query, passages, [0.0] * len(passages), POSITIVES)
        yield from batches.full()
    yield from batches.rest()


def read_list_scores(path: Path) -> Iterator[CandidateBatch]:
    """Read the scores in the lists of the older schema.

    Raises:
        InputError: a line is malformed, or of the newer schema, which has no scores.
    """
    check = ColumnCheck(_LINE, path)
    inner = ColumnCheck(_SCORED_PASSAGE, path, unused=check.unused)
    batches = CandidateBatchBuilder(check.unused)
    for line, (query, positives, negatives) in _lines(path, check):
        for values in (positives, *negatives.values()):
            passages = [_passage(path, line, value, inner) for value in values]
            batches.add(line, query, passages, [_score(path, line, value) for value in values])
        yield from batches.full()
    yield from batches.rest()


def _lines(path: Path, check: ColumnCheck) -> Iterator[tuple[int, _Line]]:
    for line, value in read_objects(path):
        check.see(value, line)
        query, positives, negatives = value.get("qid"), value.get("pos", []), value.get("neg")
        lists = [positives, *negatives.values()] if isinstance(negatives, dict) else [None]
        if not is_id(query) or not isinstance(negatives, dict) or not all(isinstance(values, list) for values in lists):
            raise bad_line(path, line, _EXPECTED, value)
        yield line, _Line(query, positives, negatives)


def _checked(path: Path, line: int, system: str) -> str:
    try:
        return check_name("system", system)
    except UsageError as error:
        what = f"line {line} names a system that cannot be a file's name"
        raise InputError(what, where=path, expected=error.expected, found=error.found) from error


def _passage(path: Path, line: int, value: Any, check: ColumnCheck) -> int | str:
    if isinstance(value, dict):
        check.see(value, line)
    passage: object = value.get("pid") if isinstance(value, dict) else value
    if not is_id(passage):
        raise bad_line(path, line, "a passage id", value)
    return passage


def _score(path: Path, line: int, value: Any) -> float:
    score = value.get("ce-score") if isinstance(value, dict) else None
    if not is_score(score):
        raise bad_line(path, line, 'a passage as {"pid", "ce-score"}', value)
    return float(score)
