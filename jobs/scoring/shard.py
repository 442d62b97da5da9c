"""Scoring one pair shard with one teacher: read its pairs, score, write. The same in-process and in an actor."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.models.checkpoints import local_checkpoint
from jobs.models.stored_passages import find_stored
from jobs.models.token_stores import open_stores
from jobs.scoring.budgets import settle_budget
from pipeline.collection.texts import Texts
from pipeline.errors import ModelError, PrepError, UsageError, WorkspaceError
from pipeline.scores.pairs import load_pairs
from pipeline.scores.reuse import take_scores
from pipeline.scores.scores import read_pair_ids, write_scores
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace
from students.identity import apart_fingerprint, reads_apart
from teachers.checkpoints.checkpoint import resolve
from teachers.engine.certificate import PrecisionError, sample_rows
from teachers.scorer import Pairs, Work
from teachers.settings import ScoringSettings

if TYPE_CHECKING:  # torch is loaded where scoring happens, not where it is planned
    from students.inference.teaching import SeparateTeacher
    from teachers.engine.engine import CrossEncoderScorer


APART = "query and passage apart"
"""What the description of such a teacher says under `reads`."""
SAMPLE_PAIRS = 64
SAMPLE_SECONDS = 5.0
# On these every shard would fail.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


@dataclass(frozen=True)
class Teacher:
    """A teacher to score with."""

    name: str
    checkpoint: str
    """As `jobs.models.checkpoints.name_checkpoint` has it."""
    settings: ScoringSettings

    def describe(self) -> dict[str, Any]:
        """What its scores depend on; the settings of their recipe. Loads no weights into memory.

        Raises:
            ModelError: the checkpoint is not there.
            UsageError: a backend that is for cross-encoders alone.
        """
        local = local_checkpoint(self.checkpoint)
        checkpoint = resolve(local)
        if reads_apart(checkpoint):
            if self.settings.engine != "torch" or self.settings.compile:
                raise UsageError(
                    "only cross-encoders run on another backend or compiled",
                    where=self.checkpoint,
                    found="--compile" if self.settings.compile else self.settings.engine,
                    todo="score with this teacher in a run of its own",
                )
            return {
                "fingerprint": apart_fingerprint(local, self.settings.dtype),
                "weights_hash": checkpoint.weights_hash,
                "tokenizer_hash": checkpoint.tokenizer_hash,
                "reads": APART,
                "activation": "identity",
                "dtype": self.settings.dtype,
            }
        return {
            "fingerprint": checkpoint.fingerprint(self.settings),
            "weights_hash": checkpoint.weights_hash,
            "tokenizer_hash": checkpoint.tokenizer_hash,
            "max_length_tokens": self.settings.max_length_tokens,
            "truncation": self.settings.truncation,
            "activation": "identity",
            "dtype": self.settings.dtype,
        }


@dataclass(frozen=True)
class ShardTask:
    """One pair shard for one teacher."""

    teacher: Teacher
    description: Mapping[str, Any]
    number: int
    pairs: int
    """How many have no score yet."""
    rows: int
    """How many there are."""
    tuned: bool = False
    """Whether the run is long enough to try out the token budget."""
    old: tuple[AnyPath, ...] = ()
    """Files with scores of this model for pairs that may be in the shard."""


class ShardError(Exception):
    """A shard that cannot be scored; others may."""


def pairs_with_texts(ids: tuple[np.ndarray, np.ndarray], queries: Texts, passages: Texts) -> Pairs:
    """Pairs over unique texts from query ids (N,) and passage ids (N,)."""
    query_ids, query = np.unique(ids[0], return_inverse=True)
    passage_ids, passage = np.unique(ids[1], return_inverse=True)
    return Pairs(queries.take(query_ids), passages.take(passage_ids), query.astype(np.int32), passage.astype(np.int32))


class ShardScorer:
    """Scores shards one after another; keeps the teacher it loaded last."""

    def __init__(self, location: str) -> None:
        self._workspace = Workspace.open(location)
        self._pairs = load_pairs(self._workspace)
        self._texts = Texts(self._workspace, "queries"), Texts(self._workspace, "passages")
        self._loaded: tuple[Teacher, CrossEncoderScorer | SeparateTeacher] | None = None

    def score(self, task: ShardTask, on_progress: Callable[[Work], None]) -> None:
        """Score what is new in one shard and write its file.

        Raises:
            ShardError: something about these pairs: a text that does not fit, a logit that is not finite.
            ModelError: the checkpoint found here is not the one the run was planned for, cannot be loaded, or
                strays too far from float32.
            WorkspaceError: the disk is full or not to be written to.
        """
        ids = read_pair_ids(self._pairs.paths[task.number])
        scores = take_scores(task.old, ids)
        new = np.flatnonzero(np.isnan(scores))
        extra: dict[str, Any] = {"reused": len(scores) - len(new)}
        if len(new):
            scorer = self._load(task)
            try:
                encoded = self._encode(scorer, task, (ids[0][new], ids[1][new]))
                scored = scorer.score_encoded(encoded, on_progress, sample=sample_rows(len(new), task.number))
            except PrecisionError:
                raise
            except PrepError as error:
                raise ShardError(str(error)) from error
            scores[new] = scored.scores
            extra |= scorer.describe() | {"teacher": task.teacher.checkpoint}
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
        """Score some new pairs of a shard, spread over it, and write nothing; for some seconds, after a warm-up.

        Raises:
            As `score`.
        """
        ids = read_pair_ids(self._pairs.paths[task.number])
        new = np.flatnonzero(np.isnan(take_scores(task.old, ids)))
        new = np.random.default_rng(0).permutation(new)
        scorer = self._load(task)
        begun, size, start = time.monotonic(), SAMPLE_PAIRS, 0
        while start < len(new) and (start == 0 or time.monotonic() - begun < SAMPLE_SECONDS):
            rows = new[start : start + size]
            encoded = self._encode(scorer, task, (ids[0][rows], ids[1][rows]))
            if start == 0:
                scorer.score_encoded(encoded)
                begun = time.monotonic()
            scorer.score_encoded(encoded, on_progress)
            start, size = start + size, 4 * size

    def _encode(
        self, scorer: CrossEncoderScorer | SeparateTeacher, task: ShardTask, ids: tuple[np.ndarray, np.ndarray]
    ) -> Any:
        stores = open_stores(self._workspace, local_checkpoint(task.teacher.checkpoint)) if scorer.assembles else None
        return scorer.assemble(stores, ids) if stores else scorer.encode(pairs_with_texts(ids, *self._texts))

    def _load(self, task: ShardTask) -> CrossEncoderScorer | SeparateTeacher:
        from teachers.engine.engine import CrossEncoderScorer

        if self._loaded is None or self._loaded[0] != task.teacher:
            self._loaded = None  # frees the memory before the next one comes in
            scorer = _load_teacher(self._workspace, local_checkpoint(task.teacher.checkpoint), task.teacher.settings)
            if scorer.fingerprint != task.description["fingerprint"]:
                raise ModelError(
                    "another checkpoint stands here than where the run was started",
                    where=task.teacher.checkpoint,
                    expected=task.description["fingerprint"],
                    found=scorer.fingerprint,
                    todo="give every node the same files",
                )
            wished = task.tuned and task.teacher.settings.batch_tokens is None
            if wished and isinstance(scorer, CrossEncoderScorer):
                scorer.batch_tokens = settle_budget(self._workspace, scorer)
            self._loaded = task.teacher, scorer
        return self._loaded[1]


def _load_teacher(
    workspace: Workspace, checkpoint: str, settings: ScoringSettings
) -> CrossEncoderScorer | SeparateTeacher:
    if reads_apart(resolve(checkpoint)):
        from students.inference.teaching import SeparateTeacher

        stored = find_stored(workspace, Path(checkpoint).name, checkpoint, settings.dtype)
        return SeparateTeacher(checkpoint, settings, stored.take if stored else None)
    from teachers.engine.engine import load_scorer

    return load_scorer(checkpoint, settings)
