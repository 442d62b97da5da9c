"""BERT_DOT: one shared encoder for query and passage, one vector each, their dot product.

Hofstätter et al. 2020 (arXiv 2010.02666), section 3.2: the first token's state, no projection. Deviation: a
checkpoint in sentence-transformers' form keeps its own pooling and unit length, since it was trained with them;
cosines are scaled in training, so that their margins can match the teachers'.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, cast

from torch import Tensor
from torch.nn import functional
from transformers import AutoModel, PreTrainedModel

from students.architectures.base import Student, layers_override, refuse_missing
from students.settings import Pooling, StudentSettings
from teachers.checkpoint import resolve
from teachers.loading import load_config, load_model, load_tokenizer, loading


class BertDot(Student):
    """A dense bi-encoder."""

    name: ClassVar[str] = "bert_dot"
    pooling: Pooling = "cls"
    normalize: bool = False

    @classmethod
    def from_checkpoint(cls, init: str, settings: StudentSettings) -> Self:
        """See Student. A sentence-transformers directory gives pooling and normalisation."""
        checkpoint = resolve(init)
        directory, tokenizer = checkpoint.directory, load_tokenizer(checkpoint)
        with loading("a dense encoder", directory):
            layers = layers_override(load_config(directory), settings.num_layers, directory)
            encoder, info = load_model(AutoModel, directory, **layers)
        # The pooler is no part of the score, so it may be random.
        refuse_missing(info, directory, may_be_new=("pooler",))
        student = cls(encoder.float(), tokenizer, settings)
        for parameter in (getattr(encoder, "pooler", None) and encoder.pooler.parameters()) or ():
            parameter.requires_grad_(False)
        own_pooling, own_normalize = _sentence_transformers_form(directory)
        student.pooling = settings.pooling or own_pooling or "cls"
        student.normalize = own_normalize if settings.normalize is None else settings.normalize
        return student

    def features(self, queries: Sequence[str], passages: Sequence[str]) -> dict[str, Tensor]:
        """Tokens of the queries (B, T) and of all passages (B*K, T)."""
        return {
            f"{kind}_{name}": tokens
            for kind, texts, limit in (
                ("query", queries, self.settings.max_query_tokens),
                ("passage", passages, self.settings.max_passage_tokens),
            )
            for name, tokens in self.tokenize(texts, limit).items()
        }

    def tokenize(self, texts: Sequence[str], max_length_tokens: int) -> dict[str, Tensor]:
        """Padded tokens (N, T) of texts."""
        encoded = self.tokenizer(
            list(texts), truncation=True, max_length=max_length_tokens, padding=True, return_tensors="pt"
        )
        return {name: encoded[name] for name in ("input_ids", "attention_mask")}

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

    def forward(self, **features: Tensor) -> Tensor:
        """Scores (B, K): dot products, or scaled cosines."""
        queries = self.encode(features["query_input_ids"], features["query_attention_mask"])  # (B, D)
        passages = self.encode(features["passage_input_ids"], features["passage_attention_mask"])  # (B*K, D)
        scores = (queries.unsqueeze(1) * passages.view(len(queries), -1, passages.shape[-1])).sum(-1)
        return scores * self.settings.scale if self.normalize else scores

    def save(self, directory: Path) -> None:
        """Write a directory that SentenceTransformer and AutoModel load."""
        model = cast(PreTrainedModel, self.encoder)
        model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
        kind = "sentence_transformers.models"
        modules = [("", "Transformer"), ("1_Pooling", "Pooling")]
        modules += [("2_Normalize", "Normalize")] if self.normalize else []
        pooling = {
            "word_embedding_dimension": model.config.hidden_size,
            "pooling_mode_cls_token": self.pooling == "cls",
            "pooling_mode_mean_tokens": self.pooling == "mean",
        }
        listed = [
            {"idx": i, "name": str(i), "path": path, "type": f"{kind}.{t}"} for i, (path, t) in enumerate(modules)
        ]
        for path, content in {
            "modules.json": listed,
            "1_Pooling/config.json": pooling,
            "sentence_bert_config.json": {
                "max_seq_length": self.settings.max_passage_tokens,
                "do_lower_case": False,
            },
            "config_sentence_transformers.json": {"similarity_fn_name": "cosine" if self.normalize else "dot"},
        }.items():
            (directory / path).parent.mkdir(exist_ok=True)
            (directory / path).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
        if self.normalize:
            (directory / "2_Normalize").mkdir(exist_ok=True)


def _sentence_transformers_form(directory: Path) -> tuple[Pooling | None, bool]:
    """Pooling and normalisation that a sentence-transformers directory asks for."""
    modules = _read(directory / "modules.json")
    if not isinstance(modules, list):
        return None, False
    paths = {module["type"].rsplit(".", 1)[-1]: module["path"] for module in modules}
    config = _read(directory / paths.get("Pooling", "1_Pooling") / "config.json")
    pooling: Pooling | None = None
    if isinstance(config, dict):
        if config.get("pooling_mode_cls_token") or config.get("pooling_mode") == "cls":
            pooling = "cls"
        elif config.get("pooling_mode_mean_tokens") or config.get("pooling_mode") == "mean":
            pooling = "mean"
    return pooling, "Normalize" in paths


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
