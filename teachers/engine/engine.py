"""The scoring engine: a cross-encoder teacher behind the `Scorer` interface.

In: pairs over unique texts. Out: one raw float32 logit per pair, in input order. Each text is tokenised once,
pairs are put together from ids, rows of equal length run together under a token budget, and nothing is ever
done to the logits. Knows neither files of pairs nor clusters.

Shapes: N pairs, B rows of a batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.tokens.pairs import TokenBatch, TokenizedTexts
from teachers.checkpoints.checkpoint import Checkpoint, fingerprint_of, resolve
from teachers.checkpoints.cross_encoder import CrossEncoder, load_cross_encoder
from teachers.checkpoints.loading import load_tokenizer
from teachers.engine.batching import PADDING_SHARE, plan_batches
from teachers.engine.certificate import certify
from teachers.engine.cost import flop_of, measure_peak, weights_of
from teachers.engine.device import BUDGETS, DTYPES, batch_tokens, choose_device
from teachers.engine.torch_model import Logits, RunningModel, TorchModel
from teachers.engine.tuning import TYPICAL_TOKENS, tune
from teachers.scorer import Pairs, ProgressReporter, Work
from teachers.settings import ScoringSettings
from teachers.tokens.pair_tokenizer import EncodedPairs, PairTokenizer

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
        ModelError: not there, not a cross-encoder with one output, or too short for `max_length_tokens`.
        UsageError: a device, dtype, backend or limit that cannot be.
    """
    device = choose_device(settings)
    checkpoint = resolve(name, revision=revision)
    checkpoint.definition.check_runs()
    settings = checkpoint.definition.applied(settings)
    model = load_cross_encoder(checkpoint)
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


def _run(model: CrossEncoder, settings: ScoringSettings, device: torch.device) -> RunningModel:
    if settings.engine == "openvino":
        from teachers.engine.openvino_model import OpenVinoModel

        return OpenVinoModel(model, settings.dtype)
    return TorchModel(model, DTYPES[settings.dtype], device, compiled=settings.compile)


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
        self._running = _run(model, settings, device)
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
            "form": self._model.form,
            "tokenizer": self._tokenizer.name,
            "tokenizer_hash": self._checkpoint.tokenizer_hash,
            "token_types": self._model.has_token_types,
            "max_length_tokens": self._settings.max_length_tokens,
            "truncation": self._settings.truncation,
            "prompts": list(self._settings.prompts),
            "activation": "identity",
            "dtype": self._settings.dtype,
            "backend": self._settings.engine,
            "last_layer": "first token" if self._running.first_token else "all tokens",
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

    def encode(self, pairs: Pairs) -> EncodedPairs:
        """The tokens of pairs (N,), prompts included.

        Raises:
            InputError: as `score`.
        """
        return self._tokenizer.encode(pairs.prompted(self._settings.prompts))

    @property
    def assembles(self) -> bool:
        """Whether `assemble` is possible: pairs can be put together from texts tokenised before."""
        return self._tokenizer.assembles

    def assemble(
        self,
        texts: tuple[TokenizedTexts, TokenizedTexts],
        pairs: tuple[NDArray[np.integer], NDArray[np.integer]],
    ) -> EncodedPairs:
        """The tokens of pairs given as rows (N,) of queries and of passages that were tokenised before, with prompts.

        Raises:
            InputError: as `score`.
        """
        return self._tokenizer.assembled(*texts, *pairs)

    def score_encoded(
        self,
        encoded: EncodedPairs,
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
        while True:
            try:
                scores = self._finite(self._pass(self._running, encoded, None, budget, reporter))
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
            certificate = certify(scores[sample], self._finite(self._pass(self._exact, encoded, sample, budget)))
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
        width = min(TYPICAL_TOKENS, self._settings.max_length_tokens)

        def run(budget: int) -> None:
            ids = np.zeros((max(1, budget // width), width), np.int64)
            self._running.start(TokenBatch(ids, ids if self._model.has_token_types else None, None))()

        return tune(run, BUDGETS[self._device.type])

    @cached_property
    def _exact(self) -> RunningModel:
        """The model in float32, as transformers has it."""
        return TorchModel(load_cross_encoder(self._checkpoint), torch.float32, self._device, as_it_is=True)

    @cached_property
    def _config(self) -> dict[str, Any]:
        return self._model.config.to_dict()

    @cached_property
    def _weights(self) -> int:
        return weights_of(self._model.module)

    @cached_property
    def _peak(self) -> float:
        """Operations a second in a large matrix product, as measured here."""
        dtype = DTYPES.get(self._settings.dtype, torch.bfloat16)
        return measure_peak(self._device, dtype)

    def _pass(
        self,
        model: RunningModel,
        encoded: EncodedPairs,
        rows: NDArray[np.int64] | None,
        budget: int,
        reporter: ProgressReporter | None = None,
    ) -> NDArray[np.float32]:
        """Scores of the rows, or of all; one batch runs on the device while the next is put together."""
        rows = np.arange(len(encoded.lengths)) if rows is None else rows
        lengths = encoded.lengths[rows]
        padding = PADDING_SHARE if self._tokenizer.can_pad and model.takes_padding else 0.0
        scores = np.full(len(rows), np.nan, np.float32)
        running: tuple[NDArray[np.int64], Callable[[], Logits]] | None = None
        for batch in [*plan_batches(lengths, budget, padding), None]:
            started = None if batch is None else (batch, model.start(self._checked(encoded.assemble(rows[batch]))))
            if running is not None:
                done, collect = running
                logits = collect()
                scores[done] = logits.values
                if reporter is not None:
                    reporter.report(self._work(lengths[done], logits.busy_seconds))
            running = started
        return scores

    def _work(self, lengths: NDArray[np.int64], busy_seconds: float) -> Work:
        flop = flop_of(self._config, lengths, first_token=self._running.first_token, weights=self._weights)
        tokens = len(lengths) * int(lengths.max())
        return Work(len(lengths), tokens, flop, flop / self._peak, busy_seconds)

    def _checked(self, batch: TokenBatch) -> TokenBatch:
        if self._model.vocabulary is not None and batch.input_ids.max(initial=0) >= self._model.vocabulary:
            raise ModelError(
                "its tokenizer gives ids beyond its embeddings",
                where=self._checkpoint.directory,
                expected=f"ids below {self._model.vocabulary}",
                found=int(batch.input_ids.max()),
                todo="save the tokenizer that the model was trained with beside its weights",
            )
        return batch

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
