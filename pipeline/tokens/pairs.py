"""Pairs of token ids, laid out and truncated as a tokenizer's pair call does it.

Input: token ids of queries and passages, each tokenised once and without special tokens; two row numbers for each pair;
a `PairTemplate`; a limit in tokens. Output: the length of every pair in tokens, computed without assembling the pairs,
and rectangular batches of selected rows. Works on ids, without a tokenizer. NumPy only.

The call it reproduces is `tokenizer(query, passage, truncation=..., max_length=...)` on two single strings,
which treats an empty passage as absent: `[CLS] query [SEP]`.

Shapes: N pairs, B rows of a batch, T tokens.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import InputError
from pipeline.tokens.truncation import Truncation

Int32 = NDArray[np.int32]
Int64 = NDArray[np.int64]
Bool = NDArray[np.bool_]


class TokenChunk(NamedTuple):
    """Token ids of consecutive texts."""

    ids: NDArray[np.integer]
    """(tokens,)"""
    lengths: Int64
    """(texts,)"""
    empty: Bool
    """(texts,)"""


class TokenizedTexts(NamedTuple):
    """Token ids of N texts, concatenated."""

    ids: NDArray[np.integer]
    """(total tokens,)"""
    offsets: Int64
    """(N + 1,): text i is `ids[offsets[i]:offsets[i + 1]]`."""
    empty: Bool
    """(N,): the text is the empty string. A text of blanks has no tokens either, but is not empty."""

    def lengths(self, rows: NDArray[np.integer]) -> Int64:
        """Numbers of tokens (B,) of the texts `rows` (B,)."""
        start = np.asarray(rows, np.int64)
        return np.asarray(self.offsets[start + 1] - self.offsets[start])

    @classmethod
    def concatenate(cls, chunks: Iterable[TokenChunk]) -> TokenizedTexts:
        """Concatenate chunks in order."""
        ids, lengths, empty = [np.empty(0, np.int32)], [np.zeros(1, np.int64)], [np.empty(0, np.bool_)]
        for chunk in chunks:
            ids.append(chunk.ids.astype(np.int32))
            lengths.append(chunk.lengths)
            empty.append(chunk.empty)
        return cls(np.concatenate(ids), np.cumsum(np.concatenate(lengths)), np.concatenate(empty))


class Layout(NamedTuple):
    """Special ids before, between and after the two texts, and the token type of each segment."""

    before: tuple[int, ...]
    between: tuple[int, ...]
    after: tuple[int, ...]
    types: tuple[int, int, int, int, int]
    """Token types of before, query, between, passage, after."""

    @property
    def specials(self) -> int:
        """Number of special tokens."""
        return len(self.before) + len(self.between) + len(self.after)


class PairTemplate(NamedTuple):
    """How a tokenizer lays out a pair, and a query without a passage."""

    pair: Layout
    single: Layout
    """`between` is empty; the token types of between and passage are not used."""
    pad_id: int
    with_types: bool
    """Whether batches carry token types."""


def kept_lengths(
    queries: Int64,
    passages: Int64,
    single: Bool,
    template: PairTemplate,
    max_length_tokens: int,
    rule: Truncation,
) -> tuple[Int64, Int64]:
    """Numbers of tokens that truncation keeps of each query and each passage, (N,) and (N,), from their full lengths.

    `single` (N,) marks pairs without a passage, whose length is 0.

    `longest_first` and `only_second` are those of the `tokenizers` library (`utils/truncation.rs`), which
    shortens to halves when both texts are longer than half the budget, and lets `only_second` fail rather
    than drop a whole passage.

    Raises:
        InputError: the rule is `only_second`, and a query leaves no room for its passage.
    """
    budget = max_length_tokens - np.where(single, template.single.specials, template.pair.specials)
    over = queries + passages - budget
    if rule == "only_second":
        stuck = np.flatnonzero((over > 0) & (single | (passages <= over)))
        if stuck.size:
            first = stuck[0]
            raise InputError(
                "truncation only_second: the query leaves no room for its passage",
                where=f"pair {first} (from 0), and {stuck.size - 1} more",
                expected=f"a query of at most {budget[first] - (not single[first])} tokens",
                found=f"{queries[first]} tokens",
                todo="truncate longest_first, raise the maximum length, or shorten the query",
            )
        return queries, passages - np.maximum(over, 0)
    short, long = np.minimum(queries, passages), np.maximum(queries, passages)
    long = np.where(short > budget, short, np.maximum(short, budget - short))
    halve = short + long > budget
    short = np.where(halve, budget // 2, short)
    long = np.where(halve, budget // 2 + budget % 2, long)
    swap = queries > passages
    kept_query, kept_passage = np.where(swap, long, short), np.where(swap, short, long)
    return np.where(over > 0, kept_query, queries), np.where(over > 0, kept_passage, passages)


class TokenBatch(NamedTuple):
    """The input of a model."""

    input_ids: Int64
    """(B, T)"""
    token_type_ids: Int64 | None
    """(B, T), or None if the template has no token types."""
    attention_mask: Int64 | None
    """(B, T), 1 for a token and 0 for padding; None when nothing is padded."""


@dataclass(frozen=True)
class _Part:
    """One segment of every row: its start and its length, (B,) each."""

    start: Int64
    length: Int64

    @property
    def end(self) -> Int64:
        return self.start + self.length


class PairTokens:
    """N pairs, truncated but not assembled."""

    def __init__(
        self,
        queries: TokenizedTexts,
        passages: TokenizedTexts,
        query: NDArray[np.integer],
        passage: NDArray[np.integer],
        template: PairTemplate,
        max_length_tokens: int,
        truncation: Truncation,
    ) -> None:
        """`query` and `passage` (N,) are row numbers in `queries` and `passages`.

        Raises:
            InputError: as in `kept_lengths`.
        """
        self._queries, self._passages, self._template = queries, passages, template
        self._query, self._passage = query, passage
        self._single: Bool = passages.empty[passage]
        self._kept = kept_lengths(
            queries.lengths(query),
            passages.lengths(passage),
            self._single,
            template,
            max_length_tokens,
            truncation,
        )
        specials = np.where(self._single, template.single.specials, template.pair.specials)
        self.lengths: Int64 = self._kept[0] + self._kept[1] + specials
        """(N,) tokens, special ones included."""

    def assemble(self, rows: NDArray[np.integer], width: int | None = None) -> TokenBatch:
        """Assemble the pairs `rows` (B,), padded on the right to `width` tokens (default: the longest of them)."""
        lengths = self.lengths[rows]
        width = int(lengths.max()) if width is None else width
        position = np.arange(width)
        ids = np.full((len(rows), width), self._template.pad_id, np.int64)
        types = np.zeros_like(ids) if self._template.with_types else None
        single = self._single[rows]
        if not single.any():
            self._fill(rows, self._template.pair, position, ids, types)
        else:
            for layout, chosen in ((self._template.pair, ~single), (self._template.single, single)):
                some_ids, some_types = ids[chosen], None if types is None else types[chosen]
                self._fill(rows[chosen], layout, position, some_ids, some_types)
                ids[chosen] = some_ids
                if types is not None and some_types is not None:
                    types[chosen] = some_types
        mask = None
        if (lengths != width).any():
            mask = (position < lengths[:, None]).astype(np.int64)
        return TokenBatch(ids, types, mask)

    def _fill(
        self, rows: NDArray[np.integer], layout: Layout, position: Int64, ids: Int64, types: Int64 | None
    ) -> None:
        """Write rows of one layout into `ids` and `types`, (B, T) each."""
        before = _Part(np.zeros(len(rows), np.int64), np.full(len(rows), len(layout.before)))
        query = _Part(before.end, self._kept[0][rows])
        between = _Part(query.end, np.full(len(rows), len(layout.between)))
        passage = _Part(between.end, self._kept[1][rows])
        after = _Part(passage.end, np.full(len(rows), len(layout.after)))
        for part, texts, which in (
            (query, self._queries, self._query),
            (passage, self._passages, self._passage),
        ):
            inside = (position >= part.start[:, None]) & (position < part.end[:, None])
            source = (texts.offsets[which[rows]] - part.start)[:, None] + position
            ids[inside] = texts.ids[source[inside]]
        line = np.arange(len(rows))
        for part, specials in ((before, layout.before), (between, layout.between), (after, layout.after)):
            for step, special in enumerate(specials):
                ids[line, part.start + step] = special
        if types is not None:
            for part, token_type in zip((before, query, between, passage, after), layout.types, strict=True):
                if token_type:
                    types[(position >= part.start[:, None]) & (position < part.end[:, None])] = token_type
