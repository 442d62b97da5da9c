"""ColBERT: one vector for each token; each query token scores by its best match among the passage's tokens (MaxSim).

Khattab and Zaharia 2020 (arXiv 2004.12832), in the form of Hofstätter et al. 2020 (arXiv 2010.02666), section 3.2.
Deviations from the former, by default: the projection has a bias, vectors are not normalised, there are no markers, and
punctuation counts. Options give unit vectors, a narrower projection, markers after the first token, and queries filled
up with mask tokens (`expand_queries`, as the original and PyLate do). `query_masks` appends a fixed number of mask
tokens after the final separator: 8 in the checkpoint published with the second paper. Mask tokens are attended to.

A MultiVectorEncoder directory scores as its files say: with its prompts, expansion of queries, and tokens that are not
scored. A student that is trained from it keeps its projection and normalisation alone.

Shapes: B queries, N texts or pairs, T and S tokens of a query and of a passage, D width of the projection.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Self, cast

import torch
from torch import Tensor, nn
from torch.nn import functional
from transformers import AddedToken, PreTrainedModel, PreTrainedTokenizerBase

from pipeline.errors import ModelError
from students.architectures.base import (
    encoder_class,
    freeze_pooler,
    layers_override,
    load_strictly,
    refuse_missing,
    refuse_unused,
)
from students.architectures.directory import Module, save_tokenizer, transformer_facts, write_modules
from students.architectures.layers import build_layers, layer_modules, read_layer
from students.architectures.published import ENCODER_PREFIX, encoder_of, is_published
from students.architectures.separate import SeparateStudent, States, exactly
from students.settings import StudentSettings
from students.token_rows import Frame, TextRows
from teachers.checkpoints.checkpoint import Checkpoint, resolve
from teachers.checkpoints.definition import Definition, Family
from teachers.checkpoints.loading import load_config, load_model, load_tokenizer, loading, read_weights
from teachers.checkpoints.modules import DenseLayer, Expansion, Step

_PROJECTION = "compressor."
_LEAST = torch.finfo(torch.float32).min
_NOTHING = -1e9
"""Score of a passage without a scored token, that of sentence-transformers."""
_INOUT = {"module_input_name": "token_embeddings", "module_output_name": "token_embeddings"}


class ColBert(SeparateStudent):
    """Late interaction."""

    name: ClassVar[str] = "colbert"
    library_class: ClassVar[str] = "MultiVectorEncoder"
    searches: ClassVar[bool] = True
    expansion: Expansion | None = None
    """How queries are filled up, where a checkpoint's files say so."""
    mean: bool = False
    """Whether scores are divided by the number of a query's tokens."""
    _skipped: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    """Token ids that are not scored in queries and in passages."""
    _kept: tuple[int, ...] = ()
    """If there are any, the only token ids that are scored in passages."""

    def __init__(
        self,
        encoder: nn.Module,
        tokenizer: PreTrainedTokenizerBase,
        settings: StudentSettings,
        projection: nn.Linear | None,
        normalize: bool,
        layers: nn.Sequential | None = None,
    ) -> None:
        super().__init__(encoder, tokenizer, settings)
        self.projection, self.normalize = projection, normalize
        self.layers = nn.Sequential() if layers is None else layers
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
        directory, definition = checkpoint.directory, checkpoint.definition
        steps: tuple[Step, ...] = definition.steps if definition.family is Family.MULTI_VECTOR else ()
        weights: dict[str, Tensor] = {}
        with loading("an encoder of token vectors", directory):
            if is_published(checkpoint):
                refuse_unused(settings, directory, "num_layers")
                state = read_weights(checkpoint)
                encoder = encoder_of(checkpoint, state, ENCODER_PREFIX, rest=(_PROJECTION,))
                weights = {k.removeprefix(_PROJECTION): v for k, v in state.items() if k.startswith(_PROJECTION)}
            else:
                config = load_config(directory)
                layers = layers_override(config, settings.num_layers, directory)
                encoder, info = load_model(encoder_class(config), directory, **layers)
                refuse_missing(info, directory, may_be_new=("pooler",))
            first = steps[0] if steps else None
            if isinstance(first, DenseLayer) and first.is_linear:
                weights = {name.removeprefix("linear."): w for name, w in read_layer(first.directory).items()}
                steps = steps[1:]
        freeze_pooler(encoder)
        stated = definition.normalize and definition.family is Family.MULTI_VECTOR
        normalize = stated if settings.normalize is None else settings.normalize
        tokenizer = load_tokenizer(checkpoint, encoder.config)
        projection, kept = None, definition.family is Family.MULTI_VECTOR and settings.projection_width is None
        if weights or not (steps or kept):
            projection = _projection(weights, encoder.config.hidden_size, settings, directory)
        return cls(encoder.float(), tokenizer, settings, projection, normalize, build_layers(steps))

    def read(self, definition: Definition) -> None:
        """See Student; also the expansion of queries, and which tokens are scored."""
        super().read(definition)
        if definition.expansion is not None and self.tokenizer.padding_side != "right":
            raise ModelError(
                "queries that are filled up on the left are not supported",
                where=definition.directory,
                expected="padding_side right",
                found=self.tokenizer.padding_side,
            )
        self.expansion, self.mean = definition.expansion, definition.similarity == "meanmaxsim"
        skipped = _ids_of(self.tokenizer, definition.mask.skip_words)
        query, passage = (skipped if side in definition.mask.skip_in else () for side in ("query", "document"))
        self._skipped, self._kept = (query, passage), definition.mask.keep_ids

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
        if self.expansion is not None:
            return self._expanded(texts, self.expansion)
        if not self.settings.expand_queries:
            return super().query_inputs(texts)
        inputs = self.query_frame.padded(texts, self.query_frame.limit)
        filled = inputs["attention_mask"] == 0
        inputs["input_ids"][filled] = int(self.tokenizer.mask_token_id)
        return {**inputs, "attention_mask": torch.ones_like(inputs["attention_mask"])}

    def _expanded(self, texts: TextRows, expansion: Expansion) -> dict[str, Tensor]:
        """Inputs (N, T) of queries that are filled up as a checkpoint's files say."""
        tokenizer, frame = self.tokenizer, self.query_frame
        inputs = frame.padded(texts, max(expansion.length, int(frame.lengths(texts).max(initial=0))))
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        filled = (mask == 0) & (torch.arange(ids.shape[1]) < expansion.length)
        token = tokenizer.mask_token_id if tokenizer.mask_token_id is not None else tokenizer.eos_token_id
        if expansion.token is not None:
            token = next(iter(_ids_of(tokenizer, (expansion.token,))), None)
        if token is None:
            raise ModelError(
                "the tokenizer has no token to fill queries up with", found=expansion.token or "no mask token"
            )
        return {"input_ids": ids.masked_fill(filled, token), "attention_mask": mask | (filled & expansion.attend)}

    def encode_queries(self, input_ids: Tensor, attention_mask: Tensor) -> States:
        """A vector for each token: (N, T, D)."""
        mask = attention_mask.bool()
        if self.expansion is not None:  # tokens that fill a query up are scored, even if the encoder ignores them
            mask = mask | (torch.arange(mask.shape[1], device=mask.device) < self.expansion.length)
        return self._states(input_ids, attention_mask, mask & ~_among(input_ids, self._skipped[0]))

    def encode_passages(self, input_ids: Tensor, attention_mask: Tensor) -> States:
        """A vector for each token: (N, S, D)."""
        mask = attention_mask.bool() & ~_among(input_ids, self._skipped[1])
        return self._states(input_ids, attention_mask, mask & _among(input_ids, self._kept) if self._kept else mask)

    def _states(self, input_ids: Tensor, attention_mask: Tensor, mask: Tensor) -> States:
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        projected = states if self.projection is None else self.projection(states)
        vectors = self.layers(projected).float()  # (N, T, D)
        vectors = functional.normalize(vectors, dim=-1) if self.normalize else vectors
        return States(vectors * mask.unsqueeze(-1), mask)

    def interact(self, queries: States, passages: States) -> Tensor:
        """Scores (N,): the sum over query tokens of the largest dot product; padding is ignored."""
        with exactly(queries):
            matches = queries.values @ passages.values.transpose(1, 2)  # (N, T, S)
        best = matches.masked_fill(~passages.mask.unsqueeze(1), _LEAST).amax(-1)  # (N, T)
        return self._total(best, queries.mask, passages.mask.any(-1))

    def _total(self, best: Tensor, mask: Tensor, matched: Tensor) -> Tensor:
        """The sum over query tokens, or their mean; a passage without a scored token gets the library's value."""
        counted = (best * mask).masked_fill(~mask, 0.0)
        total = counted.masked_fill(~matched.unsqueeze(-1), 0.0).sum(-1)
        total = total / mask.sum(-1).clamp(min=1) if self.mean else total
        return total.masked_fill(~matched, _NOTHING)

    def interact_all(self, queries: States, passages: States) -> Tensor:
        """Scores (B, N) of B queries with all N passages, from one matrix product."""
        count, tokens = queries.mask.shape
        with exactly(queries):
            matches = queries.values.flatten(0, 1) @ passages.values.flatten(0, 1).T  # (B*T, N*S)
        matches = matches.view(count, tokens, *passages.mask.shape)  # (B, T, N, S)
        best = matches.masked_fill(~passages.mask, _LEAST).amax(-1).transpose(1, 2)  # (B, N, T)
        return self._total(best, queries.mask.unsqueeze(1), passages.mask.any(-1).unsqueeze(0))

    def head(self) -> list[nn.Parameter]:
        """The projection, and layers after it."""
        projection = [] if self.projection is None else list(self.projection.parameters())
        return [*projection, *self.layers.parameters()]

    def save(self, directory: Path) -> None:
        """Write a directory that MultiVectorEncoder loads; it has no counterpart of `query_masks`."""
        cast(PreTrainedModel, self.encoder).save_pretrained(directory)
        settings, base = self.settings, "sentence_transformers.base.modules"
        save_tokenizer(self.tokenizer, directory, settings.max_passage_tokens)
        modules = [Module("", f"{base}.transformer.Transformer")]
        if self.projection is not None:
            modules.append(_projection_module(self.projection))
        modules += layer_modules(self.layers, len(modules), _INOUT)
        if self.normalize:
            modules.append(Module(f"{len(modules)}_Normalize", f"{base}.normalize.Normalize", _INOUT))
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


def _projection_module(projection: nn.Linear) -> Module:
    config = {
        "in_features": projection.in_features,
        "out_features": projection.out_features,
        "bias": projection.bias is not None,
        "activation_function": "torch.nn.modules.linear.Identity",
        **_INOUT,
    }
    weights = {f"linear.{name}": weight for name, weight in projection.state_dict().items()}
    return Module("1_Dense", "sentence_transformers.base.modules.dense.Dense", config, weights)


def _ids_of(tokenizer: PreTrainedTokenizerBase, words: Sequence[str]) -> tuple[int, ...]:
    """The ids of words that are one token each; others are left out, as the library does."""
    found = cast(list[int | None], tokenizer.convert_tokens_to_ids(list(words)))
    ids = zip(words, found, strict=True)
    unknown = tokenizer.unk_token_id
    return tuple(i for word, i in ids if i is not None and (i != unknown or word == tokenizer.unk_token))


def _among(ids: Tensor, chosen: Sequence[int]) -> Tensor:
    """Where `ids` (N, T) are among the chosen."""
    return torch.isin(ids, torch.tensor(chosen, dtype=ids.dtype, device=ids.device))
