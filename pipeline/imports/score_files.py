"""Readers of published teacher scores, by the name of the format (`FORMS`), and its detection (`form_of`).

pickle    query -> {passage -> score} (cross-encoder-ms-marco-MiniLM-L-6-v2-scores.pkl.gz)
kd        positive score, negative score, query, positive, negative, separated by tabs (neural-ranking-kd)
parquet   rows of a pair, or of a query with lists of passages and scores; a file or a directory of files
lists     msmarco-hard-negatives.jsonl with {"pid", "ce-score"} objects
colbert   JSON lines [query, [passage, score], …] (ColBERTv2's examples.json)
tevatron  JSON lines with positive_passages and negative_passages of {"docid", "score"}
run       TREC: query, Q0, passage, rank, score, tag

To add a format, write a reader that yields `CandidateBatch` and register it in `FORMS`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from pipeline.errors import InputError
from pipeline.imports.candidate_batches import CandidateBatchBuilder, is_id, is_score
from pipeline.imports.candidate_files import numbers, read_run_rows
from pipeline.imports.columns import ColumnCheck, Layout
from pipeline.imports.hard_negatives import read_list_scores
from pipeline.imports.intake import POSITIVES, CandidateBatch
from pipeline.imports.score_process import read_score_pickle
from pipeline.imports.score_tables import read_score_tables, refuse_grades
from pipeline.tables.compression import open_binary, peek
from pipeline.tables.delimited import first_line, read_tsv
from pipeline.tables.json_lines import bad_line, read_objects, read_values

_TEVATRON = Layout(
    "scored passages of Tevatron",
    frozenset({"query_id", "positive_passages", "negative_passages"}),
    frozenset({"query"}),
)
_TEVATRON_PASSAGE = Layout("passages with scores", frozenset({"docid", "score"}), frozenset({"title", "text"}))
_KD = ["positive_score", "negative_score", "query", "positive", "negative"]


def read_kd(path: Path) -> Iterator[CandidateBatch]:
    """Read both scored pairs of each line, and the positives.

    Raises:
        InputError: a line is malformed, or a score is not a number.
    """
    for batch in read_tsv(path, _KD):
        lines, query = batch.column("line").to_numpy(), batch.column("query")
        for side in ("positive", "negative"):
            score = numbers(batch, f"{side}_score", path)
            yield CandidateBatch(lines, query, batch.column(side), score, np.zeros(len(lines), np.int16))
        zeros, positives = np.zeros(len(lines)), np.full(len(lines), POSITIVES, np.int16)
        yield CandidateBatch(lines, query, batch.column("positive"), zeros, positives)


def read_colbert(path: Path) -> Iterator[CandidateBatch]:
    """Read the scored passages of each line; the first is the positive.

    Raises:
        InputError: a line is malformed.
    """
    batches = CandidateBatchBuilder()
    for line, value in read_values(path):
        pairs = value[1:] if isinstance(value, list) else []
        if not pairs or not is_id(value[0]) or not all(_is_scored(pair) for pair in pairs):
            raise bad_line(path, line, "[query, [passage, score], …]", value)
        batches.add(line, value[0], [pair[0] for pair in pairs], [float(pair[1]) for pair in pairs])
        batches.add(line, value[0], [pairs[0][0]], [0.0], POSITIVES)
        yield from batches.full()
    yield from batches.rest()


def read_tevatron(path: Path) -> Iterator[CandidateBatch]:
    """Read the scored passages of each line, `{"query_id", "positive_passages", "negative_passages"}`.

    Raises:
        InputError: a line is malformed, or a passage has no score.
    """
    check = ColumnCheck(_TEVATRON, path)
    inner = ColumnCheck(_TEVATRON_PASSAGE, path, unused=check.unused)
    batches = CandidateBatchBuilder(check.unused)
    for line, value in read_objects(path):
        check.see(value, line)
        query = value.get("query_id")
        sides = [value.get(f"{side}_passages") for side in ("positive", "negative")]
        positives, negatives = (_scored(passages, inner, line) for passages in sides)
        if any(isinstance(passages, list) and passages and _lack_scores(passages) for passages in sides):
            raise InputError(
                f"line {line} has passages without scores",
                where=path,
                expected='{"docid", "score"} for each passage',
                todo="import positives and negatives without scores as lists: prep import hub DIRECTORY --as lists",
            )
        if not is_id(query) or positives is None or negatives is None:
            raise bad_line(path, line, '{"query_id", "positive_passages": [{"docid", "score"}], …}', value)
        for pairs in (positives, negatives):
            batches.add(line, query, [passage for passage, _ in pairs], [score for _, score in pairs])
        batches.add(line, query, [passage for passage, _ in positives], [0.0] * len(positives), POSITIVES)
        yield from batches.full()
    yield from batches.rest()


def _lack_scores(passages: list[Any]) -> bool:
    return all(isinstance(passage, dict) and passage.get("score") is None for passage in passages)


def _scored(passages: object, check: ColumnCheck, line: int) -> list[tuple[int | str, float]] | None:
    """Ids and scores of a list of Tevatron's passages; None for any other value."""
    if not isinstance(passages, list) or not all(isinstance(passage, dict) for passage in passages):
        return None
    for passage in passages:
        check.see(passage, line)
    pairs = [[passage.get("docid"), passage.get("score")] for passage in passages]
    return [(pair[0], float(pair[1])) for pair in pairs] if all(map(_is_scored, pairs)) else None


def _is_scored(pair: object) -> bool:
    return isinstance(pair, list) and len(pair) == 2 and is_id(pair[0]) and is_score(pair[1])


class Form(NamedTuple):
    """How a format of scores is read."""

    read: Callable[[Path], Iterator[CandidateBatch]]
    unit: str = "line"
    """What `CandidateBatch.line` counts: line, row or query."""


FORMS = {
    "pickle": Form(read_score_pickle, "query"),
    "kd": Form(read_kd),
    "parquet": Form(read_score_tables, "row"),
    "lists": Form(read_list_scores),
    "colbert": Form(read_colbert),
    "tevatron": Form(read_tevatron),
    "run": Form(read_run_rows),
}


def form_of(path: Path) -> str:
    """The format of a file, recognised by its first bytes and its first line, never by its name.

    Raises:
        InputError: no format is recognised, no such file, or a table of whole numbers, which may be judgements.
    """
    head = b""
    if not path.is_dir():
        with open_binary(path, text=False) as stream:
            head = peek(stream)
    if path.is_dir() or head.startswith(b"PAR1"):
        refuse_grades(path)
        return "parquet"
    # Protocols 0 and 1 begin with an opcode; the reader refuses them by name.
    if head[:1] == b"\x80" or {".pkl", ".pickle"}.intersection(path.suffixes):
        return "pickle"
    if head.lstrip(b"\xef\xbb\xbf \t\r\n")[:1] in (b"{", b"["):
        return _json_form(path)
    line = first_line(path)
    if len(line.split("\t")) == len(_KD):
        return "kd"
    if len(line.split()) == 6:
        return "run"
    raise _unknown(path)


def _json_form(path: Path) -> str:
    _, value = next(read_values(path))
    if isinstance(value, list):
        return "colbert"
    if "positive_passages" in value:
        return "tevatron"
    if "neg" in value and "qid" in value:
        return "lists"
    raise _unknown(path, f"an object with {', '.join(value)}")


def _unknown(path: Path, found: str | None = None) -> InputError:
    todo = "pass --form to name the format; a directory of tables with columns is imported by: prep import hub"
    return InputError("not a known format of scores", where=path, expected=", ".join(FORMS), found=found, todo=todo)
