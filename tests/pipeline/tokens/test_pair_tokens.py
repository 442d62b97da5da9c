"""Pair assembly against the tokenizers' own pair call on single strings."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerBase

from pipeline.errors import InputError
from pipeline.tokens.pairs import PairTokens, TokenChunk, TokenizedTexts
from pipeline.tokens.truncation import Truncation
from teachers.tokens import text_tokens
from teachers.tokens.pair_tokenizer import template_of
from tests.tiny_models import Kind, sample_texts, tiny_tokenizer

FAMILIES: tuple[Kind, ...] = ("bert", "albert", "roberta")

words = st.sampled_from([*" ".join(sample_texts(20)).split(), "[SEP]", "<s>", "[PAD]", "ﬁn", "日本", "ß", "..."])
texts = st.one_of(st.lists(words, max_size=40).map(" ".join), st.text(max_size=12), st.sampled_from(["", " "]))
pairs = st.lists(st.tuples(texts, texts), min_size=1, max_size=6)


@cache
def tokenizer_of(kind: Kind) -> PreTrainedTokenizerBase:
    return tiny_tokenizer(kind)


def tokenise(tokenizer: PreTrainedTokenizerBase, column: list[str]) -> TokenizedTexts:
    return TokenizedTexts.concatenate([text_tokens.tokenise(tokenizer, column)])


def assembled(
    tokenizer: PreTrainedTokenizerBase, rows: list[tuple[str, str]], limit: int, rule: Truncation
) -> PairTokens:
    template = template_of(tokenizer, with_types=True)
    assert template is not None
    queries, passages = (tokenise(tokenizer, list(column)) for column in zip(*rows, strict=True))
    index = np.arange(len(rows))
    return PairTokens(queries, passages, index, index, template, limit, rule)


def check(kind: Kind, rows: list[tuple[str, str]], limit: int, rule: Truncation) -> None:
    tokenizer = tokenizer_of(kind)
    calls = []
    for query, passage in rows:
        try:
            calls.append(tokenizer(query, passage, truncation=rule, max_length=limit, return_token_type_ids=True))
        except Exception as error:
            assert "Truncation error" in str(error)
            with pytest.raises(InputError, match=f"pair {len(calls)} "):
                assembled(tokenizer, rows, limit, rule)
            return
    tokens = assembled(tokenizer, rows, limit, rule)
    assert tokens.lengths.tolist() == [len(call["input_ids"]) for call in calls]
    width = max(len(call["input_ids"]) for call in calls) + 1
    batch = tokens.assemble(np.arange(len(rows)), width)
    assert batch.token_type_ids is not None
    assert batch.attention_mask is not None
    for row, call in enumerate(calls):
        pad = width - len(call["input_ids"])
        assert batch.input_ids[row].tolist() == call["input_ids"] + [tokenizer.pad_token_id] * pad
        assert batch.token_type_ids[row].tolist() == call["token_type_ids"] + [0] * pad
        assert batch.attention_mask[row].tolist() == call["attention_mask"] + [0] * pad


@pytest.mark.parametrize("kind", FAMILIES)
@settings(max_examples=150)
@given(rows=pairs, limit=st.integers(6, 40), rule=st.sampled_from(["longest_first", "only_second"]))
@example(rows=[("", "")], limit=6, rule="longest_first")
@example(rows=[("ice " * 9, "")], limit=7, rule="longest_first")
@example(rows=[("ice " * 9, "")], limit=7, rule="only_second")
@example(rows=[("ice", "water"), ("ice " * 9, "water")], limit=7, rule="only_second")
@example(rows=[("ice " * 9, "water " * 8), ("ice " * 8, "water " * 9)], limit=12, rule="longest_first")
def test_assembly_is_the_tokenizers_pair_call(
    kind: Kind, rows: list[tuple[str, str]], limit: int, rule: Truncation
) -> None:
    check(kind, rows, limit, rule)


@pytest.mark.parametrize("rule", ["longest_first", "only_second"])
@pytest.mark.parametrize("kind", FAMILIES)
def test_every_combination_of_lengths_around_the_limit(kind: Kind, rule: Truncation) -> None:
    """Both texts from no token to more than the limit; odd and even budgets."""
    for limit in (11, 12):
        for query in range(14):
            for passage in range(14):
                check(kind, [("ice " * query, "ice " * passage)], limit, rule)


def test_rows_come_in_the_order_asked_for_and_without_padding_there_is_no_mask() -> None:
    tokenizer = tokenizer_of("bert")
    rows = [("ice", "water"), ("what is ice", "water"), ("steam", "metal")]
    tokens = assembled(tokenizer, rows, 20, "longest_first")
    batch = tokens.assemble(np.array([2, 0]))
    assert batch.input_ids.tolist() == [tokenizer(*rows[2])["input_ids"], tokenizer(*rows[0])["input_ids"]]
    assert batch.attention_mask is None
    assert tokens.assemble(np.array([1, 0])).attention_mask is not None


def test_texts_are_shared_between_pairs() -> None:
    tokenizer = tokenizer_of("roberta")
    template = template_of(tokenizer, with_types=False)
    assert template is not None
    queries, passages = tokenise(tokenizer, ["ice"]), tokenise(tokenizer, ["water", "steam rises"])
    tokens = PairTokens(queries, passages, np.array([0, 0, 0]), np.array([1, 0, 1]), template, 20, "longest_first")
    batch = tokens.assemble(np.array([0, 2]))
    assert batch.input_ids[0].tolist() == batch.input_ids[1].tolist()
    assert batch.input_ids[0].tolist() == tokenizer("ice", "steam rises")["input_ids"]
    assert batch.token_type_ids is None


def test_chunks_are_packed_as_one() -> None:
    parts = [TokenChunk(*map(np.array, part)) for part in (([1, 2], [2], [False]), ([3], [0, 1], [True, False]))]
    whole = TokenizedTexts.concatenate(parts)
    assert whole.ids.tolist() == [1, 2, 3] and whole.empty.tolist() == [False, True, False]
    assert whole.lengths(np.array([2, 0], np.int32)).tolist() == [1, 2]
    assert whole.offsets.tolist() == [0, 2, 2, 3]
    assert whole.ids.dtype == np.int32
    assert TokenizedTexts.concatenate([]).offsets.tolist() == [0]
