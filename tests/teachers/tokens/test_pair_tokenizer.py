from __future__ import annotations

import numpy as np
import pytest
from tokenizers.processors import TemplateProcessing
from transformers import CanineTokenizer, PreTrainedTokenizerBase

from pipeline.errors import InputError
from pipeline.tokens.truncation import Truncation
from teachers.scorer import pairs_of
from teachers.tokens.pair_tokenizer import PairTokenizer, template_of
from tests.tiny_models import sample_texts, tiny_tokenizer

ROWS = [
    *zip(sample_texts(20, longest=20), sample_texts(20, longest=20, seed=1), strict=True),
    ("ice", ""),
    ("", ""),
]


def passage_first() -> PreTrainedTokenizerBase:
    tokenizer = tiny_tokenizer("bert")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $B [SEP] $A [SEP]",
        special_tokens=[(name, tokenizer.convert_tokens_to_ids(name)) for name in ("[CLS]", "[SEP]")],
    )
    return tokenizer


def adds_prefix_to_passages() -> PreTrainedTokenizerBase:
    """Its pair cannot be told from its template: one query token more than the text has on its own."""
    tokenizer = tiny_tokenizer("bert")
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A:0 [SEP]:1 [SEP]:0 $B:1 [SEP]:1",
        special_tokens=[(name, tokenizer.convert_tokens_to_ids(name)) for name in ("[CLS]", "[SEP]")],
    )
    return tokenizer


@pytest.mark.parametrize("make", [passage_first, adds_prefix_to_passages, CanineTokenizer])
@pytest.mark.parametrize("truncation", ["longest_first", "only_second"])
def test_layouts_beyond_the_template_go_through_the_call(
    make: type[PreTrainedTokenizerBase], truncation: Truncation, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer = make()
    pairs = PairTokenizer(tokenizer, with_types=True, max_length_tokens=200, truncation=truncation)
    assert not pairs.assembles
    assert "calling it for every pair" in caplog.text
    encoded = pairs.encode(pairs_of(ROWS))
    batch = encoded.assemble(np.arange(len(ROWS)))
    assert batch.token_type_ids is not None
    for row, texts in enumerate(ROWS):
        call = tokenizer(*texts, truncation=truncation, max_length=200, return_token_type_ids=True)
        length = len(call["input_ids"])
        assert encoded.lengths[row] == length
        assert batch.input_ids[row, :length].tolist() == call["input_ids"]
        assert batch.token_type_ids[row, :length].tolist() == call["token_type_ids"]
        assert set(batch.input_ids[row, length:].tolist()) <= {tokenizer.pad_token_id or 0}


@pytest.mark.parametrize("make", [passage_first, CanineTokenizer])
def test_only_second_without_room_is_refused_through_the_call_too(
    make: type[PreTrainedTokenizerBase],
) -> None:
    pairs = PairTokenizer(make(), with_types=True, max_length_tokens=16, truncation="only_second")
    with pytest.raises(InputError, match=r"pair 1 \(from 0\)"):
        pairs.encode(pairs_of([("ice", "water"), ("ice " * 40, "water")]))


def test_an_ordinary_template_is_read_off_one_call() -> None:
    bert = template_of(tiny_tokenizer("bert"), with_types=True)
    assert bert is not None
    assert (bert.pair.before, bert.pair.between, bert.pair.after) == ((2,), (3,), (3,))
    assert bert.pair.types == (0, 0, 0, 1, 1)
    assert (bert.single.before, bert.single.between, bert.single.after) == ((2,), (), (3,))
    roberta = template_of(tiny_tokenizer("roberta"), with_types=False)
    assert roberta is not None
    assert roberta.pair.specials == 4
