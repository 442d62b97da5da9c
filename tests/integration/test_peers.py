"""The trainers of sentence-transformers learn from our exports as they are: loaded, handed over, a few steps."""

import pytest
from datasets import load_dataset
from transformers import set_seed

from pipeline.exports.export import ExportSettings, export
from pipeline.triples.build import TripleSettings, build_triples
from tests import worlds
from tests.tiny_models import save_tiny

pytest.importorskip("sentence_transformers")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    workspace = worlds.paired(worlds.imported(tmp_path_factory.mktemp("peers")))
    worlds.scored(workspace, {"t": 1})
    build_triples(workspace, TripleSettings(None))
    return workspace


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny("bert", tmp_path_factory.mktemp("tiny") / "bert")


def rows_of(world, tmp_path, form, **settings):
    export(world, tmp_path / "export", ExportSettings(form, **settings))
    return load_dataset(str(tmp_path / "export"), split="train", cache_dir=str(tmp_path / "cache"))


def learn(trainer):
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 4 and all(0 < value < 1e4 for value in losses)


def arguments(kind, tmp_path):
    return kind(
        output_dir=str(tmp_path / "out"),
        max_steps=4,
        per_device_train_batch_size=4,
        learning_rate=1e-3,
        logging_steps=1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
    )


@pytest.mark.parametrize(
    ("form", "loss", "settings"),
    [
        ("triplet", "MultipleNegativesRankingLoss", {}),
        ("margin", "MarginMSELoss", {}),
        ("n-tuple", "MarginMSELoss", {"negatives": 4}),
        ("n-tuple", "DistillKLDivLoss", {"negatives": 4}),
    ],
)
def test_bi_encoders(world, tiny, tmp_path, form, loss, settings):
    from sentence_transformers import (
        SentenceTransformer,
        SentenceTransformerTrainer,
        SentenceTransformerTrainingArguments,
    )
    from sentence_transformers.sentence_transformer import losses as known

    set_seed(0)
    model = SentenceTransformer(str(tiny), device="cpu")
    trainer = SentenceTransformerTrainer(
        model=model,
        args=arguments(SentenceTransformerTrainingArguments, tmp_path),
        train_dataset=rows_of(world, tmp_path, form, **settings),
        loss=getattr(known, loss)(model),
    )
    learn(trainer)


def test_margins_arrive_as_the_label(world, tiny, tmp_path):
    """A student whose margins are the teacher's loses nothing, by margins and by raw scores alike."""
    import torch
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.losses import MarginMSELoss

    texts = rows_of(world, tmp_path, "n-tuple", negatives=3)
    row = texts[0]
    inputs = [row[name] for name in texts.column_names if name != "scores"]
    assert len(inputs) == 5 and all(isinstance(text, str) for text in inputs) and len(row["scores"]) == 4

    class Given(SentenceTransformer):
        def __init__(self):
            torch.nn.Module.__init__(self)

    embeddings = [torch.ones(1, 1), *(torch.tensor([[score]]) for score in row["scores"])]
    loss = MarginMSELoss(Given())
    assert loss.compute_loss_from_embeddings(embeddings, torch.tensor([row["scores"]])).item() == pytest.approx(0)


@pytest.mark.parametrize(
    ("form", "loss", "settings"),
    [
        ("labelled-list", "ListNetLoss", {}),
        ("labelled-list", "RankNetLoss", {}),
        ("margin", "MarginMSELoss", {}),
        ("triplet", "MultipleNegativesRankingLoss", {}),
    ],
)
def test_cross_encoders(world, tiny, tmp_path, form, loss, settings):
    from sentence_transformers import CrossEncoder
    from sentence_transformers.cross_encoder import CrossEncoderTrainer, CrossEncoderTrainingArguments
    from sentence_transformers.cross_encoder import losses as known

    set_seed(0)
    model = CrossEncoder(str(tiny), device="cpu", num_labels=1)
    trainer = CrossEncoderTrainer(
        model=model,
        args=arguments(CrossEncoderTrainingArguments, tmp_path),
        train_dataset=rows_of(world, tmp_path, form, **settings),
        loss=getattr(known, loss)(model),
    )
    learn(trainer)
