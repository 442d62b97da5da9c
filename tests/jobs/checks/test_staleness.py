"""A workspace with every set; one input after another changes; every command that reads what depends on it refuses."""

import json
import re
import shutil

import pytest

from jobs.checks.status import workspace_status
from jobs.checks.verify import verify
from jobs.ranking.encode import encode_passages
from pipeline.collection.hold_out import hold_out
from pipeline.errors import StaleError
from pipeline.imports.msmarco import import_msmarco
from pipeline.retrieval.mining import mine
from pipeline.retrieval.retrievers import Bm25Retriever, RandomRetriever
from pipeline.scores.pairs import build_pairs, is_current, load_pairs
from pipeline.storage.workspace import Workspace
from pipeline.tables.parts import footer_of
from pipeline.tables.staleness import STALE_INPUTS
from pipeline.triples.build import TripleSettings, build_triples
from pipeline.triples.layouts import Lists
from students.architectures.bert_dot import BertDot
from students.settings import STUDENT_FILE, StudentSettings
from tests import worlds
from tests.jobs.test_cli import prep
from tests.tiny_models import save_tiny

TRAIN = "train --name new --architecture bert_dot --max-steps 1 --batch-size 2 --init {tiny} --max-passage-length 40"
CONSUMERS = {
    "train": TRAIN + " --loss margin_mse",
    "train on judgements": TRAIN + " --loss ranknet --targets qrels",
    "export": "export triplet --output {out}",
    "export lists": "export flag-embedding --lists default --output {out}",
    "evaluate lists": "evaluate --split train --run bm25",
    "evaluate a teacher": "evaluate --split train --teacher a",
    "evaluate an ensemble": "evaluate --split train --ensemble default",
    "evaluate a student": "evaluate --split train --student dot={dot}",
    "score": "score --teacher dot={dot}",
    "build-pairs": "build-pairs --pairs-per-shard 40",
    "build-triples": "build-triples --threshold none",
    "build-lists": "build-lists --size 4",
    "explore-threshold": "explore-threshold",
    "search": "search --student dot={dot} bak",
}
OF_TRIPLES = {"train", "export", "export lists", "evaluate an ensemble"}
OF_SCORES = OF_TRIPLES | {"evaluate a teacher", "build-triples", "build-lists", "explore-threshold"}
OF_PAIRS = OF_SCORES | {"score", "train on judgements"}
OF_LISTS = OF_PAIRS | {"build-pairs", "evaluate lists", "evaluate a student"}
QUICK = {"evaluate lists", "evaluate a teacher", "evaluate a student", "export", "build-pairs", "search"}
"""Run where they must not refuse; the others take longer."""


def more(workspace, kind, *lines):
    """Import lines of one kind of file."""
    path = workspace.root.parent / "more.tsv"
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def judge(workspace):
    judged = worlds.write_files(workspace.root.parent)["train.qrels"].read_text().split()
    import_msmarco(workspace, None, [], [("train", more(workspace, "qrels", f"{judged[0]}\t0\tp0\t2"))])


def ask(workspace, split="train"):
    import_msmarco(workspace, None, [(split, more(workspace, "queries", "new\tbak bal bam"))], [])


def tell(workspace):
    import_msmarco(workspace, more(workspace, "collection", "new\tbak bal bam"), [], [])


CHANGES = {
    "judgements": (judge, OF_PAIRS, "qrels"),
    "queries of a mined split": (ask, OF_LISTS, "queries of split train"),
    "queries of another split": (lambda ws: ask(ws, "test"), OF_PAIRS, "queries"),
    "passages": (tell, set(CONSUMERS), "passages"),
    "a hold-out": (lambda ws: hold_out(ws, "tune", "train", 3), OF_PAIRS, "queries"),
    "scores": (lambda ws: worlds.scored(ws, {"a": 9}), OF_TRIPLES, "scores/a"),
    "lists": (lambda ws: mine(ws, ["train"], 3, Bm25Retriever()), OF_PAIRS, "retrieved/bm25"),
    "a retriever": (lambda ws: mine(ws, ["train"], 3, RandomRetriever()), OF_PAIRS, "retrieved/random"),
    "pairs": (lambda ws: build_pairs(ws, 90), OF_SCORES, "scores of teacher"),
    "nothing": (lambda ws: None, set(), ""),
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    workspace = worlds.scored(worlds.paired(worlds.imported(directory)), {"a": 1, "b": 2})
    build_triples(workspace, TripleSettings(None))
    build_triples(workspace, TripleSettings(None), layout=Lists(4))
    tiny, dot = save_tiny("bert", directory / "tiny"), directory / "dot"
    dot.mkdir()
    BertDot.from_checkpoint(str(tiny), StudentSettings(max_query_tokens=8, max_passage_tokens=16)).save(dot)
    encode_passages(workspace, "dot", str(dot))
    return workspace, {"tiny": str(tiny), "dot": str(dot)}


@pytest.fixture
def copied(whole, tmp_path):
    shutil.copytree(whole[0].root, tmp_path / "ws")
    return Workspace.open(str(tmp_path / "ws")), {**whole[1], "out": str(tmp_path / "out")}


def states(workspace):
    return {
        stage.name: stage.state for stage in workspace_status(workspace) if "/" in stage.name or stage.name == "pairs"
    }


@pytest.mark.parametrize("change", CHANGES)
def test_every_consumer_refuses_what_depends_on_a_change(copied, monkeypatch, capsys, change):
    workspace, places = copied
    make, refusing, named = CHANGES[change]
    make(workspace)
    for name, typed in CONSUMERS.items():
        if name not in refusing and name not in QUICK:
            continue
        code, _, error = prep(monkeypatch, capsys, *typed.format(**places).split(), "-w", workspace.root)
        assert code == (2 if name in refusing else 0), (name, code, error)
        if name in refusing:
            assert "to do:" in error and "prep " in error and "Traceback" not in error
            assert named in error or name == "search", (name, error)
        if name == "build-pairs" and not code:
            break  # they are fresh now
    assert "new" not in workspace.names("students")


@pytest.mark.parametrize("change", CHANGES)
def test_status_and_verify_see_the_same(copied, change):
    workspace, _ = copied
    make, refusing, _ = CHANGES[change]
    make(workspace)
    expected = dict.fromkeys(
        ("retrieved/bm25", "pairs", "scores/a", "scores/b", "triples/default", "lists/default"), "done"
    )
    expected |= {"encoded/dot": "done"}
    if change in ("lists", "a retriever"):
        expected |= {f"retrieved/{name}": "done" for name in workspace.names("retrieved")}
    stale = {
        "triples/default": "train",
        "lists/default": "export lists",
        "pairs": "score",
        "retrieved/bm25": "evaluate lists",
        "encoded/dot": "search",
    }
    expected |= {name: "stale" for name, consumer in stale.items() if consumer in refusing}
    if change == "pairs":
        expected |= {"scores/a": "incomplete", "scores/b": "incomplete"}
    assert states(workspace) == expected
    found = verify(workspace, sample=0)
    assert bool(found.problems) == bool(refusing)
    assert is_current(workspace, load_pairs(workspace)) == (expected["pairs"] == "done")


def test_what_the_messages_say_mends_it(copied, monkeypatch, capsys):
    """Followed word by word, from the first refusal to the last, with the models' names filled in."""
    workspace, places = copied
    ask(workspace)
    judge(workspace)
    done = []
    for _ in range(12):
        code, _, error = prep(monkeypatch, capsys, *CONSUMERS["export"].format(**places).split(), "-w", workspace.root)
        if code == 0:
            break
        command = re.search(r"to do: +run(?: again)?: prep ([^\n,]*)", error)[1]
        done.append(command.split()[0])
        if command.startswith("score"):
            worlds.scored(workspace, {"a": 1, "b": 2})
            continue
        code, _, error = prep(monkeypatch, capsys, *command.split(), "-w", workspace.root)
        assert code == 0, (command, error)
    assert code == 0 and done == ["mine", "build-pairs", "score", "build-triples"]
    assert footer_of(workspace.parts("triples", "default")[0]).recipe.settings["threshold"] is None


def test_going_on_knowingly_is_warned_and_recorded(copied, monkeypatch, capsys):
    workspace, places = copied
    tell(workspace)
    for name in ("export", "evaluate lists", "search", "build-lists", "build-pairs"):
        typed = CONSUMERS[name].format(**places).split()
        code, _, error = prep(monkeypatch, capsys, *typed, "--stale-ok", "-w", workspace.root)
        assert code == 0 and "--stale-ok" in error and "stale" in error, (name, error)
    assert "passages" in (workspace.root.parent / "out" / "README.md").read_text()
    facts = workspace.read_json("runs", "train-bm25.json")
    assert list(facts[STALE_INPUTS]) == ["retrieved/bm25 of split train"]
    for dataset in (("pairs",), ("lists", "default")):
        assert "retrieved/bm25 of split train" in footer_of(workspace.parts(*dataset)[0]).extra[STALE_INPUTS]
    assert states(workspace)["pairs"] == "stale"  # made from stale lists: of today's inputs, but those are not usable


def test_a_trained_model_stays_usable_and_says_what_has_changed(copied, monkeypatch, capsys):
    workspace, places = copied
    monkeypatch.setattr("jobs.training.model_card._plot", lambda path, facts: None)
    typed = CONSUMERS["train"].format(**places).split()
    assert (found := prep(monkeypatch, capsys, *typed, "-w", workspace.root))[0] == 0, found[2]
    detail = {stage.name: stage.detail for stage in workspace_status(workspace)}["students/new"]
    assert "changed" not in detail
    workspace.path("students", ".training-new").mkdir()  # the run was killed after it had published
    code, output, _ = prep(monkeypatch, capsys, *typed, "-w", workspace.root)
    assert code == 0 and "trained already" in output and list(states(workspace)).count("students/new") == 1
    assert not workspace.path("students", ".training-new").exists()
    import_msmarco(workspace, None, [("test", more(workspace, "queries", "new\tbak bal"))], [])
    import_msmarco(workspace, None, [], [("test", more(workspace, "qrels", "new\t0\tp7\t1"))])
    asked = "evaluate --split test --student new --mode retrieve"
    assert prep(monkeypatch, capsys, *asked.split(), "-w", workspace.root)[0] == 0
    stage = {stage.name: stage for stage in workspace_status(workspace)}["students/new"]
    assert stage.state == "done" and "trained before these changed" in stage.detail and "queries" in stage.detail
    code, _, error = prep(monkeypatch, capsys, *typed, "-w", workspace.root)
    assert code == 2 and "triples 'default' are stale" in error
    typed[typed.index("new")] = "knowing"
    assert prep(monkeypatch, capsys, *typed, "--stale-ok", "-w", workspace.root)[0] == 0
    facts = workspace.read_json("students", "knowing", STUDENT_FILE)
    assert "the pairs" in facts[STALE_INPUTS] and json.dumps(facts["settings"]).count("stale") == 0


def test_lists_mined_before_or_between_hold_outs_are_complete(tmp_path):
    workspace = worlds.imported(tmp_path)
    hold_out(workspace, "first", "train", 2)
    worlds.paired(workspace)
    hold_out(workspace, "second", "train", 2)
    hold_out(workspace, "third", "train", 2)
    assert states(workspace)["retrieved/bm25"] == "done"
    ask(workspace)
    assert states(workspace)["retrieved/bm25"] == "stale"
    with pytest.raises(StaleError, match=r"--split train --k 10"):
        build_pairs(workspace, 40)
