"""From texts to token batches: each text is tokenised once, a pair is put together from ids.

In: pairs over unique texts. Out: their token lengths, and batches assembled on demand. The tokenizer's own
pair call on two single strings is the definition; at loading, our assembly is compared with it on pairs of
many lengths, and where they differ (a left-truncating or slow tokenizer, an unknown template) every pair goes
through the call itself, slower and with a warning.

Shapes: N pairs.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import product
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from transformers import BatchEncoding, PreTrainedTokenizerBase

from pipeline.errors import InputError, UsageError
from pipeline.tokens.pairs import Layout, PairTemplate, PairTokens, TokenBatch, TokenizedTexts
from pipeline.tokens.truncation import Truncation
from teachers.scorer import Pairs
from teachers.tokens.called_pairs import CalledPairs
from teachers.tokens.text_tokens import CHUNK_TEXTS, tokenise

log = logging.getLogger(__name__)


class EncodedPairs(Protocol):
    """N pairs as tokens."""

    lengths: NDArray[np.int64]
    """(N,) tokens, special ones included."""

    def assemble(self, rows: NDArray[np.integer], width: int | None = None) -> TokenBatch:
        """The pairs of `rows` (B,), padded on the right to `width` or their longest."""
        ...


class PairTokenizer:
    """A tokenizer with a limit, a truncation rule, and token types or none."""

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        with_types: bool,
        max_length_tokens: int,
        truncation: Truncation,
    ) -> None:
        self._tokenizer, self._with_types = tokenizer, with_types
        self._max_length_tokens, self._truncation = max_length_tokens, truncation
        self.can_pad = tokenizer.padding_side == "right" and tokenizer.pad_token_id is not None
        """Whether rows of different lengths may share a batch."""
        specials = tokenizer.num_special_tokens_to_add(pair=True)
        if max_length_tokens < specials + 2:
            raise UsageError(
                "max_length_tokens leaves no room for text",
                expected=f"{specials + 2} or more: {specials} special tokens, a query and a passage",
                found=max_length_tokens,
            )
        self._template = template_of(tokenizer, with_types) if tokenizer.is_fast else None
        if self._template is not None and not self._agrees():
            self._template = None
        if self._template is None:
            log.warning(
                "%s: pairs cannot be put together from separate texts as this tokenizer does it; "
                "calling it for every pair, which is slower",
                type(tokenizer).__name__,
            )

    @property
    def assembles(self) -> bool:
        """Whether each text is tokenised once, rather than once per pair."""
        return self._template is not None

    @property
    def name(self) -> str:
        """The tokenizer's class."""
        return type(self._tokenizer).__name__

    def text(self, ids: NDArray[np.int64]) -> str:
        """The text of ids (T,), special tokens included."""
        return str(self._tokenizer.decode(ids.tolist(), clean_up_tokenization_spaces=False))

    def encode(self, pairs: Pairs) -> EncodedPairs:
        """Tokenise the texts of `pairs`.

        Raises:
            InputError: truncation only_second, and a query that leaves no room for its passage.
        """
        if self._template is None:
            return self._called(pairs)
        return self.assembled(self._tokenise(pairs.queries), self._tokenise(pairs.passages), pairs.query, pairs.passage)

    def assembled(
        self,
        queries: TokenizedTexts,
        passages: TokenizedTexts,
        query: NDArray[np.integer],
        passage: NDArray[np.integer],
    ) -> PairTokens:
        """Pairs (N,) of rows of texts that were tokenised before; only for a tokenizer that `assembles`.

        Raises:
            InputError: as in `encode`.
        """
        assert self._template is not None
        limits = self._max_length_tokens, self._truncation
        return PairTokens(queries, passages, query, passage, self._template, *limits)

    def _tokenise(self, texts: Sequence[str]) -> TokenizedTexts:
        starts = range(0, len(texts), CHUNK_TEXTS)
        return TokenizedTexts.concatenate(
            tokenise(self._tokenizer, texts[start : start + CHUNK_TEXTS]) for start in starts
        )

    def _called(self, pairs: Pairs) -> CalledPairs:
        return CalledPairs(
            self._tokenizer,
            pairs,
            with_types=self._with_types,
            max_length_tokens=self._max_length_tokens,
            truncation=self._truncation,
        )

    def _agrees(self) -> bool:
        """Compare with the tokenizer's own call: short, long, blank and empty texts on either side."""
        long = self._max_length_tokens
        queries = ["", "what", "Why [x]?"]
        passages = ["", " ", "It is [a] thing.", "tea " * (long // 2), "one-two three " * long]
        if self._truncation == "longest_first":
            queries += ["Zürich x1 " * 9, "how long " * (long // 3), "when " * long]
        query, passage = zip(*product(range(len(queries)), range(len(passages))), strict=True)
        probes = Pairs(queries, passages, np.array(query, np.int32), np.array(passage, np.int32))
        try:
            ours, theirs = self.encode(probes), self._called(probes)
        except InputError:
            return False
        rows = np.arange(len(query))
        return np.array_equal(ours.lengths, theirs.lengths) and all(
            _equal(ours.assemble(rows[i : i + 1]), theirs.assemble(rows[i : i + 1])) for i in rows
        )


def template_of(tokenizer: PreTrainedTokenizerBase, with_types: bool) -> PairTemplate | None:
    """How a fast tokenizer lays out a pair and a single text; None if not as query before passage."""
    pair = _layout(tokenizer("a b", "c d", return_token_type_ids=True))
    single = _layout(tokenizer("a b", return_token_type_ids=True))
    if pair is None or single is None:
        return None
    return PairTemplate(pair, single, tokenizer.pad_token_id or 0, with_types)


def _layout(call: BatchEncoding) -> Layout | None:
    """Cut one encoding by its sides: query (0), passage (1), special tokens (None) around them."""
    sides = np.array([-1 if side is None else side for side in call.sequence_ids(0)])
    query, passage = np.flatnonzero(sides == 0), np.flatnonzero(sides == 1)
    if not query.size:
        return None
    start, stop = int(query[0]), int(query[-1]) + 1
    second, end = (int(passage[0]), int(passage[-1]) + 1) if passage.size else (stop, stop)
    spans = [slice(0, start), slice(start, stop), slice(stop, second), slice(second, end), slice(end, None)]
    ids, kinds = call["input_ids"], [set(call["token_type_ids"][span]) for span in spans]
    if second < stop or any(len(kind) > 1 for kind in kinds):
        return None
    before, _, between, _, after = (tuple(ids[span]) for span in spans)
    first, second_, third, fourth, fifth = (next(iter(kind), 0) for kind in kinds)
    return Layout(before, between, after, (first, second_, third, fourth, fifth))


def _equal(one: TokenBatch, other: TokenBatch) -> bool:
    return all(
        (a is None and b is None) or (a is not None and b is not None and np.array_equal(a, b))
        for a, b in zip(one, other, strict=True)
    )
