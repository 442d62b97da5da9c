"""ColBERT: one vector for each token; each query token scores by its best match among the passage's tokens (MaxSim).

Khattab and Zaharia 2020 (arXiv 2004.12832), in the form of Hofstätter et al. 2020 (arXiv 2010.02666), section 3.2.
Deviations from the former, by default: the projection has a bias, vectors are not normalised, there are no markers, and
punctuation counts. Options give unit vectors, a narrower projection, markers after the first token, and queries filled
up with mask tokens (`expand_queries`, as the original and PyLate do). `query_masks` appends a fixed number of mask
tokens after the final separator: 8 in the checkpoint published with the second paper. Mask tokens are attended to.

Shapes: B queries, N texts or pairs, T and S tokens of a query and of a passage, D width of the projection.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self, cast

import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional
from transformers import AddedToken, AutoModel, PreTrainedModel, PreTrainedTokenizerBase

from pipeline.errors import ModelError
from students.architectures.base import freeze_pooler, layers_override, load_strictly, refuse_missing
from students.architectures.directory import Module, read_modules, save_tokenizer, transformer_facts, write_modules
from students.architectures.published import ENCODER_PREFIX, encoder_of, is_published
from students.architectures.separate import SeparateStudent, States, exactly
from students.settings import StudentSettings
from students.token_rows import Frame, TextRows
from teachers.checkpoints.checkpoint import Checkpoint, resolve
from teachers.checkpoints.loading import load_config, load_model, load_tokenizer, loading, read_weights

_PROJECTION = "compressor."
_LEAST = torch.finfo(torch.float32).min


class ColBert(SeparateStudent):
    """Late interaction."""

    name: ClassVar[str] = "colbert"
    library_class: ClassVar[str] = "MultiVectorEncoder"
    known_by_module: ClassVar[str] = "MultiVectorMask"
    searches: ClassVar[bool] = True

    def __init__(
        self,
        encoder: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        settings: StudentSettings,
        projection: nn.Linear,
        normalize: bool,
    ) -> None:
        super().__init__(encoder, tokenizer, settings)
        self.projection, self.normalize = projection, normalize
        self.training_scale = settings.scale if normalize else 1.0
        if (settings.expand_queries or settings.query_masks) and tokenizer.mask_token_id is None:
            raise ModelError(
                "queries cannot be filled up with mask tokens",
                where=type(tokenizer).__name__,
                expected="a tokenizer with a mask token",
            )
        vocabulary = tokenizer.get_vocab()
        # A marker that is one entry of the vocabulary must not be split.
        whole = [marker for marker in (settings.query_marker, settings.passage_marker) if marker in vocabulary]
        tokenizer.add_tokens([AddedToken(marker, normalized=False, special=True) for marker in whole])

    @classmethod
    def from_checkpoint(cls, init: str | Checkpoint, settings: StudentSettings) -> Self:
        """See Student. The projection is loaded from a MultiVectorEncoder directory or from the published form
        (`compressor`); for any other encoder it is new.
        """
        checkpoint = resolve(init)
        directory = checkpoint.directory
        modules = read_modules(directory)
        with loading("an encoder of token vectors", directory):
            if is_published(checkpoint):
                state = read_weights(checkpoint)
                encoder = encoder_of(checkpoint, state, ENCODER_PREFIX, rest=(_PROJECTION,))
                weights = {k.removeprefix(_PROJECTION): v for k, v in state.items() if k.startswith(_PROJECTION)}
            else:
                layers = layers_override(load_config(directory), settings.num_layers, directory)
                encoder, info = load_model(AutoModel, directory, **layers)
                refuse_missing(info, directory, may_be_new=("pooler",))
                weights = _dense(modules["Dense"]) if "Dense" in modules else {}
        freeze_pooler(encoder)
        projection = _projection(weights, encoder.config.hidden_size, settings, directory)
        normalize = "Normalize" in modules if settings.normalize is None else settings.normalize
        tokenizer = load_tokenizer(checkpoint, encoder.config)
        return cls(encoder.float(), tokenizer, settings, projection, normalize)

    @cached_property
    def query_frame(self) -> Frame:
        """Adds the marker after the first token and mask tokens after the last."""
        masks = (self.tokenizer.mask_token_id,) * self.settings.query_masks
        return self._marked(super().query_frame, self.settings.query_marker, masks)

    @cached_property
    def passage_frame(self) -> Frame:
        """Adds the marker after the first token."""
        return self._marked(super().passage_frame, self.settings.passage_marker)

    def _marked(self, frame: Frame, marker: str, after: tuple[int, ...] = ()) -> Frame:
        ids = tuple(self.tokenizer(marker, add_special_tokens=False)["input_ids"]) if marker else ()
        # The length limit counts a marker, but not mask tokens.
        return Frame(frame.before + ids, frame.after + after, frame.limit + len(after), frame.pad_id)

    def query_inputs(self, texts: TextRows) -> dict[str, Tensor]:
        """Inputs (N, T); with `expand_queries`, filled up with mask tokens to the maximum query length."""
        if not self.settings.expand_queries:
            return super().query_inputs(texts)
        inputs = self.query_frame.padded(texts, self.query_frame.limit)
        filled = inputs["attention_mask"] == 0
        inputs["input_ids"][filled] = int(self.tokenizer.mask_token_id)
        return {**inputs, "attention_mask": torch.ones_like(inputs["attention_mask"])}

    def encode_queries(self, input_ids: Tensor, attention_mask: Tensor) -> States:
        """A vector for each token: (N, T, D) of queries, (N, S, D) of passages."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        vectors = self.projection(states).float()  # (N, T, D)
        mask = attention_mask.bool()
        vectors = functional.normalize(vectors, dim=-1) if self.normalize else vectors
        return States(vectors * mask.unsqueeze(-1), mask)

    def interact(self, queries: States, passages: States) -> Tensor:
        """Scores (N,): the sum over query tokens of the largest dot product; padding is ignored."""
        with exactly(queries):
            matches = queries.values @ passages.values.transpose(1, 2)  # (N, T, S)
        best = matches.masked_fill(~passages.mask.unsqueeze(1), _LEAST).amax(-1)  # (N, T)
        return (best * queries.mask).sum(-1)

    def interact_all(self, queries: States, passages: States) -> Tensor:
        """Scores (B, N) of B queries with all N passages, from one matrix product."""
        count, tokens = queries.mask.shape
        with exactly(queries):
            matches = queries.values.flatten(0, 1) @ passages.values.flatten(0, 1).T  # (B*T, N*S)
        matches = matches.view(count, tokens, *passages.mask.shape)  # (B, T, N, S)
        best = matches.masked_fill(~passages.mask, _LEAST).amax(-1)  # (B, T, N)
        return (best * queries.mask.unsqueeze(-1)).sum(1)

    def head(self) -> list[nn.Parameter]:
        """The projection."""
        return list(self.projection.parameters())

    def save(self, directory: Path) -> None:
        """Write a directory that MultiVectorEncoder loads; it has no counterpart of `query_masks`."""
        cast(PreTrainedModel, self.encoder).save_pretrained(directory)
        settings, base = self.settings, "sentence_transformers.base.modules"
        save_tokenizer(self.tokenizer, directory, settings.max_passage_tokens)
        dense = {
            "in_features": self.projection.in_features,
            "out_features": self.projection.out_features,
            "bias": self.projection.bias is not None,
            "activation_function": "torch.nn.modules.linear.Identity",
            "module_input_name": "token_embeddings",
            "module_output_name": "token_embeddings",
        }
        weights = {f"linear.{name}": weight for name, weight in self.projection.state_dict().items()}
        modules = [
            Module("", f"{base}.transformer.Transformer"),
            Module("1_Dense", f"{base}.dense.Dense", dense, weights),
        ]
        if self.normalize:
            inout = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}
            modules.append(Module("2_Normalize", f"{base}.normalize.Normalize", inout))
        mask = "sentence_transformers.multi_vector_encoder.modules.multi_vector_mask.MultiVectorMask"
        modules.append(Module(f"{len(modules)}_MultiVectorMask", mask, {"skiplist_words": []}))
        expansion = {"strategy": "fixed", "attend": True, "token": None, "length": settings.max_query_tokens}
        lengths = {"query_length": settings.max_query_tokens}
        prompts = {
            side: f"{marker} " if marker else ""
            for side, marker in (("query", settings.query_marker), ("document", settings.passage_marker))
        }
        write_modules(
            directory,
            modules,
            transformer=transformer_facts(
                "feature-extraction",
                "last_hidden_state",
                document_length=settings.max_passage_tokens,
                **({"query_expansion": expansion} if settings.expand_queries else lengths),
            ),
            model={"model_type": "MultiVectorEncoder", "prompts": prompts, "similarity_fn_name": "maxsim"},
        )


def _projection(weights: dict[str, Tensor], width: int, settings: StudentSettings, where: Path) -> nn.Linear:
    """The projection with these weights, or a new one without any."""
    if not weights:
        return nn.Linear(width, settings.projection_width or width)
    out, into = weights["weight"].shape
    projection = nn.Linear(into, out, bias="bias" in weights)
    load_strictly(projection, weights, where)
    if into != width or settings.projection_width not in (None, out):
        raise ModelError(
            "a projection of another shape",
            where=where,
            expected=f"{width} to {settings.projection_width or 'any number of'} values",
            found=f"{into} to {out}",
        )
    return projection


def _dense(directory: Path) -> dict[str, Tensor]:
    return {name.removeprefix("linear."): weight for name, weight in load_file(directory / "model.safetensors").items()}
