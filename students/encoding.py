"""A dense student at work: encoding texts, scoring pairs, exact search.

Texts run in batches of like length under a token budget. Implements `teachers.scorer.Scorer`, so that
evaluation and search need not know what scores.

Shapes: N texts or pairs, Q queries, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from pipeline.errors import ModelError
from pipeline.fingerprint import digest_json
from students.architectures.bert_dot import BertDot
from students.loading import load_bert_dot
from teachers.batching import plan_batches
from teachers.checkpoint import resolve
from teachers.device import DTYPES, batch_tokens, choose_device
from teachers.scorer import Pairs, Work
from teachers.settings import ScoringSettings

TEXTS_PER_CHUNK = 16_384
QUERIES_PER_BLOCK = 512
_INT32_MAX = 0x7FFF_FFFF
Ranked = tuple[NDArray[np.float32], NDArray[np.int64]]


class DenseScorer:
    """A loaded bi-encoder in eval mode."""

    def __init__(self, checkpoint: str, settings: ScoringSettings) -> None:
        self._student: BertDot = load_bert_dot(checkpoint)
        self._device = choose_device(settings)
        self._dtype = DTYPES[settings.dtype]
        self._budget = batch_tokens(settings, self._device)
        self._student.to(self._device).eval()
        shape = self._student.settings
        self.fingerprint = digest_json(
            [
                resolve(checkpoint).weights_hash,
                shape.max_query_tokens,
                shape.max_passage_tokens,
                settings.dtype,
            ]
        )

    def encode_queries(self, texts: Sequence[str], on_progress: Callable[[int], None] | None = None) -> torch.Tensor:
        """Vectors (N, D) float32 of queries."""
        return self._encode(texts, self._student.settings.max_query_tokens, on_progress)

    def encode_passages(self, texts: Sequence[str], on_progress: Callable[[int], None] | None = None) -> torch.Tensor:
        """Vectors (N, D) float32 of passages."""
        return self._encode(texts, self._student.settings.max_passage_tokens, on_progress)

    def score(self, pairs: Pairs, on_progress: Callable[[Work], None] | None = None) -> NDArray[np.float32]:
        """Dot products (N,) of the pairs; see `teachers.scorer.Scorer`."""
        queries, passages = self.encode_queries(pairs.queries), self.encode_passages(pairs.passages)
        scores = np.empty(len(pairs.query), np.float32)
        for start in range(0, len(scores), TEXTS_PER_CHUNK):
            rows = slice(start, start + TEXTS_PER_CHUNK)
            found = (queries[pairs.query[rows]] * passages[pairs.passage[rows]]).sum(-1)
            scores[rows] = found.numpy()
            if on_progress is not None:
                on_progress(Work(len(found)))
        return scores

    def search(
        self,
        queries: Sequence[str],
        passages: Iterable[Sequence[str]],
        k: int,
        on_progress: Callable[[int], None] | None = None,
    ) -> Ranked:
        """Exact top `k` over passages given in chunks, ids counted from 0: scores (Q, k) and ids (Q, k)."""
        vectors = self.encode_queries(queries)
        keys = torch.empty(len(vectors), 0, dtype=torch.int64)
        first = 0
        for chunk in passages:
            encoded = self.encode_passages(chunk)
            ids = torch.arange(first, first + len(chunk))
            blocks = zip(torch.split(vectors, QUERIES_PER_BLOCK), torch.split(keys, QUERIES_PER_BLOCK), strict=True)
            keys = torch.cat([_best(torch.cat([held, _keys(own @ encoded.T, ids)], dim=1), k) for own, held in blocks])
            first += len(chunk)
            if on_progress is not None:
                on_progress(len(chunk))
        return _unkey(keys)

    @torch.inference_mode()
    def _encode(
        self, texts: Sequence[str], max_length_tokens: int, on_progress: Callable[[int], None] | None
    ) -> torch.Tensor:
        tokens = self._student.tokenizer(list(texts), truncation=True, max_length=max_length_tokens)["input_ids"]
        lengths = np.array([len(row) for row in tokens])
        vectors = torch.empty(len(texts), 0)
        for rows in plan_batches(lengths, self._budget):
            batch = self._student.tokenizer.pad({"input_ids": [tokens[i] for i in rows]}, return_tensors="pt")
            with torch.autocast(self._device.type, self._dtype, enabled=self._dtype != torch.float32):
                found = self._student.encode(
                    batch["input_ids"].to(self._device), batch["attention_mask"].to(self._device)
                )
            if not vectors.shape[1]:
                vectors = torch.empty(len(texts), found.shape[1])
            vectors[rows] = found.float().cpu()
            if on_progress is not None:
                on_progress(len(rows))
        if not torch.isfinite(vectors).all():
            raise ModelError("vectors that are not finite", found="overflow in the encoder", todo="use float32")
        return vectors


def _keys(scores: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
    """Integers (Q, n) whose descending order is score descending, then id ascending: `torch.topk` has no tie rule."""
    bits = (scores + 0.0).view(torch.int32)  # adding 0 makes -0 and 0 one value
    ordered = bits ^ ((bits >> 31) & _INT32_MAX)
    return (ordered.long() << 32) | (_INT32_MAX - ids)


def _best(keys: torch.Tensor, k: int) -> torch.Tensor:
    return keys.topk(min(k, keys.shape[1]), dim=1).values


def _unkey(keys: torch.Tensor) -> Ranked:
    ordered = (keys >> 32).int()
    scores = (ordered ^ ((ordered >> 31) & _INT32_MAX)).view(torch.float32)
    return scores.numpy(), (_INT32_MAX - (keys & _INT32_MAX)).numpy()
