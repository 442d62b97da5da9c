"""Students of every architecture through the commands: trained, evaluated, timed, described."""

import pytest
from typer.testing import CliRunner

from jobs.cli import app
from jobs.ranking.latency import measure_latency
from jobs.training.stage import train_student
from pipeline.errors import UsageError
from pipeline.triples.build import TripleSettings, build_triples
from students.settings import StudentSettings, TrainSettings
from tests import worlds
from tests.tiny_models import save_tiny


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    directory = tmp_path_factory.mktemp("students")
    workspace = worlds.scored(worlds.paired(worlds.imported(directory)), {"a": 1})
    build_triples(workspace, TripleSettings(None))
    init = str(save_tiny("bert", directory / "tiny"))
    shape = StudentSettings(max_query_tokens=8, max_passage_tokens=16, max_length_tokens=24, split_layer=1)
    for name in ("bert_cat", "bert_dot", "colbert", "prettr", "tk", "sparse"):
        settings = TrainSettings(name, init, "margin_mse", "default", max_steps=2, student=shape, eval_steps=2)
        train_student(workspace, name, settings)
    return workspace


def prep(*arguments):
    result = CliRunner().invoke(app, arguments)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return " ".join(result.output.split())


def test_all_rerank_and_some_retrieve(world):
    where = ("-w", str(world.root), "--split", "dev")
    names = ("bert_cat", "bert_dot", "colbert", "prettr", "tk", "sparse")
    students = [part for name in names for part in ("--student", name)]
    shown = prep("evaluate", *where, *students, "--latency", "--depth", "5")
    for name in names:
        assert (world.root / "runs" / f"dev-{name}-rerank.run").is_file()
        assert f"{name}: " in shown
    retrievers = [part for name in ("bert_dot", "colbert", "sparse") for part in ("--student", name)]
    prep("evaluate", *where, *retrievers, "--mode", "retrieve", "--depth", "5")
    assert (world.root / "runs" / "dev-colbert-retrieve.run").read_text().count("\n") == 5 * worlds.DEV
    with pytest.raises(UsageError, match="is a tk, which cannot search"):
        prep("evaluate", *where, "--student", "tk", "--mode", "retrieve")


def test_latency_counts_every_query_once(world):
    from jobs.ranking.evaluate import split_qrels

    queries = split_qrels(world, "dev").query_id
    for name, stored in (("prettr", True), ("bert_cat", False)):
        found = measure_latency(world, name, str(world.path("students", name)), queries, split="dev", depth=4)
        assert (found.stored, found.queries, found.candidates) == (stored, worlds.DEV, 4)
        assert 0 < found.median_ms <= found.p95_ms


def test_a_student_describes_itself(world):
    directory = world.path("students", "colbert")
    card = (directory / "README.md").read_text()
    assert "library_name: sentence-transformers" in card and "MultiVectorEncoder(directory)" in card
    assert "| triples/default |" in card and "| loss | margin_mse |" in card and "| 2 | 0." in card
    assert (directory / "training.png").stat().st_size > 1000
    assert "Loads with prep alone" in (world.path("students", "tk") / "README.md").read_text()


def test_a_student_mines(world):
    where = ("-w", str(world.root), "--split", "dev")
    prep("mine", *where, "--system", "late", "--student", "colbert", "--k", "5")
    prep("evaluate", *where, "--run", "late", "--student", "colbert", "--mode", "retrieve", "--depth", "5")
    mined, searched = (
        [line.split()[:4] for line in (world.root / "runs" / f"dev-{name}.run").read_text().splitlines()]
        for name in ("late", "colbert-retrieve")
    )
    assert mined == searched and len(mined) == 5 * worlds.DEV
    with pytest.raises(UsageError, match="lists need a new name"):
        prep("mine", *where, "--student", "colbert")
