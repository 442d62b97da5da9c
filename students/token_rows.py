"""Texts as rows of token ids, and model inputs made from them: special tokens added, truncated and padded on the right.

Each text is tokenised once, without special tokens, into a token store or in memory; a batch gathers rows of ids.
`Frame.of` compares the result with a call of the tokenizer, so both give the same inputs.

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
    """N texts, given as rows of tokenised texts; a row may occur several times."""

    texts: TokenizedTexts
    rows: NDArray[np.integer]
    """(N,) row numbers in `texts`."""

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, texts: Sequence[str], prompt: str = "") -> Self:
        """Tokenise texts in memory, each after the prompt."""
        starts = range(0, len(texts), CHUNK_TEXTS)
        chunks = (tokenise(tokenizer, texts[start : start + CHUNK_TEXTS], prompt) for start in starts)
        return cls(TokenizedTexts.concatenate(chunks), np.arange(len(texts)))

    def take(self, chosen: NDArray[np.integer]) -> TextRows:
        """The chosen rows, by number (any shape (n,))."""
        return TextRows(self.texts, self.rows[chosen])


@dataclass(frozen=True)
class Frame:
    """The special tokens before and after a text, and the length limit of both together."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    limit: int
    """Maximum number of tokens, special tokens included."""
    pad_id: int

    @classmethod
    def of(cls, tokenizer: PreTrainedTokenizerBase, limit: int) -> Self:
        """The frame that the tokenizer puts around a single text.

        Texts are padded on the right whichever side the tokenizer pads: padding is not attended to.

        Raises:
            ModelError: the tokenizer does not truncate on the right, adds tokens inside the text, or gives token types.
        """
        ids, bare = (tokenizer("a b", add_special_tokens=special)["input_ids"] for special in (True, False))
        kinds = "token_type_ids" in tokenizer.model_input_names and tokenizer("a b")["token_type_ids"]
        if kinds and any(kinds):
            raise ModelError(
                "this tokenizer gives the tokens of a single text several token types", where=type(tokenizer).__name__,
                expected="0 for all of them", found=kinds, todo="name a checkpoint with another tokenizer",
            )  # fmt: skip
        start = next((i for i in range(len(ids)) if ids[i : i + len(bare)] == bare), None)
        pad_id = tokenizer.pad_token_id
        if start is not None and pad_id is not None and tokenizer.is_fast:
            frame = cls(tuple(ids[:start]), tuple(ids[start + len(bare) :]), limit, pad_id)
            call = tokenizer(list(_PROBES), truncation=True, max_length=limit)
            ours, lengths = frame.padded(TextRows.of(tokenizer, _PROBES)), map(len, call["input_ids"])
            rows = [ids[:length] for ids, length in zip(ours["input_ids"].tolist(), lengths, strict=True)]
            types = [kind for kinds in call.get("token_type_ids", []) for kind in kinds]
            if rows == call["input_ids"] and frame.lengths(TextRows.of(tokenizer, _PROBES)).tolist() == [
                len(ids) for ids in call["input_ids"]
            ]:
                if any(types):  # which students do not pass on
                    raise ModelError("token types of a single text", where=type(tokenizer).__name__, expected="zeros")
                return frame
        raise ModelError(
            "this tokenizer's inputs cannot be assembled from token ids",
            where=type(tokenizer).__name__,
            expected="a fast tokenizer that cuts and pads on the right",
            todo="name a checkpoint with such a tokenizer",
        )

    def lengths(self, texts: TextRows) -> NDArray[np.int64]:
        """Number of tokens (N,) of each text in the model's input, without padding."""
        specials = len(self.before) + len(self.after)
        return np.minimum(texts.texts.lengths(texts.rows), self.limit - specials) + specials

    def padded(self, texts: TextRows, width: int | None = None) -> dict[str, Tensor]:
        """`input_ids` and `attention_mask` (N, T); T is `width`, or the longest text's length."""
        before, after = len(self.before), len(self.after)
        lengths = self.lengths(texts)
        width = int(lengths.max(initial=before + after)) if width is None else width
        position = np.arange(width)
        ids = np.full((len(lengths), width), self.pad_id, np.int64)
        inside = (position >= before) & (position < (lengths - after)[:, None])
        source = (texts.texts.offsets[texts.rows] - before)[:, None] + position
        ids[inside] = texts.texts.ids[source[inside]]
        ids[:, :before] = self.before
        for step, special in enumerate(self.after):
            ids[np.arange(len(lengths)), lengths - after + step] = special
        mask = (position < lengths[:, None]).astype(np.int64)
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
