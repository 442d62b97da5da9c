"""Settings of `evaluate`, `search` and `encode`, checked when built. Loads no model library, Arrow or DuckDB."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from pipeline.errors import UsageError
from pipeline.settings import check_settings, setting
from students.settings import Storage
from teachers.settings import Dtype

Mode = Literal["rerank", "retrieve"]
FirstStage = Literal["bm25"]
CANDIDATES = 1000
"""Passages per query that BM25 hands to a student in a search."""
SYSTEMS, QUERIES, MEASURES = "Systems", "Queries", "Measures"


@dataclass(frozen=True)
class EvaluationSettings:
    """Systems to evaluate, on which queries, and how."""

    split: str = setting("dev", panel=QUERIES, metavar="SPLIT", help="Evaluate on the judged queries of this split.")
    runs: Sequence[str] = setting(
        (),
        option="--run",
        panel=SYSTEMS,
        metavar="NAME",
        help="Retriever of the workspace, or a run file (TREC or MS MARCO). Repeatable.",
    )
    teachers: Sequence[str] = setting(
        (),
        option="--teacher",
        panel=SYSTEMS,
        metavar="NAME",
        help="Teacher that has scored the pairs; two or more also give the mean of their logits. Repeatable.",
    )
    students: Sequence[str] = setting(
        (),
        option="--student",
        panel=SYSTEMS,
        metavar="NAME",
        help="Student of the workspace (NAME), or any other (NAME=CHECKPOINT). Repeatable.",
    )
    ensembles: Sequence[str] = setting(
        (),
        option="--ensemble",
        panel=SYSTEMS,
        metavar="TRIPLES",
        help="Set of triples whose ensemble of teachers re-ranks candidates. Repeatable.",
    )
    max_queries: int | None = setting(
        None,
        panel=QUERIES,
        minimum=1,
        unset="all",
        help="Evaluate on this many judged queries, the same sample that mine takes.",
    )
    modes: Sequence[Mode] = setting(
        ("rerank",),
        option="--mode",
        panel=SYSTEMS,
        help="Let students re-rank candidates (rerank) or search the whole collection (retrieve). Repeatable.",
    )
    candidates: str = setting("bm25", panel=SYSTEMS, metavar="NAME", help="Retriever whose lists are re-ranked.")
    depth: int = setting(1000, panel=SYSTEMS, minimum=1, help="Number of passages kept in each list.")
    relevance_level: int = setting(
        1,
        panel=MEASURES,
        minimum=1,
        help="Lowest grade that counts as relevant for MRR and recall; nDCG uses the grades.",
    )
    ignore_identical_ids: bool | None = setting(
        None,
        panel=MEASURES,
        unset="on for a collection that came by import beir",
        help="Leave a passage out of the list of a query with the same id, as BEIR does where queries are passages "
        "(ArguAna, Quora). Judgements stay as they are.",
    )
    dtype: Dtype = setting(
        "float32", panel=MEASURES, help="Arithmetic of students: float32, bfloat16, float16 (GPU) or int8 (CPU)."
    )
    latency_queries: int | None = setting(
        None, panel=MEASURES, minimum=1, unset="all", help="With --latency: number of queries to time."
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if not (self.runs or self.teachers or self.ensembles or self.students):
            raise UsageError("nothing to evaluate", todo="name systems: --run, --teacher, --ensemble or --student")


@dataclass(frozen=True)
class SearchSettings:
    """Stages of a search, and the number of passages that each hands on."""

    student: str | None = setting(
        None,
        panel="Stages",
        metavar="NAME",
        help="Student that searches the collection, or re-ranks with --first: one of the workspace (NAME), or any "
        "other (NAME=CHECKPOINT).",
    )
    first: FirstStage | None = setting(
        None,
        panel="Stages",
        metavar="bm25",
        unset="the student searches",
        help="Find candidates by BM25 instead of by the student.",
    )
    teacher: str | None = setting(
        None,
        panel="Stages",
        metavar="CHECKPOINT",
        help="Cross-encoder that re-ranks the passages of the stages before: a student or a Hub name, a directory, or "
        "NAME=CHECKPOINT.",
    )
    candidates: int | None = setting(
        None,
        panel="Stages",
        minimum=1,
        unset=f"{CANDIDATES}",
        help="Number of passages per query that BM25 hands to the student.",
    )
    teacher_candidates: int = setting(
        50, panel="Stages", minimum=1, help="Number of passages per query that the teacher re-ranks."
    )
    k: int = setting(10, panel="Answers", minimum=1, help="Number of passages shown per query.")
    probability: bool = setting(
        False,
        panel="Answers",
        flag=True,
        help="Show the sigmoid of a cross-encoder's logit, from 0 to 1, instead of the logit.",
    )
    dtype: Dtype = setting(
        "float32",
        panel="Stages",
        help="Arithmetic of cross-encoders: {choices}. A student uses the arithmetic of its encoded passages.",
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.first is None and self.student is None:
            raise UsageError("nothing finds passages", todo="pass --student NAME or --first bm25")
        if self.candidates is not None and (self.first is None or self.student is None):
            raise UsageError(
                "--candidates is what BM25 hands to a student", todo="pass --first bm25 and --student NAME too"
            )
        most = self.teacher_candidates if self.teacher else self.candidates
        if most is not None and self.k > most:
            raise UsageError("--k is more than the last stage reads", expected=f"{most} or less", found=self.k)

    @property
    def handed_on(self) -> int:
        """Number of passages per query that the first stage finds."""
        if self.first and self.student:
            return max(self.candidates or CANDIDATES, self.k)
        return self.teacher_candidates if self.teacher else self.k


@dataclass(frozen=True)
class EncodeSettings:
    """Arithmetic and storage of encoded passages."""

    dtype: Dtype = setting(
        "float32",
        help="Arithmetic of the student: float32, bfloat16 or float16. A search then encodes queries the same way.",
    )
    storage: Storage | None = setting(
        None,
        unset="float32 for one vector per passage, float16 for one per token",
        help="Number format of stored values: {choices}; float16 halves their size.",
    )

    def __post_init__(self) -> None:
        check_settings(self)
