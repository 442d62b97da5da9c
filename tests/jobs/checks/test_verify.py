"""A sound workspace, and one thing after another broken in it."""

import json
import pickle
import shutil
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.checks.status import workspace_status
from jobs.checks.verify import verify
from jobs.cluster.settings import ClusterSettings
from jobs.scoring.stage import score
from jobs.scoring.teachers import Teacher
from pipeline import schemas
from pipeline.errors import MissingError, WorkspaceError
from pipeline.scores.pairs import load_pairs
from pipeline.scores.scores import read_pair_ids, read_scores, write_scores
from pipeline.tables.parts import footer_of, write_part
from pipeline.triples.build import TripleSettings, build_triples
from pipeline.triples.layouts import Lists
from teachers.settings import ScoringSettings
from tests import worlds
from tests.jobs.test_cli import prep
from tests.tiny_models import save_tiny

SETTINGS = ScoringSettings(max_length_tokens=24)


@pytest.fixture(scope="module")
def sound(tmp_path_factory):
    directory = tmp_path_factory.mktemp("sound")
    workspace = worlds.paired(worlds.imported(directory))
    teachers = [Teacher(kind, str(save_tiny(kind, directory / kind)), SETTINGS) for kind in ("bert", "roberta")]
    score(workspace, teachers, ClusterSettings())
    build_triples(workspace, TripleSettings(threshold=None))
    build_triples(workspace, TripleSettings(threshold=None), layout=Lists(4))
    return workspace


@pytest.fixture
def broken(sound, tmp_path):
    shutil.copytree(sound.root, tmp_path / "ws")
    return type(sound).open(str(tmp_path / "ws"))


def found(workspace):
    return [(str(p.path.relative_to(workspace.root)), p.what) for p in verify(workspace, sample=40).problems]


def rewrite(path, change=lambda table: table, footer=lambda facts: facts):
    """Change rows or footer behind the back of the one that wrote them."""
    facts = json.loads(pq.read_metadata(path).metadata[b"prep"])
    table = change(pq.read_table(path))
    with pq.ParquetWriter(path, table.schema) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({"prep": json.dumps(footer(facts))})


def replaced(table, column, values):
    place = table.schema.get_field_index(column)
    return table.set_column(place, table.schema.field(column), pa.array(values, table.schema.field(column).type))


def test_status_takes_its_state_from_the_type_of_the_error(workspace, monkeypatch):
    """Whatever the messages say."""
    states = {stage.name: stage.state for stage in workspace_status(workspace)}
    assert states["passages"] == "done" and states["pairs"] == "missing"
    for error, state in ((MissingError("nothing"), "missing"), (WorkspaceError("no part yet"), "incomplete")):
        monkeypatch.setattr("jobs.checks.status.load_pairs", lambda *_, error=error: (_ for _ in ()).throw(error))
        assert {stage.name: stage.state for stage in workspace_status(workspace)}["pairs"] == state
    assert type(pickle.loads(pickle.dumps(MissingError("nothing")))) is MissingError


def test_a_sound_workspace(sound):
    assert verify(sound, sample=0).rescored == 0
    done = verify(sound, sample=40)
    assert not done.problems and not done.notes and done.rescored == 2 * 40
    assert done.files == len([path for path in sound.root.rglob("*.parquet") if ".cache" not in path.parts])


def test_rows_that_are_not_those_written(broken):
    path = broken.parts("scores", "bert")[1]
    rewrite(path, lambda table: replaced(table, "score", np.asarray(table["score"]) + np.float32(1e-6)))
    assert ("scores/bert/part-00001.parquet", found(broken)[0][1]) == found(broken)[0]
    assert "content fingerprint differs" in found(broken)[0][1]


def test_a_truncated_file(broken):
    path = broken.parts("passages")[0]
    path.write_bytes(path.read_bytes()[:-100])
    assert any(name.startswith("passages/") and "unreadable" in what for name, what in found(broken))


def write(workspace, number, ids, scores):
    pairs = load_pairs(workspace)
    description = footer_of(workspace.parts("scores", "bert")[number]).recipe.settings
    extra = footer_of(workspace.parts("scores", "bert")[number]).extra
    write_scores(workspace, "bert", number, pairs.footers[number], ids, scores, description, extra)


def test_rows_in_another_order(broken):
    path = broken.parts("scores", "bert")[0]
    ids = tuple(column[::-1] for column in read_pair_ids(path))
    write(broken, 0, ids, read_scores(path)[::-1])
    assert ("scores/bert/part-00000.parquet", "its rows are not those of the pair shard, in order") in found(broken)


def test_scores_that_transformers_does_not_give(broken):
    path = broken.parts("scores", "bert")[2]
    write(broken, 2, read_pair_ids(path), read_scores(path) + np.float32(0.01))
    assert any(name == "scores/bert/part-00002.parquet" and "transformers" in what for name, what in found(broken))


def test_a_missing_shard(broken):
    broken.parts("scores", "roberta")[0].unlink()
    assert any(name == "scores/roberta/part-00000.parquet" and "missing" in what for name, what in found(broken))


def test_a_margin_that_is_none(broken):
    path = broken.parts("triples", "default")[0]
    footer = footer_of(path)
    table = replaced(pq.read_table(path), "margin", np.zeros(footer.rows, np.float32))
    write_part(path, table.to_batches(), schemas.TRIPLES, footer.recipe, parts=footer.parts, extra=footer.extra)
    assert any("margin is not the difference" in what for _, what in found(broken))


def test_a_list_that_was_built_otherwise(broken):
    path = broken.parts("lists", "default")[0]
    footer = footer_of(path)
    recipe = replace(footer.recipe, settings={**footer.recipe.settings, "negatives_per_system": 1})
    write_part(path, pq.read_table(path).to_batches(), schemas.LISTS, recipe, parts=footer.parts, extra=footer.extra)
    assert any(name == "lists/default" for name, _ in found(broken))


def test_a_checkpoint_that_is_gone_is_noted(broken):
    for path in broken.parts("scores", "bert"):
        rewrite(path, footer=lambda facts: {**facts, "extra": {**facts["extra"], "teacher": "/no/such/directory"}})
    done = verify(broken, sample=40)
    assert not done.problems and "not scored again" in done.notes[0] and done.rescored == 40


def test_advice_never_costs_what_is_good(broken, monkeypatch, capsys):
    """A damaged file is removed and made again, a set that is not whole is completed: no directory is to go."""
    lost, damaged = broken.parts("scores", "bert")[:2]
    lost.unlink()
    damaged.write_bytes(damaged.read_bytes()[:-9])
    kept = {path: path.read_bytes() for path in broken.parts("scores", "roberta")}
    problems = {problem.path.name: problem for problem in verify(broken, sample=0).problems}
    assert "run prep score again" in problems[lost.name].todo and "remove" not in problems[lost.name].todo
    assert problems[damaged.name].todo.startswith("remove this file and run its stage again")
    assert all("remove" not in problem.todo for problem in problems.values() if problem.path.suffix != ".parquet")
    code, _, error = prep(monkeypatch, capsys, "verify", "--sample", "0", "-w", broken.root)
    assert code == 1 and error.count("to do:") > 2 and "keep them" in error
    damaged.unlink()
    checkpoint = footer_of(broken.parts("scores", "roberta")[0]).extra["teacher"].replace("roberta", "bert")
    done = score(broken, [Teacher("bert", checkpoint, SETTINGS)], ClusterSettings())
    assert done.kept_shards == done.shards - 2 and not verify(broken, sample=0).problems
    assert {path: path.read_bytes() for path in broken.parts("scores", "roberta")} == kept


def test_status_tells_incomplete_scores(broken, monkeypatch, capsys):
    broken.parts("scores", "bert")[0].unlink()
    stages = {stage.name: stage for stage in workspace_status(broken)}
    assert stages["scores/bert"].state == "incomplete" and "1 missing, 0 stale" in stages["scores/bert"].detail
    assert stages["scores/roberta"].state == "done"
    assert stages["triples/default"].state == stages["lists/default"].state == "stale"
    code, output, _ = prep(monkeypatch, capsys, "status", "-w", broken.root)
    assert (
        code == 0 and "incomplete" in output and "prep score --teacher bert=CHECKPOINT" in "".join(output.split("\n"))
    )
