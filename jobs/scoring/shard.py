"""Scores one pair shard with one teacher: reads its pairs, scores those without a score, writes the file.

The same code runs in this process and in an actor of a cluster.
"""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.models.token_stores import open_stores
from jobs.scoring.teachers import ResolvedTeacher, Teacher, tuned_batch_tokens
from pipeline.collection.texts import Texts
from pipeline.errors import ModelError, PrepError, WorkspaceError
from pipeline.scores.pairs import current_pairs, load_pairs
from pipeline.scores.reuse import take_scores
from pipeline.scores.scores import read_pair_ids, write_scores
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace
from pipeline.tokens.pairs import TokenizedTexts
from teachers.engine.certificate import PrecisionError, sample_rows
from teachers.scorer import Pairs, Work

if TYPE_CHECKING:  # torch is loaded where scoring happens, not where it is planned
    from students.inference.teaching import SeparateTeacher
    from teachers.engine.engine import CrossEncoderScorer

SAMPLE_PAIRS = 64
"""Pairs in the first step of a measurement; each later step has four times as many."""
SAMPLE_SECONDS = 5.0
# With these errors every other shard would fail too.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


@dataclass(frozen=True)
class ShardTask:
    """One pair shard for one teacher."""

    teacher: Teacher
    description: Mapping[str, Any]
    """Of the teacher, as resolved where the run was planned."""
    number: int
    pairs: int
    """Pairs without a score."""
    rows: int
    """All pairs of the shard."""
    tuned: bool = False
    """Whether the run is long enough to measure the best token budget first."""
    old: tuple[AnyPath, ...] = ()
    """Files with scores of the same model for pairs that may be in the shard."""
    facts: Mapping[str, Any] = field(default_factory=dict)
    """Goes into the footer as it is."""


class ShardError(Exception):
    """This shard cannot be scored; others may."""


def pairs_with_texts(ids: tuple[np.ndarray, np.ndarray], queries: Texts, passages: Texts) -> Pairs:
    """Pairs over unique texts, from query ids (N,) and passage ids (N,)."""
    query_ids, query = np.unique(ids[0], return_inverse=True)
    passage_ids, passage = np.unique(ids[1], return_inverse=True)
    return Pairs(queries.take(query_ids), passages.take(passage_ids), query.astype(np.int32), passage.astype(np.int32))


def first_input(workspace: Workspace, teacher: Teacher) -> str:
    """The first pair of the workspace as a teacher reads it.

    Raises:
        PrepError: no pairs, or the teacher cannot be loaded.
    """
    ids = read_pair_ids(current_pairs(workspace).paths[0])
    first = pairs_with_texts((ids[0][:1], ids[1][:1]), Texts(workspace, "queries"), Texts(workspace, "passages"))
    return teacher.resolve().load(workspace).shown(first.queries[0], first.passages[0])


class ShardScorer:
    """Scores shards one after another; keeps the last teacher in memory."""

    def __init__(self, location: str) -> None:
        self._workspace = Workspace.open(location)
        self._pairs = load_pairs(self._workspace)
        self._texts = Texts(self._workspace, "queries"), Texts(self._workspace, "passages")
        self._loaded: _LoadedTeacher | None = None

    def score(self, task: ShardTask, on_progress: Callable[[Work], None]) -> None:
        """Score the new pairs of one shard and write its file.

        Raises:
            ShardError: a fault of these pairs: a text that does not fit, a logit that is not finite.
            ModelError: the checkpoint on this machine is not the planned one, cannot be loaded, or deviates too far
                from float32.
            WorkspaceError: the disk is full or read-only.
        """
        ids = read_pair_ids(self._pairs.paths[task.number])
        scores = take_scores(task.old, ids)
        new = np.flatnonzero(np.isnan(scores))
        extra: dict[str, Any] = {"reused": len(scores) - len(new), **task.facts}
        if len(new):
            warm = self._holds(task)
            loaded = self._load(task)
            try:
                encoded = self._encode(loaded, (ids[0][new], ids[1][new]))
                if warm:  # nothing to compile: from here on, silence means that the actor hangs
                    on_progress(Work())
                scored = loaded.scorer.score_encoded(encoded, on_progress, sample=sample_rows(len(new), task.number))
            except PrecisionError:
                raise
            except PrepError as error:
                raise ShardError(str(error)) from error
            scores[new] = scored.scores
            extra |= loaded.scorer.describe() | {"teacher": task.teacher.checkpoint}
            extra |= {name: version(name) for name in ("torch", "transformers")} | scored.facts
        footer = self._pairs.footers[task.number]
        try:
            write_scores(self._workspace, task.teacher.name, task.number, footer, ids, scores, task.description, extra)
        except OSError as error:
            if error.errno not in _DISK_ERRORS:
                raise
            raise WorkspaceError(
                "cannot be written", where=error.filename or self._workspace.root, found=error
            ) from error

    def sample(self, task: ShardTask, on_progress: Callable[[Work], None]) -> None:
        """Score a random sample of a shard's new pairs for a few seconds, after a warm-up; writes nothing.

        Raises:
            As `score`.
        """
        ids = read_pair_ids(self._pairs.paths[task.number])
        new = np.flatnonzero(np.isnan(take_scores(task.old, ids)))
        new = np.random.default_rng(0).permutation(new)
        loaded = self._load(task)
        begun, size, start = time.monotonic(), SAMPLE_PAIRS, 0
        while start < len(new) and (start == 0 or time.monotonic() - begun < SAMPLE_SECONDS):
            rows = new[start : start + size]
            encoded = self._encode(loaded, (ids[0][rows], ids[1][rows]))
            if start == 0:
                loaded.scorer.score_encoded(encoded)
                begun = time.monotonic()
            loaded.scorer.score_encoded(encoded, on_progress)
            start, size = start + size, 4 * size

    def _encode(self, loaded: _LoadedTeacher, ids: tuple[np.ndarray, np.ndarray]) -> Any:
        stores = loaded.stores
        return (
            loaded.scorer.assemble(stores, ids) if stores else loaded.scorer.encode(pairs_with_texts(ids, *self._texts))
        )

    def _holds(self, task: ShardTask) -> bool:
        return self._loaded is not None and self._loaded.teacher == task.teacher

    def _load(self, task: ShardTask) -> _LoadedTeacher:
        if self._loaded is None or not self._holds(task):
            self._loaded = None  # frees the memory before the next model is loaded
            self._loaded = _LoadedTeacher(self._workspace, task)
        return self._loaded


class _LoadedTeacher:
    """A teacher in memory, and the token stores of its tokenizer."""

    def __init__(self, workspace: Workspace, task: ShardTask) -> None:
        """Load the planned teacher.

        Raises:
            ModelError: the checkpoint on this machine is another one.
        """
        self.teacher, self._workspace = task.teacher, workspace
        self._resolved: ResolvedTeacher = task.teacher.resolve()
        self.scorer: CrossEncoderScorer | SeparateTeacher = self._resolved.load(workspace)
        if self.scorer.fingerprint != task.description["fingerprint"]:
            raise ModelError(
                "another checkpoint is on this machine than on the one that planned the run",
                where=task.teacher.checkpoint,
                expected=task.description["fingerprint"],
                found=self.scorer.fingerprint,
                todo="copy the same files to every node",
            )
        from teachers.engine.engine import CrossEncoderScorer

        tunable = task.tuned and task.teacher.settings.batch_tokens is None
        if tunable and isinstance(self.scorer, CrossEncoderScorer):
            self.scorer.batch_tokens = tuned_batch_tokens(workspace, self.scorer)

    @cached_property
    def stores(self) -> tuple[TokenizedTexts, TokenizedTexts] | None:
        """Token ids of all queries and all passages; None where texts are tokenised shard by shard."""
        if not self.scorer.assembles:
            return None
        return open_stores(self._workspace, self._resolved.checkpoint, self._resolved.prompts)
