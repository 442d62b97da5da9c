"""Pairs tokenised one by one through the tokenizer's own pair call: slow, and the definition of right.

Stands in for `pipeline.tokens.pairs.PairTokens` where a tokenizer builds pairs in a way of its own.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from pipeline.errors import InputError
from pipeline.tokens.pairs import TokenBatch
from pipeline.tokens.truncation import Truncation
from teachers.scorer import Pairs


class CalledPairs:
    """N encoded pairs, kept as NumPy arrays."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        pairs: Pairs,
        *,
        with_types: bool,
        max_length_tokens: int,
        truncation: Truncation,
    ) -> None:
        """Tokenise every pair.

        Raises:
            InputError: truncation only_second, and a query that leaves no room for its passage.
        """
        self._ids: list[NDArray[np.int32]] = []
        self._types: list[NDArray[np.int32]] = []
        self._with_types = with_types
        self._pad_id = tokenizer.pad_token_id or 0
        for number, (query, passage) in enumerate(zip(pairs.query, pairs.passage, strict=True)):
            ids, types = _call(
                tokenizer,
                pairs.queries[query],
                pairs.passages[passage],
                with_types,
                max_length_tokens,
                truncation,
            )
            if len(ids) > max_length_tokens:
                raise InputError(
                    f"truncation {truncation}: the query leaves no room for its passage",
                    where=f"pair {number} (from 0)",
                    expected=f"{max_length_tokens} tokens at most",
                    found=f"{len(ids)} tokens",
                    todo="truncate longest_first, raise the maximum length, or shorten the query",
                )
            self._ids.append(np.array(ids, np.int32))
            self._types.append(np.array(types, np.int32))
        self.lengths = np.array([len(ids) for ids in self._ids], np.int64)
        """(N,) tokens, special ones included."""

    def assemble(self, rows: NDArray[np.integer], width: int | None = None) -> TokenBatch:
        """The pairs of `rows` (B,), padded on the right to `width` tokens (their longest, if not given)."""
        lengths = self.lengths[rows]
        width = int(lengths.max()) if width is None else width
        inside = np.arange(width) < lengths[:, None]
        ids = np.full(inside.shape, self._pad_id, np.int64)
        ids[inside] = np.concatenate([self._ids[row] for row in rows])
        types = np.zeros_like(ids) if self._with_types else None
        if types is not None:
            types[inside] = np.concatenate([self._types[row] for row in rows])
        return TokenBatch(ids, types, None if inside.all() else inside.astype(np.int64))


def _call(
    tokenizer: PreTrainedTokenizerBase,
    query: str,
    passage: str,
    with_types: bool,
    max_length_tokens: int,
    truncation: Truncation,
) -> tuple[list[int], list[int]]:
    call = {"truncation": truncation, "max_length": max_length_tokens, "return_token_type_ids": with_types}
    try:
        encoding = tokenizer(query, passage, **call)
    except Exception as error:  # the tokenizers library raises nothing more specific
        if truncation != "only_second":
            raise
        # Left whole, so that the caller sees that it is too long.
        encoding = tokenizer(query, passage, return_token_type_ids=with_types, verbose=False)
        if len(encoding["input_ids"]) <= max_length_tokens:
            raise error
    return encoding["input_ids"], encoding["token_type_ids"] if with_types else []
