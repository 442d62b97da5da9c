"""BERT_DOT: one shared encoder for query and passage, one vector each, their dot product.

Hofstätter et al. 2020 (arXiv 2010.02666), section 3.2: the first token's state, no projection. Deviation: a
checkpoint in sentence-transformers' form keeps its own pooling and unit length, since it was trained with them;
cosines are scaled in training, so that their margins can match the teachers'.

Shapes: N texts, T tokens, D width.
"""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar, Self, cast

from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, PreTrainedModel

from pipeline.errors import ModelError
from students.architectures.base import freeze_pooler, layers_override, refuse_missing
from students.architectures.directory import Module, read_json, read_modules, write_modules
from students.architectures.one_vector import OneVectorStudent
from students.architectures.published import ENCODER_PREFIX, encoder_of, is_published
from students.architectures.separate import States
from students.settings import Pooling, StudentSettings
from teachers.checkpoints.checkpoint import resolve
from teachers.checkpoints.loading import load_config, load_model, load_tokenizer, loading, read_weights

_MODULES = {"Transformer", "Pooling", "Normalize", "Dropout"}
"""Classes of sentence-transformers that make up a dense student."""


class BertDot(OneVectorStudent):
    """A dense bi-encoder; with vectors of unit length its dot products are cosines."""

    name: ClassVar[str] = "bert_dot"
    library_class: ClassVar[str] = "SentenceTransformer"
    pooling: Pooling = "cls"
    normalize: bool = False

    @classmethod
    def from_checkpoint(cls, init: str, settings: StudentSettings) -> Self:
        """See Student. A sentence-transformers directory gives pooling and normalisation."""
        checkpoint = resolve(init)
        directory = checkpoint.directory
        with loading("a dense encoder", directory):
            if is_published(checkpoint):
                encoder = encoder_of(checkpoint, read_weights(checkpoint), ENCODER_PREFIX, rest=())
            else:
                layers = layers_override(load_config(directory), settings.num_layers, directory)
                encoder, info = load_model(AutoModel, directory, **layers)
                # The pooler is no part of the score, so it may be random.
                refuse_missing(info, directory, may_be_new=("pooler",))
        tokenizer = load_tokenizer(checkpoint, encoder.config)
        student = cls(encoder.float(), tokenizer, settings)
        freeze_pooler(encoder)
        student.pooling, own_normalize = _sentence_transformers_form(directory, settings.pooling)
        student.normalize = own_normalize if settings.normalize is None else settings.normalize
        student.training_scale = settings.scale if student.normalize else 1.0
        return student

    def encode(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Vectors (N, D) of tokenised texts (N, T)."""
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state  # (N, T, D)
        if self.pooling == "cls":
            vectors = states[:, 0]
        else:
            mask = attention_mask.unsqueeze(-1).to(states.dtype)
            vectors = (states * mask).sum(1) / mask.sum(1)
        vectors = vectors.float()
        return functional.normalize(vectors, dim=-1) if self.normalize else vectors

    def encode_queries(self, input_ids: Tensor, attention_mask: Tensor) -> States:
        """One vector each: (N, 1, D)."""
        return States(self.encode(input_ids, attention_mask).unsqueeze(1), attention_mask[:, :1].bool())

    def save(self, directory: Path) -> None:
        """Write a directory that SentenceTransformer and AutoModel load."""
        model = cast(PreTrainedModel, self.encoder)
        model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
        kind = "sentence_transformers.models"
        pooling = {
            "word_embedding_dimension": model.config.hidden_size,
            "pooling_mode_cls_token": self.pooling == "cls",
            "pooling_mode_mean_tokens": self.pooling == "mean",
        }
        modules = [Module("", f"{kind}.Transformer"), Module("1_Pooling", f"{kind}.Pooling", pooling)]
        modules += [Module("2_Normalize", f"{kind}.Normalize")] if self.normalize else []
        write_modules(
            directory,
            modules,
            transformer={"max_seq_length": self.settings.max_passage_tokens, "do_lower_case": False},
            model={"similarity_fn_name": "cosine" if self.normalize else "dot"},
        )


def _sentence_transformers_form(directory: Path, pooling: Pooling | None) -> tuple[Pooling, bool]:
    """Pooling and normalisation that a sentence-transformers directory asks for; its pooling, unless one is given.

    Raises:
        ModelError: modules or a pooling that a dense student does not have.
    """
    modules = read_modules(directory)
    if "Pooling" in modules:
        if other := sorted(set(modules) - _MODULES):
            raise ModelError("modules that a bert_dot does not have", where=directory, found=", ".join(other))
        pooling = pooling or _pooling_of(modules["Pooling"])
    return pooling or "cls", "Normalize" in modules


def _pooling_of(module: Path) -> Pooling:
    config = read_json(module / "config.json")
    if not isinstance(config, dict):
        raise ModelError("a module's configuration is missing", where=module, expected="config.json")
    older = "pooling_mode_"
    given = config.get("pooling_mode")
    if given is None:
        given = [key.removeprefix(older) for key, on in config.items() if key.startswith(older) and on]
    modes = {given} if isinstance(given, str) else set(given)
    if modes and modes <= {"cls", "cls_token"}:
        return "cls"
    if modes and modes <= {"mean", "mean_tokens"}:
        return "mean"
    raise ModelError(
        "a pooling that a bert_dot does not have",
        where=module,
        expected="cls or mean",
        found=", ".join(sorted(modes)) or "none",
        todo="another begins a training with --pooling",
    )
