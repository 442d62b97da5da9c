"""Encoder-decoders against a plain loop over transformers' own class."""

import numpy as np
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from pipeline.errors import ModelError
from teachers.checkpoints.checkpoint import resolve
from teachers.checkpoints.encoder_decoder import ANSWERS, load_encoder_decoder, scored_tokens
from teachers.scorer import pairs_of
from teachers.tokens.pair_prompt import PairPrompt
from teachers.tokens.prompted_pairs import PromptTokenizer
from tests.tiny_models import sample_texts
from tests.tiny_t5 import save_t5


@pytest.fixture(scope="module")
def t5(tmp_path_factory):
    return save_t5(tmp_path_factory.mktemp("t5"))


def library_score(model, tokenizer, form, query, passage):
    answer = ANSWERS[form]
    text = f"Query: {query} Document: {passage}" + ("" if form == "rankt5" else " Relevant:") + "</s>"
    ids = tokenizer(text, add_special_tokens=False, return_tensors="pt")["input_ids"]
    logits = model(input_ids=ids, decoder_input_ids=torch.zeros(1, 1, dtype=torch.long)).logits[0, 0]
    score = logits[tokenizer.convert_tokens_to_ids(answer.true_token)]
    return float(
        score if answer.false_token is None else score - logits[tokenizer.convert_tokens_to_ids(answer.false_token)]
    )


@pytest.mark.parametrize("form", ANSWERS)
@torch.inference_mode()
def test_scores_are_those_of_one_step_of_the_decoder(form, t5):
    tokenizer, whole = AutoTokenizer.from_pretrained(t5), AutoModelForSeq2SeqLM.from_pretrained(t5)
    texts = list(zip(sample_texts(200, longest=9, seed=1), sample_texts(200, seed=2), strict=True))
    expected = np.array([library_score(whole, tokenizer, form, *pair) for pair in texts])
    encoded = PromptTokenizer(tokenizer, PairPrompt(*ANSWERS[form].prompt), 512).encode(pairs_of(texts))
    module, _, name = load_encoder_decoder(resolve(str(t5)), scored_tokens(tokenizer, form))
    batch = encoded.assemble(np.arange(len(texts)))
    found = module(torch.from_numpy(batch.input_ids), torch.from_numpy(batch.attention_mask)).logits[:, 0].numpy()
    assert name == "T5ForConditionalGeneration" and expected.std() > 0.01
    assert np.abs(found - expected).max() < 1e-4 * expected.std()


def test_a_vocabulary_without_the_answer_is_refused(t5):
    tokenizer = AutoTokenizer.from_pretrained(t5)
    tokenizer.get_vocab = lambda: {"▁true": 7}
    with pytest.raises(ModelError, match="form monot5"):
        scored_tokens(tokenizer, "monot5")
    tokenizer.eos_token = "<pad>"
    with pytest.raises(ModelError, match="do not end"):
        scored_tokens(tokenizer, "rankt5")
