"""Students over encoders whose states move with padding encode every text as if it were alone."""

import logging

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModel

from students.architectures.bert_dot import BertDot
from students.architectures.separate import States
from students.identity import student_fingerprint
from students.inference.scorer import SeparateScorer
from students.inference.scoring import scorer_of
from students.settings import StudentSettings, TrainSettings
from students.training.loop import check_start
from teachers.scorer import pairs_of
from teachers.settings import ScoringSettings
from tests.tiny_models import randomise, sample_texts, tiny_tokenizer

PASSAGES = sample_texts(20, longest=30, seed=2)
SETTINGS = StudentSettings(max_query_tokens=12, max_passage_tokens=25, pooling="mean")


def saved(family, directory):
    tokenizer = tiny_tokenizer("bert")
    tokenizer.save_pretrained(directory)
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2}
    heads = {"num_attention_heads": 2}
    more = {"bert": heads, "convbert": {"embedding_size": 32, **heads}, "fnet": {}}[family]
    config = AutoConfig.for_model(family, vocab_size=len(tokenizer), pad_token_id=0, **sizes, **more)
    model = AutoModel.from_config(config)
    randomise(model, 0, 0.2)
    model.save_pretrained(directory)
    return str(directory)


@pytest.mark.parametrize("family", ["bert", "fnet", "convbert"])
@torch.inference_mode()
def test_every_text_is_encoded_as_alone(family, tmp_path, caplog):
    student = BertDot.from_checkpoint(saved(family, tmp_path), SETTINGS).eval()

    def vector(text, limit):
        inputs = student.tokenizer(text, truncation=True, max_length=limit, return_tensors="pt")
        return student.encoder(**inputs).last_hidden_state[0].mean(0)

    alone = torch.stack([vector(text, 25) for text in PASSAGES])
    scorer = SeparateScorer(student, ScoringSettings())
    assert torch.allclose(scorer.encode_passages(PASSAGES).values, alone, atol=1e-4 * float(alone.std()))
    live = scorer_of(student).score(pairs_of([(PASSAGES[0], text) for text in PASSAGES]))
    assert np.allclose(live, (alone @ vector(PASSAGES[0], 12)).numpy(), atol=1e-4 * live.std())
    assert caplog.text.count("padding moves") == (family != "bert")  # once, though two scorers were made


def test_the_fingerprint_says_so_and_training_warns(tmp_path, caplog, monkeypatch):
    directory = saved("fnet", tmp_path)
    before = student_fingerprint(directory, "float32")
    student = BertDot.from_checkpoint(directory, SETTINGS)
    with caplog.at_level(logging.WARNING):
        check_start(student, TrainSettings("bert_dot", directory, "ranknet", None))
    assert "padding moves its states" in caplog.text
    monkeypatch.setattr("students.identity.is_moved_by_padding", lambda config: False)
    assert student_fingerprint(directory, "float32") != before


@torch.inference_mode()
def test_padding_of_a_passage_matches_no_query_token(tmp_path):
    """With all products negative, a padded token's 0 would be the best match."""
    from students.architectures.colbert import ColBert

    student = ColBert.from_checkpoint(saved("bert", tmp_path), SETTINGS)
    query = States(torch.tensor([[[1.0, 0.0]]]), torch.tensor([[True]]))
    passage = States(torch.tensor([[[-2.0, 0.0], [-3.0, 1.0], [0.0, 0.0]]]), torch.tensor([[True, True, False]]))
    assert student.interact(query, passage).item() == -2.0
    assert student.interact_all(query, passage).item() == -2.0
