"""Loading an encoder-decoder that answers a prompt with one token: monoT5, mT5, RankT5.

In: a checkpoint and the name of its form, since nothing in such a checkpoint's files says for which words it was
trained. Out: a module whose `logits` (B, 1) are the logit of one token at the first step of the decoder, less that of
another if the form has one. monoT5 (Nogueira et al. 2020) publishes the softmax of the two; the difference of their
logits is its log-odds, and so a raw score as those of other teachers.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import torch
from torch import Tensor, nn
from transformers import AutoModelForSeq2SeqLM, PreTrainedConfig, PreTrainedTokenizerBase
from transformers.modeling_outputs import SequenceClassifierOutput

from pipeline.errors import ModelError
from teachers.checkpoints.checkpoint import Checkpoint
from teachers.checkpoints.language_model import ScoredTokens, check_weights, keep_rows
from teachers.checkpoints.loading import load_config, load_model, loading
from teachers.settings import AnswerForm


class Answer(NamedTuple):
    """A prompt, and the tokens whose logits are read as the answer."""

    prompt: tuple[str, str, str]
    """Texts before, between and after query and passage."""
    true_token: str
    false_token: str | None


_END = "</s>"
_MONO = ("Query: ", " Document: ", f" Relevant:{_END}")
ANSWERS: Final[dict[AnswerForm, Answer]] = {
    # castorini/monot5-*; Nogueira et al. 2020, arXiv 2003.06713
    "monot5": Answer(_MONO, "▁true", "▁false"),
    # unicamp-dl/mt5-*-mmarco; Bonifacio et al. 2021, arXiv 2108.13897
    "mt5": Answer(_MONO, "▁yes", "▁no"),
    # Zhuang et al. 2022, arXiv 2210.10634
    "rankt5": Answer(("Query: ", " Document: ", _END), "<extra_id_10>", None),
}


def scored_tokens(tokenizer: PreTrainedTokenizerBase, form: AnswerForm) -> ScoredTokens:
    """The ids of a form's tokens.

    Raises:
        ModelError: the vocabulary lacks them.
    """
    answer = ANSWERS[form]
    if tokenizer.eos_token != _END:
        raise ModelError(
            f"its prompts do not end as those of the form {form}",
            where=tokenizer.name_or_path,
            expected=f"the end token {_END}",
            found=tokenizer.eos_token,
        )
    names = [name for name in (answer.true_token, answer.false_token) if name is not None]
    known = tokenizer.get_vocab()
    missing = [name for name in names if name not in known]
    if missing:
        raise ModelError(
            f"its vocabulary lacks a token of the form {form}",
            where=tokenizer.name_or_path,
            expected=" and ".join(names),
            found=f"none for {missing[0]}",
        )
    ids = [known[name] for name in names]
    return ScoredTokens(ids[0], ids[1] if len(ids) > 1 else None)


class FirstStep(nn.Module):
    """An encoder-decoder that is read after one step of its decoder."""

    def __init__(self, model: nn.Module, start_id: int) -> None:
        super().__init__()
        self.model, self._start_id = model, start_id

    def forward(self, input_ids: Tensor, attention_mask: Tensor | None = None) -> SequenceClassifierOutput:
        """`logits` (B, 1) for tokens (B, T)."""
        start = torch.full((len(input_ids), 1), self._start_id, device=input_ids.device)
        step = self.model(
            input_ids=input_ids, attention_mask=attention_mask, decoder_input_ids=start, use_cache=False
        ).logits[:, 0]  # (B, 1 or 2)
        score = step[:, :1] - step[:, 1:] if step.shape[1] == 2 else step
        return SequenceClassifierOutput(logits=score)


def load_encoder_decoder(checkpoint: Checkpoint, tokens: ScoredTokens) -> tuple[nn.Module, PreTrainedConfig, str]:
    """The module in float32, the configuration and the class of the model.

    Raises:
        ModelError: unknown architecture, or weights that are missing or do not fit.
    """
    where = checkpoint.directory
    with loading("an encoder-decoder", where):
        config = load_config(where)
        module, info = load_model(AutoModelForSeq2SeqLM, where, config=config, dtype=torch.float32)
    check_weights(info, where)
    keep_rows(module, tokens, checkpoint)
    start = module.config.decoder_start_token_id
    if start is None:
        raise ModelError("no decoder_start_token_id", where=where / "config.json", expected="the decoder's first token")
    return FirstStep(module.eval(), start), module.config, type(module).__name__
