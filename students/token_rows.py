"""Texts as rows of token ids, and their way into a model: special tokens around them, cut and padded on the right.

Each text is tokenised once, without special tokens (a token store, or some texts on the spot); a batch is a
gather. `Frame.of` compares its result with the tokenizer's own call, so the rows are what the tokenizer would give.

Shapes: N texts, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from pipeline.errors import ModelError
from pipeline.tokens.pairs import TokenizedTexts
from teachers.tokens.text_tokens import CHUNK_TEXTS, tokenise

_PROBES = ("", " ", "what is [a] thing", "Zürich, one-two three! " * 40)


class Tokens(NamedTuple):
    """The token ids of all queries and all passages, by id."""

    queries: TokenizedTexts
    passages: TokenizedTexts


class TextRows(NamedTuple):
    """N texts, some twice if so wished."""

    texts: TokenizedTexts
    rows: NDArray[np.integer]
    """(N,) row numbers in `texts`."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str]) -> Self:
        """Texts tokenised here and now."""
        starts = range(0, len(texts), CHUNK_TEXTS)
        chunks = (tokenise(tokenizer, texts[start : start + CHUNK_TEXTS]) for start in starts)
        return cls(TokenizedTexts.concatenate(chunks), np.arange(len(texts)))

    def take(self, chosen: NDArray[np.integer]) -> TextRows:
        """Some of the rows."""
        return TextRows(self.texts, self.rows[chosen])


@dataclass(frozen=True)
class Frame:
    """What stands around a text, and how long the whole may be."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    limit: int
    """Most tokens, special ones included."""
    pad_id: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, limit: int) -> Self:
        """The frame that the tokenizer gives a single text.

        Raises:
            ModelError: the tokenizer does not cut and pad on the right, or puts no plain frame around a text.
        """
        ids, bare = (tokenizer("a b", add_special_tokens=special)["input_ids"] for special in (True, False))
        start = next((i for i in range(len(ids)) if ids[i : i + len(bare)] == bare), None)
        pad_id = tokenizer.pad_token_id
        if start is not None and pad_id is not None and tokenizer.is_fast:
            frame = cls(tuple(ids[:start]), tuple(ids[start + len(bare) :]), limit, pad_id)
            call = tokenizer(list(_PROBES), truncation=True, max_length=limit, padding=True, return_tensors="np")
            found = frame.padded(TextRows.of(tokenizer, _PROBES))
            if np.array_equal(found["input_ids"].numpy(), call["input_ids"]):
                return frame
        raise ModelError(
            "texts cannot be put together from token ids as this tokenizer does it",
            where=type(tokenizer).__name__,
            expected="a fast tokenizer that cuts and pads on the right",
            todo="name a checkpoint with such a tokenizer",
        )

    def lengths(self, texts: TextRows) -> NDArray[np.int64]:
        """Tokens (N,) of the texts as a model reads them, padding apart."""
        specials = len(self.before) + len(self.after)
        return np.minimum(texts.texts.lengths(texts.rows), self.limit - specials) + specials

    def padded(self, texts: TextRows, width: int | None = None) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask` (N, T); T is `width`, or the longest text's length."""
        before, after = len(self.before), len(self.after)
        lengths = self.lengths(texts)
        width = int(lengths.max(initial=before + after)) if width is None else width
        place = np.arange(width)
        ids = np.full((len(lengths), width), self.pad_id, np.int64)
        inside = (place >= before) & (place < (lengths - after)[:, None])
        source = (texts.texts.offsets[texts.rows] - before)[:, None] + place
        ids[inside] = texts.texts.ids[source[inside]]
        ids[:, :before] = self.before
        for step, special in enumerate(self.after):
            ids[np.arange(len(lengths)), lengths - after + step] = special
        mask = (place < lengths[:, None]).astype(np.int64)
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
