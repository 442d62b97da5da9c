"""Pairs inside a prompt, as token ids: cut where the library cuts them, with the prompt's end always kept.

In: texts, a tokenizer and its prompt. Out: the length of every pair, the length of the part that it shares with the
other pairs of its query, and batches assembled on demand. A pair is [everything before the passage][passage][end]. What
exceeds the limit is cut before the end: first the passage, then, for a query beyond the limit, what is before it.
sentence-transformers cuts at the same token: it truncates the whole string, then writes the end over the last tokens.

Shapes: N pairs, B rows of a batch, T tokens.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from transformers import PreTrainedTokenizerBase

from pipeline.errors import UsageError
from pipeline.tokens.pairs import TokenBatch
from teachers.scorer import Pairs
from teachers.tokens.pair_prompt import Int32, PairPrompt, PromptParts, find_seams, whole_ids

log = logging.getLogger(__name__)
_PAIRS_AT_ONCE = 4096
# Those of sentence-transformers (Transformer._chat_template_suffix_ids), so that the same end is found.
_FILLERS = ("0", "1 2 3 4")


class PromptedPairs:
    """N pairs as ids; implements `teachers.tokens.pair_tokenizer.EncodedPairs`."""

    def __init__(
        self,
        heads: Sequence[Int32],
        tails: Sequence[Int32],
        head: NDArray[np.integer],
        tail: NDArray[np.integer],
        after: Int32,
        max_length_tokens: int,
    ) -> None:
        """Lay out pairs.

        Args:
            heads: ids before the passage, shared by pairs of a query.
            tails: ids of passages.
            head: (N,) row in `heads`.
            tail: (N,) row in `tails`.
            after: ids of the prompt's end.
            max_length_tokens: limit of a pair, the end included.
        """
        self._heads, self._tails, self._after = heads, tails, after
        self._head, self._tail = np.asarray(head, np.int64), np.asarray(tail, np.int64)
        room = max_length_tokens - len(after)
        heads_n, tails_n = (np.array([len(ids) for ids in texts], np.int64) for texts in (heads, tails))
        self._head_kept = np.minimum(heads_n[self._head], room)
        self._tail_kept = np.minimum(tails_n[self._tail], room - self._head_kept)
        self.lengths = self._head_kept + self._tail_kept + len(after)
        """(N,) tokens."""
        self.prefix_lengths = np.minimum(self._head_kept, self.lengths - 1)
        """(N,) tokens before the passage; at least one token is not among them."""
        _, numbers = np.unique(np.stack([self._head, self.prefix_lengths]), axis=1, return_inverse=True)
        self.prefix: NDArray[np.int64] = numbers.reshape(-1)
        """(N,) number of the prefix: pairs with equal numbers share it."""

    def prefix_ids(self, row: int) -> Int32:
        """Ids of the prefix of pair `row`."""
        head: Int32 = self._heads[self._head[row]]
        return head[: self.prefix_lengths[row]]

    def assemble(
        self, rows: NDArray[np.integer], width: int | None = None, *, without_prefix: bool = False
    ) -> TokenBatch:
        """The pairs of `rows` (B,), padded on the right; `without_prefix` leaves their prefixes out."""
        first = self.prefix_lengths[rows] if without_prefix else np.zeros(len(rows), np.int64)
        lengths = self.lengths[rows] - first
        width = int(lengths.max()) if width is None else width
        ids = np.zeros((len(rows), width), np.int64)
        for line, row, start, length in zip(ids, rows, first, lengths, strict=True):
            head = self._heads[self._head[row]][start : self._head_kept[row]]
            line[:length] = np.concatenate([head, self._tails[self._tail[row]][: self._tail_kept[row]], self._after])
        inside = np.arange(width) < lengths[:, None]
        return TokenBatch(ids, None, None if inside.all() else inside.astype(np.int64))


class PromptTokenizer:
    """A tokenizer with a prompt and a limit."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, prompt: PairPrompt, max_length_tokens: int) -> None:
        """Look for seams.

        Raises:
            UsageError: the limit leaves no room for the prompt.
        """
        self._tokenizer, self.prompt, self._limit = tokenizer, prompt, max_length_tokens
        seams = find_seams(tokenizer, prompt)
        self._parts = None if seams is None else PromptParts(tokenizer, prompt, seams)
        self._after = self._end()
        fixed = len(whole_ids(tokenizer, [prompt.fill("", "")])[0])
        if max_length_tokens < fixed + 2:
            raise UsageError(
                "max_length_tokens leaves no room for query and passage",
                expected=f"{fixed + 2} or more: the prompt has {fixed} tokens",
                found=max_length_tokens,
            )
        if self._parts is None:
            log.warning("%s: tokens may span the seams of the prompt; tokenising whole prompts", self.name)

    assembles = False
    """Texts are tokenised with what is beside them in the prompt, so stored tokens of bare texts cannot be used."""

    @property
    def name(self) -> str:
        """The tokenizer's class."""
        return type(self._tokenizer).__name__

    def text(self, ids: NDArray[np.int64]) -> str:
        """The text of ids (T,), special tokens included."""
        return str(self._tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False))

    def encode(self, pairs: Pairs) -> PromptedPairs:
        """The tokens of pairs (N,)."""
        if self._parts is not None:
            heads, passages = self._parts.heads(pairs.queries), self._parts.passages(pairs.passages)
            return PromptedPairs(heads, passages, pairs.query, pairs.passage, self._after, self._limit)
        return self._whole(pairs)

    def assembled(self, *texts: object) -> PromptedPairs:
        """Not possible; see `assembles`."""
        raise NotImplementedError

    def _whole(self, pairs: Pairs) -> PromptedPairs:
        """Tokenise every prompt as a whole; pairs of a query share the tokens that all of them begin with."""
        whole: list[Int32] = []
        for start in range(0, len(pairs.query), _PAIRS_AT_ONCE):
            rows = range(start, min(start + _PAIRS_AT_ONCE, len(pairs.query)))
            texts = [self.prompt.fill(pairs.queries[pairs.query[i]], pairs.passages[pairs.passage[i]]) for i in rows]
            whole += map(self._cut, whole_ids(self._tokenizer, texts))
        shared: dict[int, Int32] = {}
        for query, ids in zip(pairs.query.tolist(), whole, strict=True):
            shared[query] = _common(shared[query], ids) if query in shared else ids[:-1]
        numbers = {query: number for number, query in enumerate(shared)}
        head = np.array([numbers[query] for query in pairs.query.tolist()], np.int64)
        tails = [ids[len(shared[query]) :] for query, ids in zip(pairs.query.tolist(), whole, strict=True)]
        end = np.empty(0, np.int32)
        return PromptedPairs(list(shared.values()), tails, head, np.arange(len(tails)), end, self._limit)

    def _cut(self, ids: Int32) -> Int32:
        """A whole prompt under the limit, with its end written over the last tokens where it was cut."""
        if len(ids) < self._limit:
            return ids
        return np.concatenate([ids[: self._limit - len(self._after)], self._after])

    def _end(self) -> Int32:
        """The ids that every prompt ends with: what two prompts of different texts have in common."""
        if self._parts is not None:
            return self._parts.after
        first, second = (whole_ids(self._tokenizer, [self.prompt.fill(text, text)])[0][::-1] for text in _FILLERS)
        return _common(first, second)[::-1]


def _common(one: Int32, other: Int32) -> Int32:
    """What two arrays begin with alike."""
    length = min(len(one), len(other) - 1)  # one token at least is left of each
    differ = np.flatnonzero(one[:length] != other[:length])
    return one[: int(differ[0]) if len(differ) else length]
