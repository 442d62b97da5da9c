"""BERT_DOT: one encoder shared by query and passage, one vector for each, scored by the dot product.

Hofstätter et al. 2020 (arXiv 2010.02666), section 3.2: the first token's state, no projection. Deviation: a
sentence-transformers checkpoint keeps the pooling and normalisation that it was trained with; cosines are multiplied by
`scale` in training, so that their margins can reach the teachers'.

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
from students.architectures.directory import Module, read_json, read_modules, save_tokenizer, write_modules
from students.architectures.one_vector import OneVectorStudent
from students.architectures.published import ENCODER_PREFIX, encoder_of, is_published
from students.architectures.separate import States
from students.settings import Pooling, StudentSettings
from teachers.checkpoints.checkpoint import Checkpoint, resolve
from teachers.checkpoints.loading import load_config, load_model, load_tokenizer, loading, read_weights

_MODULES = {"Transformer", "Pooling", "Normalize", "Dropout"}
"""Module classes of sentence-transformers that a dense student may have."""


class BertDot(OneVectorStudent):
    """A dense bi-encoder; with normalised vectors its dot products are cosines."""

    name: ClassVar[str] = "bert_dot"
    library_class: ClassVar[str] = "SentenceTransformer"
    pooling: Pooling = "cls"
    normalize: bool = False

    @classmethod
    def from_checkpoint(cls, init: str | Checkpoint, settings: StudentSettings) -> Self:
        """See Student. Settings override the pooling and normalisation of a sentence-transformers directory."""
        checkpoint = resolve(init)
        directory = checkpoint.directory
        with loading("a dense encoder", directory):
            if is_published(checkpoint):
                encoder = encoder_of(checkpoint, read_weights(checkpoint), ENCODER_PREFIX, rest=())
            else:
                layers = layers_override(load_config(directory), settings.num_layers, directory)
                encoder, info = load_model(AutoModel, directory, **layers)
                # The score does not use the pooler, so it may be new.
                refuse_missing(info, directory, may_be_new=("pooler",))
        tokenizer = load_tokenizer(checkpoint, encoder.config)
        student = cls(encoder.float(), tokenizer, settings)
        freeze_pooler(encoder)
        student.pooling, normalize = _sentence_transformers_form(directory, settings.pooling)
        student.normalize = normalize if settings.normalize is None else settings.normalize
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
        """One vector for each text: (N, 1, D)."""
        return States(self.encode(input_ids, attention_mask).unsqueeze(1), attention_mask[:, :1].bool())

    def save(self, directory: Path) -> None:
        """Write a directory that SentenceTransformer and AutoModel load."""
        model = cast(PreTrainedModel, self.encoder)
        model.save_pretrained(directory)
        settings = self.settings
        save_tokenizer(self.tokenizer, directory, settings.max_passage_tokens)
        base = "sentence_transformers.models"
        pooling = {
            "word_embedding_dimension": model.config.hidden_size,
            "pooling_mode_cls_token": self.pooling == "cls",
            "pooling_mode_mean_tokens": self.pooling == "mean",
        }
        modules = [Module("", f"{base}.Transformer"), Module("1_Pooling", f"{base}.Pooling", pooling)]
        modules += [Module("2_Normalize", f"{base}.Normalize")] if self.normalize else []
        write_modules(
            directory,
            modules,
            transformer={
                "max_seq_length": settings.max_passage_tokens,
                "do_lower_case": False,
                "query_length": settings.max_query_tokens,
                "document_length": settings.max_passage_tokens,
            },
            model={"similarity_fn_name": "cosine" if self.normalize else "dot"},
        )


def _sentence_transformers_form(directory: Path, pooling: Pooling | None) -> tuple[Pooling, bool]:
    """Pooling and normalisation of a sentence-transformers directory; `pooling`, if not None, overrides its pooling.

    Raises:
        ModelError: a dense student does not support its modules or its pooling.
    """
    modules = read_modules(directory)
    if "Pooling" in modules:
        if other := sorted(set(modules) - _MODULES):
            raise ModelError("bert_dot does not support these modules", where=directory, found=", ".join(other))
        pooling = pooling or _pooling_of(modules["Pooling"])
    return pooling or "cls", "Normalize" in modules


def _pooling_of(module: Path) -> Pooling:
    config = read_json(module / "config.json")
    if not isinstance(config, dict):
        raise ModelError("a module's configuration is missing", where=module, expected="config.json")
    prefix = "pooling_mode_"  # of older versions: one key for each mode
    stated = config.get("pooling_mode")
    if stated is None:
        stated = [key.removeprefix(prefix) for key, on in config.items() if key.startswith(prefix) and on]
    modes = {stated} if isinstance(stated, str) else set(stated)
    if modes and modes <= {"cls", "cls_token"}:
        return "cls"
    if modes and modes <= {"mean", "mean_tokens"}:
        return "mean"
    raise ModelError(
        "bert_dot does not support this pooling",
        where=module,
        expected="cls or mean",
        found=", ".join(sorted(modes)) or "none",
        todo="to train from it with another pooling, pass --pooling",
    )
