"""The scoring engine: a cross-encoder teacher behind the `Scorer` interface.

In: pairs over unique texts. Out: one raw float32 logit per pair, in input order. Each text is tokenised once,
pairs are put together from ids, rows of equal length run together under a token budget, and nothing is ever
done to the logits. Knows neither files of pairs nor clusters.

Shapes: N pairs, B rows of a batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.pair_tokens import TokenBatch, TokenizedTexts
from teachers.batching import PADDING_SHARE, plan_batches
from teachers.checkpoint import Checkpoint, fingerprint_of, resolve
from teachers.cross_encoder import CrossEncoder, load_cross_encoder
from teachers.device import DTYPES, batch_tokens, choose_device
from teachers.loading import load_tokenizer
from teachers.pair_tokenizer import EncodedPairs, PairTokenizer
from teachers.scorer import Pairs
from teachers.settings import ScoringSettings

__all__ = ["CrossEncoderScorer", "ScoringSettings", "fingerprint_of", "load_scorer"]


def load_scorer(name: str, settings: ScoringSettings, *, revision: str | None = None) -> CrossEncoderScorer:
    """Load the teacher that `name` means: a local directory, or a repository on the Hub at `revision`.

    Raises:
        ModelError: not there, not a cross-encoder with one output, or too short for `max_length_tokens`.
        UsageError: a device, dtype or limit that cannot be.
    """
    device = choose_device(settings)
    checkpoint = resolve(name, revision=revision)
    model = load_cross_encoder(checkpoint, DTYPES[settings.dtype], device)
    if model.positions is not None and settings.max_length_tokens > model.positions:
        raise ModelError(
            "max_length_tokens exceeds the model's positions",
            where=checkpoint.directory,
            expected=f"{model.positions} or less",
            found=settings.max_length_tokens,
            todo="lower the maximum length",
        )
    tokenizer = PairTokenizer(
        load_tokenizer(checkpoint, model.config),
        with_types=model.has_token_types,
        max_length_tokens=settings.max_length_tokens,
        truncation=settings.truncation,
    )
    return CrossEncoderScorer(checkpoint, model, tokenizer, settings, device)


class CrossEncoderScorer:
    """A loaded teacher; implements `teachers.scorer.Scorer`."""

    def __init__(
        self,
        checkpoint: Checkpoint,
        model: CrossEncoder,
        tokenizer: PairTokenizer,
        settings: ScoringSettings,
        device: torch.device,
    ) -> None:
        self._checkpoint, self._model, self._tokenizer = checkpoint, model, tokenizer
        self._settings, self._device = settings, device
        self._batch_tokens = batch_tokens(settings, device)
        self.fingerprint = checkpoint.fingerprint(settings)
        """Identity of the scores; `fingerprint_of` gives the same without loading the model."""

    def describe(self) -> dict[str, Any]:
        """What made the scores, as JSON values for a footer; the identity is `fingerprint`."""
        return {
            "teacher": self._checkpoint.name,
            "revision": self._checkpoint.revision,
            "weights_hash": self._checkpoint.weights_hash,
            "form": self._model.form,
            "tokenizer": self._tokenizer.name,
            "tokenizer_hash": self._checkpoint.tokenizer_hash,
            "token_types": self._model.has_token_types,
            "max_length_tokens": self._settings.max_length_tokens,
            "truncation": self._settings.truncation,
            "activation": "identity",
            "dtype": self._settings.dtype,
            "batch_tokens": self._batch_tokens,
            "device": self._device.type,
        }

    def score(self, pairs: Pairs, on_progress: Callable[[int], None] | None = None) -> NDArray[np.float32]:
        """Raw logits (N,), rows in input order; see `teachers.scorer.Scorer`.

        Raises:
            InputError: truncation only_second, and a query that leaves no room for its passage.
            ModelError: a logit that is not finite, or a token that the model has no embedding for.
        """
        return self._score(self._tokenizer.encode(pairs), on_progress)

    @property
    def assembles(self) -> bool:
        """Whether `score_tokens` is possible: pairs can be put together from texts tokenised before."""
        return self._tokenizer.assembles

    def score_tokens(
        self,
        texts: tuple[TokenizedTexts, TokenizedTexts],
        pairs: tuple[NDArray[np.integer], NDArray[np.integer]],
        on_progress: Callable[[int], None] | None = None,
    ) -> NDArray[np.float32]:
        """As `score`, for pairs given as rows (N,) of queries and rows (N,) of passages that were tokenised before.

        Raises:
            As `score`.
        """
        return self._score(self._tokenizer.assembled(*texts, *pairs), on_progress)

    def _score(self, encoded: EncodedPairs, on_progress: Callable[[int], None] | None) -> NDArray[np.float32]:
        scores = np.full(len(encoded.lengths), np.nan, np.float32)
        plan = plan_batches(encoded.lengths, self._batch_tokens, PADDING_SHARE if self._tokenizer.can_pad else 0.0)
        running: tuple[NDArray[np.int64], torch.Tensor] | None = None
        for rows in [*plan, None]:
            # One batch runs on the device while the next is put together.
            started = None if rows is None else (rows, self._forward(encoded.assemble(rows)))
            if running is not None:
                done, logits = running
                scores[done] = logits.cpu().numpy()
                if on_progress is not None:
                    on_progress(len(done))
            running = started
        return self._finite(scores)

    @torch.inference_mode()
    def _forward(self, batch: TokenBatch) -> torch.Tensor:
        """Logits (B,) on the device, float32; returns before a GPU is done."""
        if self._model.vocabulary is not None and batch.input_ids.max(initial=0) >= self._model.vocabulary:
            raise ModelError(
                "its tokenizer gives ids beyond its embeddings",
                where=self._checkpoint.directory,
                expected=f"ids below {self._model.vocabulary}",
                found=int(batch.input_ids.max()),
                todo="save the tokenizer that the model was trained with beside its weights",
            )
        inputs = {name: self._to_device(values) for name, values in batch._asdict().items() if values is not None}
        logits: torch.Tensor = self._model.module(**inputs).logits  # (B, 1)
        return logits[:, 0].float()

    def _to_device(self, values: NDArray[np.int64]) -> torch.Tensor:
        tensor = torch.from_numpy(values)
        if self._device.type == "cuda":
            # From pinned memory the copy does not wait for the batch before it.
            tensor = tensor.pin_memory()
        return tensor.to(self._device, non_blocking=True)

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
