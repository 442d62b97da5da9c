"""The scoring engine: a teacher that reads query and passage together, behind the `Scorer` interface.

In: pairs over unique texts. Out: one raw float32 logit per pair, in input order. Nothing is ever done to the logits.
`teachers.engine.forms` builds what is particular to a family of models. Knows neither files of pairs nor clusters.

Shapes: N pairs.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.tokens.pairs import TokenizedTexts
from teachers.checkpoints.checkpoint import Checkpoint, fingerprint_of, resolve
from teachers.engine.certificate import certify
from teachers.engine.device import BUDGETS, batch_tokens, choose_device
from teachers.engine.forms import Built, build
from teachers.engine.runners import Runner
from teachers.engine.tuning import tune
from teachers.scorer import Pairs, ProgressReporter, Work, pairs_of
from teachers.settings import ScoringSettings

__all__ = ["CrossEncoderScorer", "ScoringSettings", "fingerprint_of", "load_scorer"]


class Scored(NamedTuple):
    """Scores, and how they came about."""

    scores: NDArray[np.float32]
    """(N,), raw logits, finite, rows in input order."""
    facts: dict[str, Any]
    """For a footer: the budget that held, and the certificate of a low precision."""


def load_scorer(
    name: str | Checkpoint, settings: ScoringSettings, *, revision: str | None = None
) -> CrossEncoderScorer:
    """Load the teacher that `name` means: a local directory, or a repository on the Hub at `revision`.

    Raises:
        ModelError: not there, of a family that does not run here, too short for `max_length_tokens`, or unable to
            compute a row of tokens.
        UsageError: a device, dtype, backend or limit that cannot be, or settings that do not fit the model.
    """
    device = choose_device(settings)
    checkpoint = resolve(name, revision=revision)
    checkpoint.definition.check_runs()
    settings = checkpoint.definition.applied(settings)
    return CrossEncoderScorer(checkpoint, build(checkpoint, settings, device), settings, device)


class CrossEncoderScorer:
    """A loaded teacher; implements `teachers.scorer.Scorer`."""

    def __init__(self, checkpoint: Checkpoint, built: Built, settings: ScoringSettings, device: torch.device) -> None:
        self._checkpoint, self._built = checkpoint, built
        self._settings, self._device = settings, device
        self.batch_tokens = batch_tokens(settings, device)
        """Tokens of one batch; where the memory does not hold them, a call takes half, and half again."""
        self.fingerprint = checkpoint.fingerprint(settings)
        """Identity of the scores; `fingerprint_of` gives the same without loading the model."""

    def describe(self) -> dict[str, Any]:
        """What makes the scores, as JSON values for a footer; the identity is `fingerprint`."""
        return {
            "teacher": self._checkpoint.name,
            "revision": self._checkpoint.revision,
            "weights_hash": self._checkpoint.weights_hash,
            "tokenizer": self._built.tokens.name,
            "tokenizer_hash": self._checkpoint.tokenizer_hash,
            **self._built.facts,
            "max_length_tokens": self._settings.max_length_tokens,
            "truncation": self._settings.truncation,
            "prompts": list(self._settings.prompts),
            "activation": "identity",
            "dtype": self._settings.dtype,
            "backend": self._settings.engine,
            **self._built.runner.facts,
            "batch_tokens": self.batch_tokens,
            "device": self._device.type,
        }

    def score(self, pairs: Pairs, on_progress: Callable[[Work], None] | None = None) -> NDArray[np.float32]:
        """Raw logits (N,), rows in input order; see `teachers.scorer.Scorer`.

        Raises:
            InputError: truncation only_second, and a query that leaves no room for its passage.
            ModelError: a logit that is not finite, or a token that the model has no embedding for.
        """
        return self.score_encoded(self.encode(pairs), on_progress).scores

    def shown(self, query: str, passage: str) -> str:
        """A pair as the model reads it: its token ids as text, special tokens included."""
        encoded = self.encode(pairs_of([(query, passage)]))
        return self._built.tokens.text(encoded.assemble(np.zeros(1, np.int64)).input_ids[0])

    def encode(self, pairs: Pairs) -> Any:
        """The tokens of pairs (N,), prompts included.

        Raises:
            InputError: as `score`.
        """
        return self._built.tokens.encode(pairs.prompted(self._settings.prompts))

    @property
    def assembles(self) -> bool:
        """Whether `assemble` is possible: pairs can be put together from texts tokenised before."""
        return self._built.tokens.assembles

    def assemble(
        self,
        texts: tuple[TokenizedTexts, TokenizedTexts],
        pairs: tuple[NDArray[np.integer], NDArray[np.integer]],
    ) -> Any:
        """The tokens of pairs given as rows (N,) of queries and of passages that were tokenised before, with prompts.

        Raises:
            InputError: as `score`.
        """
        return self._built.tokens.assembled(*texts, *pairs)

    def score_encoded(
        self,
        encoded: Any,
        on_progress: Callable[[Work], None] | None = None,
        *,
        sample: NDArray[np.int64] | None = None,
    ) -> Scored:
        """Score pairs (N,) that are tokens already.

        Args:
            encoded: from `encode` or `assemble`.
            on_progress: receives the work of each batch; work that has to be repeated is retracted.
            sample: rows that are also scored in float32, to certify another dtype.

        Raises:
            ModelError: as `score`, or scores in a low precision stray too far from float32.
        """
        budget = self.batch_tokens
        reporter = ProgressReporter(on_progress)
        rows = np.arange(len(encoded.lengths))
        while True:
            try:
                scores = self._finite(self._built.runner.run(encoded, rows, budget, reporter))
                break
            except (torch.OutOfMemoryError, MemoryError):
                reporter.retract()
                if budget <= int(encoded.lengths.max()):
                    raise
                budget //= 2
                if self._device.type == "cuda":
                    torch.cuda.empty_cache()
        facts: dict[str, Any] = {"batch_tokens": budget}
        if sample is not None and len(sample) and self._settings.dtype != "float32":
            certificate = certify(scores[sample], self._finite(self._exact.run(encoded, sample, budget)))
            certificate.check(self._settings.dtype, self._checkpoint.directory)
            facts["certificate"] = certificate.as_dict()
        return Scored(scores, facts)

    @property
    def device_name(self) -> str:
        """The kind of device: what a token budget depends on besides the model."""
        if self._device.type == "cuda":
            return torch.cuda.get_device_name(self._device)
        return f"CPU, {torch.get_num_threads()} threads, {self._settings.engine}"

    def tune(self) -> int:
        """Try out how many tokens of a batch suit the device.

        Raises:
            torch.OutOfMemoryError: not even the smallest batch fits.
        """
        budgets = BUDGETS[self._device.type]
        return tune(self._built.runner.try_budget, budgets) if self._built.runner.tunable else budgets[0]

    @cached_property
    def _exact(self) -> Runner:
        """The model in float32, as the library has it."""
        return self._built.exact()

    def _finite(self, scores: NDArray[np.float32]) -> NDArray[np.float32]:
        broken = np.flatnonzero(~np.isfinite(scores))
        if broken.size:
            raise ModelError(
                "logits that are not finite",
                where=self._checkpoint.directory,
                found=f"{broken.size} of {scores.size}, the first at pair {broken[0]} (from 0)",
                todo="score in float32 or bfloat16; if it is float32 already, the checkpoint is damaged",
            )
        return scores
