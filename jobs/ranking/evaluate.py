"""The stage `evaluate`: retrievers, teachers, their ensemble and students on the judged queries of a split.

Every system gives a run by the same tie rule, is written as a TREC file and measured the same way. Teachers
are read from their scores; students score candidates (`rerank`) or search the whole collection (`retrieve`).
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import pyarrow as pa

from jobs.models.checkpoints import named_student
from jobs.models.stored_passages import find_stored
from jobs.ranking.candidates import candidates_of, retrieved_for, teacher_scores
from jobs.ranking.settings import EvaluationSettings, Mode
from jobs.ranking.student_retriever import StudentRetriever
from jobs.scoring.shard import pairs_with_texts
from pipeline.collection.selection import select_queries, view_tables, view_unknown_judgements
from pipeline.collection.texts import Texts
from pipeline.errors import UsageError, WorkspaceError
from pipeline.evaluation.identical_ids import IdenticalIds, find_identical_ids, is_beir
from pipeline.evaluation.metrics import Qrels, evaluate_run
from pipeline.evaluation.runs import Run, rank_rows, read_run, write_run
from pipeline.names import check_name
from pipeline.retrieval.retrievers import SearchRequest
from pipeline.scores.pairs import current_pairs
from pipeline.scores.scores import ScoreSet, load_scores
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace
from pipeline.tables.database import connect
from pipeline.triples.ensemble import Ensemble, Sample
from pipeline.triples.scales import scale_warnings
from pipeline.triples.sets import load_ensemble
from teachers.settings import ScoringSettings

if TYPE_CHECKING:
    from jobs.ranking.latency import Latency

_Columns = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Query ids, passage ids and scores (N,)."""


log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Evaluated:
    """One system's line of the table."""

    system: str
    kind: str
    """"first stage", "rerank" or "retrieve"."""
    means: dict[str, float]
    queries: int
    """Number of judged queries; every one counts."""
    missing_queries: int
    """Judged queries that the run has no list for; they score 0."""
    identical_ids: int | None
    """Passages left out because they have their query's id; None if such passages are kept."""
    path: AnyPath
    run: Run


def evaluate(
    workspace: Workspace, settings: EvaluationSettings, on_system: Callable[[str], None] = lambda name: None
) -> list[Evaluated]:
    """Evaluate the systems in this order: runs, teachers, their mean, ensembles of triples, students.

    All systems are checked before the first is ranked.

    Raises:
        WorkspaceError: the split has no judgements, or a system is missing or incomplete.
        StaleError: lists, pairs, scores or triples that a system needs are stale.
        InputError: a run file is malformed or names unknown ids.
        UsageError: two systems share a run file, as a teacher `ensemble-x` and the ensemble of triples `x`.
    """
    qrels = split_qrels(workspace, settings.split, settings.max_queries)
    ignored = identical_ids_to_ignore(workspace, settings.ignore_identical_ids, np.unique(qrels.query_id))
    # A search then finds one passage more, so that lists keep their depth.
    searched = settings.depth + bool(ignored is not None and len(ignored.query_id))
    systems = _Systems(workspace, settings, qrels, searched, on_system).all()
    twice = [name for name, count in Counter(system.name for system in systems).items() if count > 1]
    if twice:
        raise UsageError("two systems share a name, and so a run file", found=", ".join(twice), todo="rename one")
    evaluated: list[Evaluated] = []
    for system in systems:
        on_system(system.name)
        run, dropped = _ranked(system, qrels, ignored)
        path = write_run(workspace, f"{settings.split}-{system.name}", run)
        found = evaluate_run(run, qrels, settings.relevance_level)
        missing = len(np.setdiff1d(found.query_id, run.query_id))
        counts = len(found.query_id), missing, dropped
        evaluated.append(Evaluated(system.name, system.kind, found.means(), *counts, path, run))
    return evaluated


def identical_ids_to_ignore(workspace: Workspace, wanted: bool | None, queries: np.ndarray) -> IdenticalIds | None:
    """The passages to leave out of the lists of queries (Q,); None if nothing is left out.

    `wanted` is the option `--ignore-identical-ids`; None decides by how the collection was imported.
    """
    return find_identical_ids(workspace, queries) if (is_beir(workspace) if wanted is None else wanted) else None


def _ranked(system: _System, qrels: Qrels, ignored: IdenticalIds | None) -> tuple[Run, int | None]:
    """The run of a system over the judged queries, and the number of passages left out for their query's id."""
    query, passage, score = system.scored()
    kept, dropped = np.isin(query, qrels.query_id), None
    if ignored is not None:
        identical = kept & ignored.mask(query, passage)
        kept, dropped = kept & ~identical, int(identical.sum())
    return rank_rows(query[kept], passage[kept], score[kept], system.depth), dropped


def student_latencies(workspace: Workspace, settings: EvaluationSettings) -> list[Latency]:
    """Time each student on the judged queries, re-ranking.

    Raises:
        WorkspaceError: no judgements or candidates for the split.
    """
    from jobs.ranking.latency import measure_latency

    queries = np.unique(split_qrels(workspace, settings.split, settings.max_queries).query_id)
    queries = queries[: settings.latency_queries]
    found = []
    for text in dict.fromkeys(settings.students):
        name, where = named_student(workspace, text)
        options = {"split": settings.split, "candidates": settings.candidates, "depth": settings.depth}
        found.append(measure_latency(workspace, name, where, queries, dtype=settings.dtype, **options))  # type: ignore[arg-type]
    return found


def split_qrels(workspace: Workspace, split: str, max_queries: int | None = None) -> Qrels:
    """Judgements of a split's queries, or of a stable sample of them.

    Raises:
        WorkspaceError: the split has no judgements.
    """
    with connect(workspace.local) as connection:
        view_tables(connection, workspace, "queries", "qrels")
        view_unknown_judgements(connection, workspace)
        selected = select_queries(connection, workspace, split, max_queries)
        connection.register("selected", pa.table({"query_id": selected.ids}))
        found = connection.execute(
            "SELECT query_id, passage_id, grade FROM qrels SEMI JOIN selected USING (query_id) UNION ALL "
            # Passages that are not in the collection get ids that no system ranks.
            "SELECT query_id, -row_number() OVER (ORDER BY query_id, external_id)::INT, grade "
            "FROM unknown_judgements SEMI JOIN selected USING (query_id) ORDER BY query_id, passage_id"
        ).fetchnumpy()
    if not len(found["query_id"]):
        raise WorkspaceError(f"no judgements for split {split!r}", where=workspace.root, todo="import its qrels")
    return Qrels(*(np.asarray(found[name]) for name in Qrels._fields))


def ensemble_system(triples: str) -> str:
    """The system name of the ensemble of a triple set."""
    return f"ensemble-{triples}"


class _System(NamedTuple):
    """A system to evaluate."""

    name: str
    kind: str
    scored: Callable[[], _Columns]
    depth: int | None
    """Passages kept for each query; None keeps those of a run file."""


def _warn_of_scales(mean: Ensemble, scores: np.ndarray) -> None:
    """Warn if the raw logits (N, K) of the teachers should not be averaged."""
    neither = np.zeros(len(scores), bool)
    sample = Sample(np.zeros(len(scores), np.int32), neither, neither, scores)
    for warning in scale_warnings(mean, sample.spread.tolist(), sample.correlations()):
        names = ", ".join(mean.teachers)
        todo = "to evaluate the mean of z-scores, build triples with --ensemble zscore and name them with --ensemble"
        log.warning("the mean of %s: %s; %s", names, warning, todo)


class _Systems:
    """Looks up and checks all systems; each is ranked on demand."""

    def __init__(
        self,
        workspace: Workspace,
        settings: EvaluationSettings,
        qrels: Qrels,
        searched: int,
        on_system: Callable[[str], None],
    ) -> None:
        """`searched` is the number of passages that a student finds for each query."""
        self._workspace, self._settings, self._on_system = workspace, settings, on_system
        self._queries, self._searched = np.unique(qrels.query_id), searched
        self._read: dict[str, _Columns] = {}

    def all(self) -> list[_System]:
        settings, workspace = self._settings, self._workspace
        teachers = list(dict.fromkeys(settings.teachers))
        pairs = current_pairs(workspace) if teachers else None
        sets = {name: load_scores(workspace, pairs, name) for name in teachers if pairs}
        systems = [self._first_stage(name) for name in dict.fromkeys(settings.runs)]
        systems += [self._scored(name, Ensemble.mean([name]), [sets[name]]) for name in teachers]
        if len(teachers) > 1:
            systems.append(self._scored("ensemble", Ensemble.mean(teachers), list(sets.values())))
        for name in dict.fromkeys(settings.ensembles):
            systems.append(self._scored(ensemble_system(name), *load_ensemble(workspace, name)))
        for text in dict.fromkeys(settings.students):
            systems += [self._student(text, mode) for mode in dict.fromkeys(settings.modes)]
        return systems

    def _first_stage(self, name: str) -> _System:
        path = Path(name).expanduser()
        if name not in self._workspace.names("retrieved") and path.is_file():
            return _System(check_name("run", path.stem), "run file", partial(self._run_file, path), None)
        retrieved_for(self._workspace, name, self._settings.split)
        return _System(name, "first stage", partial(self._candidates, name), self._settings.depth)

    def _run_file(self, path: Path) -> _Columns:
        run = read_run(self._workspace, path)
        return run.query_id, run.passage_id, run.score

    def _candidates(self, system: str) -> _Columns:
        """Retrieved passages of the judged queries."""
        return candidates_of(self._workspace, system, self._settings.split, self._queries)

    def _scored(self, name: str, ensemble: Ensemble, sets: Sequence[ScoreSet]) -> _System:
        return _System(name, "rerank", partial(self._teachers, ensemble, sets), self._settings.depth)

    def _teachers(self, ensemble: Ensemble, sets: Sequence[ScoreSet]) -> _Columns:
        for scores in sets:
            if scores.teacher not in self._read:
                key = self._settings.candidates, self._settings.split, self._queries
                self._read[scores.teacher] = teacher_scores(self._workspace, *key, scores)
        query, passage, _ = self._read[sets[0].teacher]
        together = np.stack([self._read[scores.teacher][2].astype(np.float64) for scores in sets], axis=1)  # (N, K)
        if ensemble == Ensemble.mean(ensemble.teachers):
            _warn_of_scales(ensemble, together)
        return query, passage, ensemble.combine(together)

    def _student(self, text: str, mode: Mode) -> _System:
        from students.architectures import architecture
        from students.inference.loading import architecture_of

        name, where = named_student(self._workspace, text)
        if mode == "retrieve" and not architecture(architecture_of(where)).searches:
            raise UsageError(
                f"student {name!r} is a {architecture_of(where)}, which cannot search a collection",
                todo="use --mode rerank",
            )
        if mode == "rerank":
            retrieved_for(self._workspace, self._settings.candidates, self._settings.split)
        scored = self._rerank if mode == "rerank" else self._search
        return _System(f"{name}-{mode}", mode, partial(scored, name, where), self._settings.depth)

    def _rerank(self, name: str, checkpoint: str) -> _Columns:
        from students.inference.scorer import SeparateScorer
        from students.inference.scoring import load_student_scorer

        query, passage, _ = self._candidates(self._settings.candidates)
        queries, dtype = Texts(self._workspace, "queries"), self._settings.dtype
        stored = find_stored(self._workspace, name, checkpoint, dtype)
        if stored is not None:
            separate = SeparateScorer.load(checkpoint, ScoringSettings(dtype=dtype))
            ids, row = np.unique(query, return_inverse=True)
            return query, passage, stored.scores(separate, queries.take(ids), row, passage)
        pairs = pairs_with_texts((query, passage), queries, Texts(self._workspace, "passages"))
        return query, passage, load_student_scorer(checkpoint, dtype).score(pairs)

    def _search(self, name: str, checkpoint: str) -> _Columns:
        retriever = StudentRetriever(
            self._workspace,
            name,
            checkpoint,
            self._settings.dtype,
            find_stored(self._workspace, name, checkpoint, self._settings.dtype),
            lambda done, total: self._on_system(f"{name}-retrieve, {done:,} of {total:,} passages"),
        )
        request = SearchRequest.of(self._workspace, Texts(self._workspace, "queries").take(self._queries))
        (found,) = retriever.search(request, [range(len(self._queries))], self._searched, self._workspace.local)
        return self._queries[found.query], found.passage_id, found.score
