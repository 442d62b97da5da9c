"""The stage `search`: queries of the moment, answered by one to three stages that hand passages on.

A first stage finds passages in the whole collection: BM25, or the student over what `prep encode` stored. A student
behind BM25 re-ranks its candidates, and a teacher, a cross-encoder, the best of what came before. Each stage orders
anew what it was given, by the one tie rule.

Shapes: Q queries, N candidates of all of them.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from jobs.models.checkpoints import locate_checkpoint, named_student
from jobs.models.stored_passages import StoredPassages, load_stored
from jobs.ranking.settings import SearchSettings
from jobs.ranking.student_retriever import StudentRetriever
from pipeline.collection.texts import Texts
from pipeline.errors import UsageError, WorkspaceError
from pipeline.evaluation.runs import Run, external_ids, rank_rows
from pipeline.retrieval.bm25_postings import open_postings
from pipeline.retrieval.retrievers import Bm25Retriever, Retriever, SearchRequest
from pipeline.retrieval.settings import Bm25Settings
from pipeline.storage.workspace import Workspace
from teachers.scorer import Pairs, Scorer

if TYPE_CHECKING:
    from students.inference.scorer import SeparateScorer


class Hit(NamedTuple):
    """One passage of an answer."""

    rank: int
    passage: str
    """External id."""
    score: float
    text: str


class Answer(NamedTuple):
    """What was found for one query, best first."""

    query: str
    hits: list[Hit]


@dataclass
class Searched:
    """Answers, and what they took."""

    answers: list[Answer] = field(default_factory=list)
    score: str = ""
    """What the scores are."""
    loading_seconds: float = 0.0
    """Models and indexes, once for all queries."""
    seconds: dict[str, float] = field(default_factory=dict)
    """Of each stage, for all queries."""
    notes: list[str] = field(default_factory=list)


class _Stage(NamedTuple):
    name: str
    score: str
    run: Callable[[Sequence[str], Run | None], Run]
    """From queries, and what the stage before found; query ids are positions."""


def search(
    workspace: Workspace,
    settings: SearchSettings,
    queries: Sequence[str],
    on_index: Callable[[int, int], None] = lambda done, total: None,
) -> Searched:
    """Answer some queries. If BM25 has no index of the collection yet, it is built, and `on_index` is called meanwhile.

    Raises:
        UsageError: a stage cannot do its part, or there is no query.
        WorkspaceError: the student does not exist, or its passages are not encoded, or stale.
    """
    if not queries or not all(query.strip() for query in queries):
        raise UsageError("no query" if not queries else "an empty query", todo="say what to search for")
    found, run = Searched(), None
    started = time.perf_counter()
    stages = list(_stages(workspace, settings, found.notes, on_index))
    found.loading_seconds = time.perf_counter() - started
    for stage in stages:
        started = time.perf_counter()
        run = stage.run(queries, run)
        found.seconds[stage.name] = time.perf_counter() - started
    assert run is not None
    found.score = "probability" if settings.probability else stages[-1].score
    found.answers = _answers(workspace, settings, queries, run)
    return found


def _stages(
    workspace: Workspace, settings: SearchSettings, notes: list[str], on_index: Callable[[int, int], None]
) -> Iterator[_Stage]:
    from students.architectures import architecture
    from students.inference.loading import architecture_of

    student = named_student(workspace, settings.student) if settings.student else None
    kind = architecture_of(student[1]) if student else None
    if settings.probability and not settings.teacher and kind != "bert_cat":
        raise UsageError(
            "no probability: a sum of products has no scale on which 0.5 is undecided",
            expected="a cross-encoder as the last stage, whose logit the sigmoid turns into 0 to 1",
            found=kind or settings.first,
            todo="add --teacher CHECKPOINT",
        )
    if settings.first:
        shape = Bm25Settings()
        counts = open_postings(workspace, shape.stop_words, processes=os.cpu_count() or 1, on_progress=on_index)
        yield _Stage("bm25", "BM25", _Retrieve(workspace, Bm25Retriever(shape, postings=counts), settings))
    if student and settings.first:
        yield _Stage(student[0], f"score of {student[0]}", _reranking_student(workspace, settings, *student, notes))
    elif student:
        name, where = student
        if not architecture(architecture_of(where)).searches:
            raise UsageError(
                f"student {name!r} is a {kind}, which cannot search a collection",
                todo="let it re-rank what BM25 finds: --first bm25",
            )
        stored = load_stored(workspace, name, where)
        retriever = StudentRetriever(workspace, name, where, stored.dtype, stored)
        retriever.scorer, stored.shards  # noqa: B018 - loaded here, so that the search is timed without
        yield _Stage(name, f"score of {name}", _Retrieve(workspace, retriever, settings))
    if settings.teacher:
        yield _teacher(workspace, settings)


def _teacher(workspace: Workspace, settings: SearchSettings) -> _Stage:
    from students.inference.loading import architecture_of
    from students.inference.scoring import load_student_scorer

    name, _, checkpoint = (settings.teacher or "").partition("=")
    where = locate_checkpoint(workspace, checkpoint or name)
    if (kind := architecture_of(where)) != "bert_cat":
        raise UsageError(
            "the teacher is to read query and passage together", where=where, expected="a cross-encoder", found=kind
        )
    scorer = load_student_scorer(where, settings.dtype)
    return _Stage(name, f"logit of {name}", _Rerank(workspace, scorer, settings.teacher_candidates))


def _reranking_student(
    workspace: Workspace, settings: SearchSettings, name: str, checkpoint: str, notes: list[str]
) -> Callable[[Sequence[str], Run | None], Run]:
    """A student behind BM25: from its stored passages where there are fresh ones, else it encodes the candidates."""
    from students.inference.loading import architecture_of
    from students.inference.scorer import SeparateScorer
    from students.inference.scoring import load_student_scorer
    from teachers.settings import ScoringSettings

    if architecture_of(checkpoint) != "bert_cat":
        try:
            stored = load_stored(Workspace(workspace.root), name, checkpoint)
        except WorkspaceError as error:
            notes.append(f"{error.what}: candidates are encoded on the spot; {error.todo}")
        else:
            scorer = SeparateScorer.load(checkpoint, ScoringSettings(dtype=stored.dtype))
            return _RerankStored(scorer, stored)
    return _Rerank(workspace, load_student_scorer(checkpoint, settings.dtype))


@dataclass(frozen=True)
class _Retrieve:
    """Find passages in the whole collection."""

    workspace: Workspace
    retriever: Retriever
    settings: SearchSettings

    def __call__(self, queries: Sequence[str], before: Run | None) -> Run:  # noqa: ARG002
        request, depth = SearchRequest.of(self.workspace, queries), self.settings.handed_on
        with self.workspace.staging("search") as scratch:
            (found,) = self.retriever.search(request, [range(len(queries))], depth, scratch)
        return rank_rows(found.query, found.passage_id, found.score)


@dataclass(frozen=True)
class _Rerank:
    """Order candidates anew by a scorer of texts."""

    workspace: Workspace
    scorer: Scorer
    depth: int | None = None

    def __call__(self, queries: Sequence[str], before: Run | None) -> Run:
        assert before is not None
        rows = slice(None) if self.depth is None else before.rank <= self.depth
        query, passage = before.query_id[rows], before.passage_id[rows]
        if not len(query):
            return before
        ids, place = np.unique(passage, return_inverse=True)
        texts = Texts(self.workspace, "passages").take(ids)
        return rank_rows(query, passage, self.scorer.score(Pairs(queries, texts, query, place.astype(np.int32))))


@dataclass(frozen=True)
class _RerankStored:
    """Order candidates anew by a student's stored passages."""

    scorer: SeparateScorer
    stored: StoredPassages

    def __call__(self, queries: Sequence[str], before: Run | None) -> Run:
        assert before is not None
        scores = self.stored.scores(self.scorer, queries, before.query_id, before.passage_id)
        return rank_rows(before.query_id, before.passage_id, scores)


def _answers(workspace: Workspace, settings: SearchSettings, queries: Sequence[str], run: Run) -> list[Answer]:
    shown = Run(*(column[run.rank <= settings.k] for column in run))
    texts = Texts(workspace, "passages").take(shown.passage_id)
    names = external_ids(workspace, "passages", shown.passage_id)
    scores = shown.score.astype(np.float64)
    scores = 1 / (1 + np.exp(-scores)) if settings.probability else scores
    hits = [
        Hit(int(rank), str(name), float(score), text)
        for rank, name, score, text in zip(shown.rank, names, scores, texts, strict=True)
    ]
    bounds = np.searchsorted(shown.query_id, np.arange(len(queries) + 1))
    return [Answer(query, hits[bounds[i] : bounds[i + 1]]) for i, query in enumerate(queries)]
