"""Builds the runner and the tokenizer of each family of teachers that reads query and passage together.

In: a checkpoint, settings with its prompts and limits applied, a device. Out: what `CrossEncoderScorer` works with. A
new family of teachers is a function here, and its name in `BUILDERS`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ModelError, UsageError
from teachers.checkpoints.checkpoint import Checkpoint
from teachers.checkpoints.cross_encoder import CrossEncoder, load_cross_encoder
from teachers.checkpoints.definition import Family
from teachers.checkpoints.encoder_decoder import ANSWERS, load_encoder_decoder, scored_tokens
from teachers.checkpoints.language_model import LanguageModel, answer_ids, load_language_model
from teachers.checkpoints.loading import load_tokenizer
from teachers.engine.decoder import DecoderRunner, choose_sharing
from teachers.engine.device import DTYPES
from teachers.engine.padding import PROBES, Together, rows_together
from teachers.engine.runners import EncoderRunner, Runner, check_ids
from teachers.engine.torch_model import RunningModel, TorchModel, logits_of
from teachers.scorer import Pairs, pairs_of
from teachers.settings import ScoringSettings
from teachers.tokens.pair_prompt import PairPrompt, read_prompt
from teachers.tokens.pair_tokenizer import EncodedPairs, PairTokenizer
from teachers.tokens.prompted_pairs import PromptTokenizer
from teachers.tokens.token_types import decide_token_types


class Tokens(Protocol):
    """Turns pairs into token ids."""

    @property
    def name(self) -> str:
        """The tokenizer's class."""
        ...

    @property
    def assembles(self) -> bool:
        """Whether pairs can be put together from texts that were tokenised before."""
        ...

    def encode(self, pairs: Pairs) -> Any:
        """Encoded pairs (N,)."""
        ...

    def text(self, ids: NDArray[np.int64]) -> str:
        """The text of ids (T,), special tokens included."""
        ...

    def assembled(self, *texts: Any) -> Any:
        """Encoded pairs (N,) of tokenised queries and passages and the rows (N,) of both, if it `assembles`."""
        ...


class Built(NamedTuple):
    """A teacher's parts."""

    tokens: Tokens
    runner: Runner
    exact: Callable[[], Runner]
    """Makes a runner of the same model in float32, as the library has it."""
    facts: dict[str, Any]
    """For footers."""


Builder = Callable[[Checkpoint, ScoringSettings, torch.device], Built]


def build(checkpoint: Checkpoint, settings: ScoringSettings, device: torch.device) -> Built:
    """The parts of a checkpoint's scorer.

    Raises:
        ModelError: the family does not run here, or the checkpoint cannot be loaded.
        UsageError: settings that do not fit the family.
    """
    definition = checkpoint.definition
    definition.check_runs()
    if definition.family not in BUILDERS:
        raise ModelError(
            f"{definition.family.value}: does not read query and passage together",
            where=checkpoint.directory,
            found=definition.detail or None,
        )
    return BUILDERS[definition.family](checkpoint, settings, device)


def _encoder(checkpoint: Checkpoint, settings: ScoringSettings, device: torch.device) -> Built:
    """A sequence classifier or BERT_Cat, which reads pairs as its tokenizer makes them."""
    model = load_cross_encoder(checkpoint)
    _check_limit(model.positions, settings, checkpoint)
    loaded = load_tokenizer(checkpoint, model.config)
    types = decide_token_types(checkpoint, model.module, model.config, loaded, settings.token_types)
    model = model._replace(gets_types=types)
    tokens = PairTokenizer(
        loaded, with_types=types, max_length_tokens=settings.max_length_tokens, truncation=settings.truncation
    )
    together = _rows_together(checkpoint, model, tokens, can_pad=tokens.can_pad)

    def reload() -> CrossEncoder:
        return load_cross_encoder(checkpoint)._replace(gets_types=types)

    return _with_runner(checkpoint, settings, device, model, reload, tokens, together)


def _answering(checkpoint: Checkpoint, settings: ScoringSettings, device: torch.device) -> Built:
    """An encoder-decoder that answers a prompt with one token."""
    _check_prompted(settings, checkpoint)
    if settings.form is None:
        raise UsageError(
            "an encoder-decoder does not say for which words it was trained",
            where=checkpoint.directory,
            expected=f"--form {', '.join(ANSWERS)}",
            todo="pass the form that its model card names",
        )
    loaded = load_tokenizer(checkpoint)
    ids = scored_tokens(loaded, settings.form)

    def reload() -> CrossEncoder:
        return CrossEncoder(*load_encoder_decoder(checkpoint, ids), gets_types=False)

    model = reload()
    tokens = PromptTokenizer(loaded, PairPrompt(*ANSWERS[settings.form].prompt), settings.max_length_tokens)
    together = _rows_together(checkpoint, model, tokens, can_pad=True)
    return _with_runner(checkpoint, settings, device, model, reload, tokens, together)


def _language_model(checkpoint: Checkpoint, settings: ScoringSettings, device: torch.device) -> Built:
    """A decoder that is read at its last position."""
    _check_prompted(settings, checkpoint)
    definition = checkpoint.definition
    loaded = load_tokenizer(checkpoint)
    answer = answer_ids(loaded, definition.answer)
    prompt = read_prompt(loaded, settings.instruction, definition.message_format)

    def reload() -> LanguageModel:
        return load_language_model(checkpoint, answer)

    model = reload()
    _check_limit(model.positions, settings, checkpoint)
    tokens = PromptTokenizer(loaded, prompt, settings.max_length_tokens)
    longest = settings.max_length_tokens
    sharing = choose_sharing(DecoderRunner(checkpoint, model, torch.float32, torch.device("cpu"), longest), tokens)
    runner = DecoderRunner(checkpoint, model, DTYPES[settings.dtype], device, longest, sharing)
    return Built(
        tokens,
        runner,
        lambda: DecoderRunner(checkpoint, reload(), torch.float32, device, longest, sharing),
        {"form": model.form, "prompt": list(prompt), "answer": list(answer) if answer else None},
    )


def _check_prompted(settings: ScoringSettings, checkpoint: Checkpoint) -> None:
    """Refuse options that a model which reads a prompt cannot follow."""
    refused = {
        f"--backend {settings.engine}": settings.engine != "torch",
        "--compile": settings.compile,
        f"--token-types {settings.token_types}": settings.token_types is not None,
        f"--truncation {settings.truncation}": settings.truncation != "longest_first",
    }
    found = [option for option, given in refused.items() if given]
    if found:
        raise UsageError(
            "a model that reads a prompt runs on torch, and cuts the passage first, then the query",
            where=checkpoint.directory,
            found=", ".join(found),
            todo="score with this teacher in a separate run, without these options",
        )


def _with_runner(
    checkpoint: Checkpoint,
    settings: ScoringSettings,
    device: torch.device,
    model: CrossEncoder,
    reload: Callable[[], CrossEncoder],
    tokens: Tokens,
    together: Together,
) -> Built:
    """The parts of a teacher whose forward pass gives a logit for each row."""

    def runner(model: CrossEncoder, running: RunningModel) -> EncoderRunner:
        longest = settings.max_length_tokens
        return EncoderRunner(checkpoint, model, running, device, settings.dtype, together=together, longest=longest)

    def exact() -> Runner:
        again = reload()
        return runner(again, TorchModel(again, torch.float32, device, as_it_is=True))

    facts = {"form": model.form, "token_types": model.has_token_types}
    return Built(tokens, runner(model, _running(model, settings, device)), exact, facts)


def _running(model: CrossEncoder, settings: ScoringSettings, device: torch.device) -> RunningModel:
    if settings.engine == "openvino":
        from teachers.engine.openvino_model import OpenVinoModel

        return OpenVinoModel(model, settings.dtype)
    return TorchModel(model, DTYPES[settings.dtype], device, compiled=settings.compile)


def _rows_together(checkpoint: Checkpoint, model: CrossEncoder, tokens: Tokens, *, can_pad: bool) -> Together:
    """Which rows may share a batch, from the float32 model on the CPU."""
    encoded: EncodedPairs = tokens.encode(pairs_of(PROBES))

    def run(rows: NDArray[np.int64]) -> NDArray[np.floating]:
        return logits_of(model.module, check_ids(encoded.assemble(rows), model.vocabulary, checkpoint))

    return rows_together(run, encoded.lengths, checkpoint.name, can_pad=can_pad)


def _check_limit(positions: int | None, settings: ScoringSettings, checkpoint: Checkpoint) -> None:
    if positions is not None and settings.max_length_tokens > positions:
        raise ModelError(
            "max_length_tokens exceeds the model's positions",
            where=checkpoint.directory,
            expected=f"{positions} or less",
            found=settings.max_length_tokens,
            todo="lower the maximum length",
        )


BUILDERS: Final[dict[Family, Builder]] = {
    Family.CLASSIFIER: _encoder,
    Family.BERT_CAT: _encoder,
    Family.ENCODER: _encoder,
    Family.ENCODER_DECODER: _answering,
    Family.CAUSAL_LM: _language_model,
    Family.LOGIT_SCORE: _language_model,
    Family.CHAT_CLASSIFIER: _language_model,
}
