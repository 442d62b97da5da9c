"""An ALBERT made of a BERT: the same scores where nothing is shared, fewer weights where something is."""

import json

import pytest
import torch
from transformers import AutoModelForSequenceClassification

from pipeline.errors import ModelError
from students.architectures import architecture
from students.inference.loading import load_student
from students.settings import StudentSettings
from teachers.engine.engine import load_scorer
from teachers.scorer import pairs_of
from teachers.settings import ScoringSettings
from tests.tiny_models import sample_texts, save_tiny

QUERIES, PASSAGES = sample_texts(12, longest=9, seed=1), sample_texts(12, longest=30, seed=2)
SIZES = {"max_length_tokens": 40}


@pytest.fixture(scope="module")
def bert(tmp_path_factory):
    return str(save_tiny("bert", tmp_path_factory.mktemp("bert"), num_hidden_layers=4))


def cat(init, **options):
    torch.manual_seed(1)
    return architecture("bert_cat").from_checkpoint(init, StudentSettings(**SIZES, **options)).eval()


@torch.inference_mode()
def test_as_many_groups_as_layers_change_nothing(bert):
    expected = cat(bert).score(QUERIES, PASSAGES)
    assert torch.allclose(cat(bert, shared_groups=4).score(QUERIES, PASSAGES), expected, atol=1e-5)
    assert expected.std() > 1e-2 and not torch.allclose(cat(bert, shared_groups=2).score(QUERIES, PASSAGES), expected)


@torch.inference_mode()
def test_what_is_saved_is_an_albert_that_teachers_are_scored_with(bert, tmp_path):
    student = cat(bert, shared_groups=1)
    student.save(tmp_path)
    facts = {"architecture": "bert_cat", "settings": {"student": vars(student.settings)}}
    (tmp_path / "prep.json").write_text(json.dumps(facts))
    expected = student.score(QUERIES, PASSAGES)
    assert torch.allclose(load_student(str(tmp_path)).score(QUERIES, PASSAGES), expected, atol=1e-4)
    scorer = load_scorer(str(tmp_path), ScoringSettings(max_length_tokens=40))
    found = torch.from_numpy(scorer.score(pairs_of(zip(QUERIES, PASSAGES, strict=True))))
    assert torch.allclose(found, expected, atol=1e-4)
    assert scorer.describe()["form"] == "AlbertForSequenceClassification"
    model = AutoModelForSequenceClassification.from_pretrained(tmp_path)
    assert len(model.albert.encoder.albert_layer_groups) == 1 and model.config.num_hidden_layers == 4


def test_what_cannot_share_is_refused(bert, tmp_path):
    with pytest.raises(ModelError, match="more groups"):
        cat(bert, shared_groups=5)
    with pytest.raises(ModelError, match="cannot be shared"):
        cat(str(save_tiny("distilbert", tmp_path)), shared_groups=1)
