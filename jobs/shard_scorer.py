"""Scoring one pair shard with one teacher: read its pairs, score, write. The same in-process and in an actor."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.token_stores import open_stores
from pipeline.errors import ModelError
from pipeline.pairs import load_pairs
from pipeline.scores import read_pair_ids, write_scores
from pipeline.texts import Texts
from pipeline.workspace import Workspace
from teachers.checkpoint import resolve
from teachers.settings import ScoringSettings

if TYPE_CHECKING:  # torch is loaded where scoring happens, not where it is planned
    from teachers.engine import CrossEncoderScorer
    from teachers.scorer import Pairs


@dataclass(frozen=True)
class Teacher:
    """A teacher to score with."""

    name: str
    checkpoint: str
    settings: ScoringSettings

    def describe(self) -> dict[str, Any]:
        """What its scores depend on; the settings of their recipe. Loads no weights into memory."""
        checkpoint = resolve(self.checkpoint)
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


def pairs_with_texts(ids: tuple[np.ndarray, np.ndarray], queries: Texts, passages: Texts) -> Pairs:
    """Pairs over unique texts from query ids (N,) and passage ids (N,)."""
    from teachers.scorer import Pairs

    query_ids, query = np.unique(ids[0], return_inverse=True)
    passage_ids, passage = np.unique(ids[1], return_inverse=True)
    return Pairs(queries.take(query_ids), passages.take(passage_ids), query.astype(np.int32), passage.astype(np.int32))


class ShardScorer:
    """Scores shards one after another; keeps the teacher it loaded last."""

    def __init__(self, location: str) -> None:
        self._workspace = Workspace.open(location)
        self._pairs = load_pairs(self._workspace)
        self._texts = Texts(self._workspace, "queries"), Texts(self._workspace, "passages")
        self._loaded: tuple[Teacher, CrossEncoderScorer] | None = None

    def score(self, task: ShardTask, on_progress: Callable[[int], None]) -> None:
        """Score one shard and write its file.

        Raises:
            ModelError: the checkpoint found here is not the one the run was planned for, or cannot score.
        """
        scorer = self._load(task)
        ids = read_pair_ids(self._pairs.paths[task.number])
        stores = open_stores(self._workspace, task.teacher.checkpoint) if scorer.assembles else None
        if stores is None:
            scores = scorer.score(pairs_with_texts(ids, *self._texts), on_progress)
        else:
            scores = scorer.score_tokens(stores, ids, on_progress)
        footer = self._pairs.footers[task.number]
        extra = {**scorer.describe(), "torch": version("torch"), "transformers": version("transformers")}
        write_scores(self._workspace, task.teacher.name, task.number, footer, ids, scores, task.description, extra)

    def _load(self, task: ShardTask) -> CrossEncoderScorer:
        from teachers.engine import load_scorer

        if self._loaded is None or self._loaded[0] != task.teacher:
            self._loaded = None  # frees the memory before the next one comes in
            scorer = load_scorer(task.teacher.checkpoint, task.teacher.settings)
            if scorer.fingerprint != task.description["fingerprint"]:
                raise ModelError(
                    "another checkpoint stands here than where the run was started",
                    where=task.teacher.checkpoint,
                    expected=task.description["fingerprint"],
                    found=scorer.fingerprint,
                    todo="give every node the same files",
                )
            self._loaded = task.teacher, scorer
        return self._loaded[1]
