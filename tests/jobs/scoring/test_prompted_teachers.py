"""Teachers that read a prompt, through the command line: scores, their check by the library, a mixed ensemble."""

import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Pooling

from jobs.scoring.stage import plan_scoring
from jobs.scoring.teachers import Teacher
from pipeline.scores.pairs import load_pairs
from pipeline.scores.scores import load_scores
from teachers.settings import ScoringSettings
from tests import worlds
from tests.jobs.test_cli import prep
from tests.tiny_decoders import save_decoder
from tests.tiny_models import save_tiny
from tests.tiny_t5 import save_t5


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    directory = tmp_path_factory.mktemp("prompted")
    workspace = worlds.paired(worlds.imported(directory))
    encoder = save_tiny("bert", directory / "encoder")
    transformer = Transformer(str(encoder), max_seq_length=32)
    modules = [transformer, Pooling(transformer.get_embedding_dimension(), pooling_mode="mean")]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(directory / "separate"))
    return workspace, {
        "encoder": encoder,
        "decoder": save_decoder("qwen3", directory / "decoder"),
        "t5": save_t5(directory / "t5"),
        "separate": directory / "separate",
    }


def run(world, monkeypatch, capsys, typed, *names, **expected):
    workspace, models = world
    teachers = [word for name in names for word in ("--teacher", f"{name}={models[name]}")]
    code, output, error = prep(monkeypatch, capsys, *typed.split(), *teachers, "-w", workspace.root)
    assert code == expected.get("code", 0), error
    return output if code == 0 else error


def test_a_mixed_ensemble_goes_from_score_to_triples(world, monkeypatch, capsys):
    run(world, monkeypatch, capsys, "score --max-length 60", "encoder", "separate")
    run(world, monkeypatch, capsys, "score --max-length 60 --form monot5", "t5")
    run(world, monkeypatch, capsys, "score --max-length 220", "decoder")
    again = run(world, monkeypatch, capsys, "score --max-length 220", "decoder")
    assert "scored 0 pairs" in again
    workspace, models = world
    pairs = load_pairs(workspace)
    decoder = load_scores(workspace, pairs, "decoder").footers[0]
    assert decoder.extra["rows_share"] == "prefixes" and "<Query>: " in decoder.extra["prompt"][0]
    checked = run(world, monkeypatch, capsys, "verify --sample 12")
    assert "48 scores equal" in checked
    built = "build-triples --ensemble zscore --threshold 0.5 --name mixed"
    for name in models:
        built += f" --teacher {name}"
    assert "triples" in run(world, monkeypatch, capsys, built)


def test_the_input_is_shown_as_the_model_reads_it(world, monkeypatch, capsys):
    shown = run(world, monkeypatch, capsys, "score --show-input --instruction Find --max-length 220", "decoder")
    assert "<Instruct>: Find\n<Query>: " in shown
    shown = run(world, monkeypatch, capsys, "score --show-input --max-length 60", "encoder", "separate")
    assert shown.count("[CLS]") == 3


@pytest.mark.parametrize(
    ("typed", "name", "message"),
    [
        ("score --overwrite", "t5", "--form monot5"),
        ("score --form monot5", "encoder", "no teacher takes --form"),
        ("score --instruction x", "separate", "no teacher takes --instruction"),
        ("score --max-length 40 --overwrite", "decoder", "the prompt has"),
        ("score --form t5", "t5", "monot5"),
    ],
)
def test_options_that_do_not_fit_are_refused(world, monkeypatch, capsys, typed, name, message):
    assert message in run(world, monkeypatch, capsys, typed, name, code=2)


def test_what_is_asked_for_is_part_of_the_identity(world):
    workspace, models = world

    def made(name, **settings):
        teacher = Teacher("another", str(models[name]), ScoringSettings(200, **settings))
        return plan_scoring(workspace, [teacher], keep=False).teachers[0].fingerprint

    assert len({made("decoder"), made("decoder", instruction="a"), made("decoder", instruction="b")}) == 3
    assert made("t5", form="monot5") != made("t5", form="rankt5")
