"""Prompts: read from chat templates, and tokenised in parts as the whole string is."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.errors import ModelError, UsageError
from teachers.scorer import Pairs
from teachers.tokens.pair_prompt import Seams, find_seams, read_prompt
from teachers.tokens.prompted_pairs import PromptTokenizer
from tests.tiny_decoders import MXBAI_TEMPLATE, QWEN3_TEMPLATE, decoder_tokenizer

TEXTS = st.text(
    st.sampled_from("ab Z7?!.,:\n\t()<>|'é水🙂\u0301_-") | st.characters(exclude_categories=["Cs"]), max_size=12
)


def tokenizer_with(template, words=True):
    tokenizer = decoder_tokenizer(words)
    tokenizer.chat_template = template
    return tokenizer


QWEN = tokenizer_with(QWEN3_TEMPLATE)
SEAMED = PromptTokenizer(QWEN, read_prompt(QWEN, None), 400)
MERGING = PromptTokenizer(
    tokenizer_with(MXBAI_TEMPLATE, words=False), read_prompt(tokenizer_with(MXBAI_TEMPLATE), None), 400
)


def ids_of(encoded, row):
    batch = encoded.assemble(np.array([row]))
    return batch.input_ids[0]


@settings(max_examples=300)
@given(TEXTS, TEXTS)
def test_parts_are_the_whole(query, passage):
    encoded = SEAMED.encode(Pairs([query], [passage], np.zeros(1, np.int32), np.zeros(1, np.int32)))
    messages = [{"role": "query", "content": query}, {"role": "document", "content": passage}]
    expected = QWEN.apply_chat_template(messages, tokenize=True, return_dict=True)["input_ids"]
    assert ids_of(encoded, 0).tolist() == expected


def test_seams_are_found_where_words_are_cut_first():
    assert find_seams(QWEN, SEAMED.prompt) == Seams(1, 1, 1)
    assert find_seams(tokenizer_with(QWEN3_TEMPLATE, words=False), SEAMED.prompt) is None


@pytest.mark.parametrize("made", [SEAMED, MERGING])
def test_only_the_end_is_never_cut(made):
    long = ["word " * 500, "short"]
    encoded = made.encode(Pairs(long, long, np.array([0, 0, 1, 1], np.int32), np.array([0, 1, 0, 1], np.int32)))
    assert encoded.lengths.tolist()[:3] == [400, 400, 400]
    end = ids_of(encoded, 3)[-3:].tolist()
    for row in range(3):
        assert ids_of(encoded, row)[-3:].tolist() == end
    prefix = encoded.prefix_lengths[2]
    assert ids_of(encoded, 2)[:prefix].tolist() == ids_of(encoded, 3)[:prefix].tolist()


def test_an_instruction_reaches_the_prompt():
    assert "Find code\n" in read_prompt(QWEN, "Find code").before
    assert "Given a web search query" in read_prompt(QWEN, None).before


def test_a_limit_that_the_prompt_fills_is_refused():
    with pytest.raises(UsageError, match="the prompt has"):
        PromptTokenizer(QWEN, SEAMED.prompt, 20)


QUERY, PASSAGE = "{{ messages[-2].content }}", "{{ messages[-1].content }}"


@pytest.mark.parametrize(
    ("template", "message"),
    [
        (QUERY + " and " + QUERY + PASSAGE, "once"),
        (PASSAGE + QUERY, "once"),
        ("{{ messages[-2].content }}", "once"),
        ("{{ messages[-2].content | trim }}:" + PASSAGE + "!", "changes the texts"),
        ("{{ raise_exception('roles') }}", "cannot render"),
    ],
)
def test_templates_that_are_no_frame_around_two_texts_are_refused(template, message):
    with pytest.raises(ModelError, match=message):
        read_prompt(tokenizer_with(template), None)
