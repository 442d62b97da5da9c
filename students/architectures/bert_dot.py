"""BERT_DOT: one encoder shared by query and passage, one vector for each, scored by the dot product.

Hofstätter et al. 2020 (arXiv 2010.02666), section 3.2: the first token's state, no projection. Deviation: a
sentence-transformers checkpoint keeps the pooling and normalisation that it was trained with; cosines are multiplied by
`scale` in training, so that their margins can reach the teachers'.

Shapes: N texts, T tokens, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar, Self, cast

from torch import Tensor, nn
from torch.nn import functional
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from students.architectures.base import (
    encoder_class,
    freeze_pooler,
    layers_override,
    refuse_missing,
    refuse_unused,
)
from students.architectures.directory import Module, save_tokenizer, write_modules
from students.architectures.layers import build_layers, layer_modules, pool
from students.architectures.one_vector import OneVectorStudent
from students.architectures.published import ENCODER_PREFIX, encoder_of, is_published
from students.architectures.separate import States
from students.settings import StudentSettings
from teachers.checkpoints.checkpoint import Checkpoint, resolve
from teachers.checkpoints.definition import Definition, Family
from teachers.checkpoints.loading import load_config, load_model, load_tokenizer, loading, read_weights
from teachers.checkpoints.modules import PoolingMode


class BertDot(OneVectorStudent):
    """A dense bi-encoder; with normalised vectors its dot products are cosines."""

    name: ClassVar[str] = "bert_dot"
    library_class: ClassVar[str] = "SentenceTransformer"
    pooling: tuple[PoolingMode, ...] = ("cls",)
    """One vector for each mode, concatenated."""
    normalize: bool = False
    truncate_dim: int | None = None
    """Values of a vector that are kept."""
    _prompts_count: bool = True
    """Whether the pooling includes the tokens of a prompt."""

    @classmethod
    def from_checkpoint(cls, init: str | Checkpoint, settings: StudentSettings) -> Self:
        """See Student. Settings override the pooling and normalisation of a sentence-transformers directory."""
        checkpoint = resolve(init)
        directory, definition = checkpoint.directory, checkpoint.definition
        with loading("a dense encoder", directory):
            if is_published(checkpoint):
                refuse_unused(settings, directory, "num_layers")
                encoder = encoder_of(checkpoint, read_weights(checkpoint), ENCODER_PREFIX, rest=())
            else:
                config = load_config(directory)
                layers = layers_override(config, settings.num_layers, directory)
                encoder, info = load_model(encoder_class(config), directory, **layers)
                # The score does not use the pooler, so it may be new.
                refuse_missing(info, directory, may_be_new=("pooler",))
        tokenizer = load_tokenizer(checkpoint, encoder.config)
        student = cls(encoder.float(), tokenizer, settings)
        freeze_pooler(encoder)
        student._take_form(definition if definition.family is Family.BI_ENCODER else None)
        return student

    def _take_form(self, definition: Definition | None) -> None:
        """Pooling, layers and normalisation: those of the settings, else of a sentence-transformers directory."""
        stated = definition.pooling.modes if definition is not None and definition.pooling is not None else ("cls",)
        self.pooling = (self.settings.pooling,) if self.settings.pooling else stated
        normalize = definition is not None and definition.normalize
        self.normalize = normalize if self.settings.normalize is None else self.settings.normalize
        self.training_scale = self.settings.scale if self.normalize else 1.0
        self.layers = build_layers(definition.steps if definition is not None else ())
        self.truncate_dim = definition.truncate_dim if definition is not None else None

    def read(self, definition: Definition) -> None:
        """See Student."""
        super().read(definition)
        self._prompts_count = definition.pooling is None or definition.pooling.include_prompt

    def encode(self, input_ids: Tensor, attention_mask: Tensor, unpooled: int = 0) -> Tensor:
        """Vectors (N, D) of tokenised texts (N, T); the pooling leaves out the first `unpooled` tokens."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (N, T, D)
        if unpooled:
            attention_mask = attention_mask.clone()
            attention_mask[:, :unpooled] = 0
        vectors = self.layers(pool(states, attention_mask, self.pooling).float())[:, : self.truncate_dim]
        return functional.normalize(vectors, dim=-1) if self.normalize else vectors

    def encode_queries(self, input_ids: Tensor, attention_mask: Tensor) -> States:
        """One vector for each text: (N, 1, D)."""
        return self._states(input_ids, attention_mask, self.prompts[0])

    def encode_passages(self, input_ids: Tensor, attention_mask: Tensor) -> States:
        """One vector for each text: (N, 1, D)."""
        return self._states(input_ids, attention_mask, self.prompts[1])

    def _states(self, input_ids: Tensor, attention_mask: Tensor, prompt: str) -> States:
        unpooled = 0 if self._prompts_count or not prompt else prompt_tokens(self.tokenizer, prompt)
        vectors = self.encode(input_ids, attention_mask, unpooled)
        return States(vectors.unsqueeze(1), attention_mask[:, :1].bool())

    def head(self) -> list[nn.Parameter]:
        """The layers above the pooling."""
        return list(self.layers.parameters())

    def save(self, directory: Path) -> None:
        """Write a directory that SentenceTransformer and AutoModel load."""
        model = cast(PreTrainedModel, self.encoder)
        model.save_pretrained(directory)
        settings = self.settings
        save_tokenizer(self.tokenizer, directory, settings.max_passage_tokens)
        base = "sentence_transformers.models"
        modules = [
            Module("", f"{base}.Transformer"),
            Module("1_Pooling", f"{base}.Pooling", self._pooling_config(model.config.hidden_size)),
            *layer_modules(self.layers, 2),
        ]
        modules += [Module(f"{len(modules)}_Normalize", f"{base}.Normalize")] if self.normalize else []
        cut = {} if self.truncate_dim is None else {"truncate_dim": self.truncate_dim}
        write_modules(
            directory,
            modules,
            transformer={
                "max_seq_length": settings.max_passage_tokens,
                "do_lower_case": False,
                "query_length": settings.max_query_tokens,
                "document_length": settings.max_passage_tokens,
            },
            model={"similarity_fn_name": "cosine" if self.normalize else "dot", **cut},
        )

    def _pooling_config(self, width: int) -> dict[str, Any]:
        if self.pooling in (("cls",), ("mean",)):  # under their older names, which all versions read
            return {
                "word_embedding_dimension": width,
                "pooling_mode_cls_token": self.pooling == ("cls",),
                "pooling_mode_mean_tokens": self.pooling == ("mean",),
            }
        return {"embedding_dimension": width, "pooling_mode": list(self.pooling)}


def prompt_tokens(tokenizer: PreTrainedTokenizerBase, prompt: str) -> int:
    """The first tokens of a text that belong to its prompt, as sentence-transformers counts them."""
    ids = tokenizer(prompt)["input_ids"]
    return len(ids) - (ids[-1] in tokenizer.all_special_ids)
