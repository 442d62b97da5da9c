"""PreTTR: query and passage pass separately through the first layers and jointly through the remaining ones.

MacAvaney et al. 2020 (arXiv 2004.14255), in the form of Hofstätter et al. 2020 (arXiv 2010.02666), section 3.2, and
of the checkpoint published with it: the passage has no first token, the score is a linear layer without bias over the
query's first token, and states are not compressed. Deviation: a passage's positions start at the maximum query length,
not at the longest query of the batch, so its states do not depend on the queries of the batch and can be stored.

Shapes: N texts or pairs, T and S tokens of a query and of a passage, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from torch import Tensor, nn
from transformers import AutoModel, PreTrainedModel, PreTrainedTokenizerBase
from transformers.masking_utils import create_bidirectional_mask

from pipeline.errors import ModelError
from students.architectures.base import freeze_pooler, layers_of, layers_override, refuse_missing, refuse_unused
from students.architectures.directory import save_tokenizer
from students.architectures.published import encoder_of, is_published, write_published
from students.architectures.separate import SeparateStudent, States
from students.settings import StudentSettings
from students.token_rows import Frame
from teachers.checkpoints.checkpoint import Checkpoint, resolve
from teachers.checkpoints.loading import load_config, load_model, load_tokenizer, loading, read_weights

_MODEL_TYPE = "PreTTR"
_HEAD = "_classification_layer."
_FAMILIES = ("distilbert", "bert")


class PreTtr(SeparateStudent):
    """A cross-encoder whose first layers can be computed in advance for passages."""

    name: ClassVar[str] = "prettr"

    def __init__(
        self, encoder: Any, tokenizer: PreTrainedTokenizerBase, settings: StudentSettings, head: Tensor | None
    ) -> None:
        super().__init__(encoder, tokenizer, settings)
        config, stack = encoder.config, layers_of(encoder)
        if config.model_type not in _FAMILIES or stack is None:
            raise ModelError(
                "this encoder cannot be run layer by layer", expected=" or ".join(_FAMILIES), found=config.model_type
            )
        if not settings.split_layer < len(stack):
            raise ModelError(
                "no layer is left for query and passage together",
                expected=f"a split layer below {len(stack)}",
                found=settings.split_layer,
            )
        longest = settings.max_query_tokens + settings.max_passage_tokens - 1
        if longest > config.max_position_embeddings:
            raise ModelError(
                "query and passage exceed the positions", expected=f"{config.max_position_embeddings} or less",
                found=longest, todo="lower the maximum lengths",
            )  # fmt: skip
        freeze_pooler(encoder)
        self._stack = [stack]  # in a list, so that torch does not register the layers twice
        self._classification_layer = nn.Linear(config.hidden_size, 1, bias=False)
        if head is not None:
            self._classification_layer.weight.data = head.float()

    @classmethod
    def from_checkpoint(cls, init: str | Checkpoint, settings: StudentSettings) -> Self:
        """See Student. The head is loaded from a directory of this architecture or from the published form."""
        checkpoint = resolve(init)
        where = checkpoint.directory
        if not is_published(checkpoint):
            tokenizer = load_tokenizer(checkpoint)
            with loading("an encoder to split", where):
                layers = layers_override(load_config(where), settings.num_layers, where)
                encoder, info = load_model(AutoModel, where, **layers)
            refuse_missing(info, where, may_be_new=("pooler",))
            return cls(encoder.float(), tokenizer, settings, None)
        refuse_unused(settings, where, "num_layers")
        state = read_weights(checkpoint)
        head = state.get(f"{_HEAD}weight")
        if head is None or head.shape[0] != 1 or f"{_HEAD}bias" in state:
            raise ModelError(
                "not a PreTTR checkpoint", where=where, expected=f"{_HEAD}weight (1, D) without a bias",
                found=", ".join(sorted(key for key in state if key.startswith(_HEAD))) or "no such weight",
            )  # fmt: skip
        with loading("an encoder to split", where):
            encoder = encoder_of(checkpoint, state, "", rest=(_HEAD,))
        return cls(encoder, load_tokenizer(checkpoint, encoder.config), settings, head)

    @property
    def passage_frame(self) -> Frame:
        """Without the first token, which the length limit still counts."""
        frame = super().passage_frame
        return Frame(frame.before[1:], frame.after, frame.limit - 1, frame.pad_id)

    def encode_queries(self, input_ids: Tensor, attention_mask: Tensor) -> States:
        """States (N, T, D) after the first `split_layer` layers."""
        return self._first_layers(input_ids, attention_mask, 0, 0)

    def encode_passages(self, input_ids: Tensor, attention_mask: Tensor) -> States:
        """States (N, S, D) after the first `split_layer` layers."""
        return self._first_layers(input_ids, attention_mask, self.settings.max_query_tokens, 1)

    def interact(self, queries: States, passages: States) -> Tensor:
        """Scores (N,): query and passage, concatenated, pass through the remaining layers."""
        joined = torch.cat([queries.values, passages.values], dim=1)  # (N, T + S, D)
        mask = torch.cat([queries.mask, passages.mask], dim=1)  # (N, T + S)
        states = self._run(joined, mask, self._layers()[self.settings.split_layer :])
        return self._classification_layer(states[:, 0]).float().squeeze(-1)  # type: ignore[no-any-return]

    def _layers(self) -> nn.ModuleList:
        return self._stack[0]

    def _first_layers(self, input_ids: Tensor, attention_mask: Tensor, position: int, token_type: int) -> States:
        positions = torch.arange(position, position + input_ids.shape[1], device=input_ids.device).unsqueeze(0)
        inputs = {"input_ids": input_ids, "position_ids": positions}
        if self.encoder.config.model_type == "bert":  # type: ignore[union-attr]
            inputs["token_type_ids"] = torch.full_like(input_ids, token_type)
        embedded = self.encoder.embeddings(**inputs)  # type: ignore[operator]
        mask = attention_mask.bool()
        return States(self._run(embedded, mask, self._layers()[: self.settings.split_layer]), mask)

    def _run(self, states: Tensor, mask: Tensor, layers: Any) -> Tensor:
        """Run states (N, T, D) through some layers; padding is not attended to."""
        config = cast(PreTrainedModel, self.encoder).config
        attended = create_bidirectional_mask(config=config, inputs_embeds=states, attention_mask=mask.long())
        for layer in layers:
            states = layer(states, attended)
        return states

    def head(self) -> list[nn.Parameter]:
        """The linear layer."""
        return list(self._classification_layer.parameters())

    def save(self, directory: Path) -> None:
        """Write the published form, for which no library has a class."""
        state = {**self.encoder.state_dict(), f"{_HEAD}weight": self._classification_layer.weight}
        write_published(directory, _MODEL_TYPE, self.encoder, state)  # type: ignore[arg-type]
        save_tokenizer(self.tokenizer, directory, self.settings.max_passage_tokens)
