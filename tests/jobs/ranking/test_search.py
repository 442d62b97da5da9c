"""Encoding a collection, and searching it: by a student, by BM25, and by stages that hand passages on."""

import json

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from jobs.checks.status import workspace_status
from jobs.cli import app
from jobs.models.stored_passages import load_stored
from jobs.ranking.encode import encode_passages
from jobs.ranking.search import SearchSettings, search
from jobs.training.stage import train_student
from pipeline.collection.texts import Texts
from pipeline.errors import ModelError, UsageError, WorkspaceError
from pipeline.evaluation.runs import external_ids
from pipeline.imports.msmarco import import_msmarco
from pipeline.storage.workspace import Workspace
from students.architectures.bert_dot import BertDot
from students.inference.loading import load_student
from students.inference.scorer import SeparateScorer
from students.settings import StudentSettings, TrainSettings
from teachers.settings import ScoringSettings
from tests import worlds
from tests.tiny_models import save_tiny

SHAPE = StudentSettings(max_query_tokens=8, max_passage_tokens=16, max_length_tokens=24, split_layer=1)
APART = ("bert_dot", "colbert", "sparse", "prettr", "tk")
QUERIES = ["cek dol", "bam [b]", "cik cok del"]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr("jobs.models.stored_passages.PASSAGES_PER_SHARD", 30)
    monkeypatch.setattr("students.inference.scorer.TOKENS_OF_MANY", 200)


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A workspace with an untrained student of each architecture."""
    directory = tmp_path_factory.mktemp("search")
    workspace = worlds.paired(worlds.imported(directory))
    texts = Texts(workspace, "passages").take(np.arange(worlds.PASSAGES))
    init = str(save_tiny("bert", directory / "tiny", vocab_from=texts))
    for name in (*APART, "bert_cat"):
        loss = "bce" if name == "bert_cat" else "ranknet"
        train_student(workspace, name, TrainSettings(name, init, loss, max_steps=0, student=SHAPE))
    return workspace


def place(workspace, name):
    return str(workspace.path("students", name))


def prep(workspace, *arguments, **options):
    result = CliRunner().invoke(app, [arguments[0], "-w", str(workspace.root), *arguments[1:]], **options)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


@torch.inference_mode()
def every_score(workspace, name, queries=QUERIES):
    """Scores (Q, N) of all passages by the student's own forward pass."""
    student, texts = load_student(place(workspace, name)), all_texts(workspace)
    return np.stack([student.score([query] * len(texts), texts).numpy() for query in queries])


def all_texts(workspace):
    texts = Texts(workspace, "passages")
    return texts.take(np.arange(len(texts)))


def hits(found):
    return [[(hit.passage, hit.score) for hit in answer.hits] for answer in found.answers]


@pytest.mark.parametrize("name", APART)
def test_stored_passages_are_those_that_the_student_encodes(world, name):
    done = encode_passages(world, name, place(world, name))
    assert (done.shards, done.passages) == (3, worlds.PASSAGES)
    assert done.storage == ("float32" if name in ("bert_dot", "sparse") else "float16")
    stored = load_stored(world, name, place(world, name))
    scorer = SeparateScorer.load(place(world, name), ScoringSettings())
    ids = np.array([0, 3, 29, 30, 31, 79])
    queries = scorer.encode_queries(QUERIES)
    rows = np.repeat(np.arange(3), 6), np.tile(np.arange(6), 3)
    found = scorer.score_encoded(queries, stored.take(ids), *rows).reshape(3, 6)
    expected = every_score(world, name)[:, ids]
    assert np.allclose(found, expected, rtol=5e-3, atol=5e-3) and expected.std() > 1e-2
    again = encode_passages(world, name, place(world, name))
    assert (again.new_passages, again.kept_shards) == (0, 3)


def test_sparse_texts_keep_only_what_is_not_zero(world):
    encode_passages(world, "sparse", place(world, "sparse"))
    shard = load_stored(world, "sparse", place(world, "sparse")).shards[0]
    whole = SeparateScorer.load(place(world, "sparse"), ScoringSettings())._device
    dense = shard.padded(torch.arange(shard.count), whole).values[:, 0]
    assert shard.entries is not None and shard.values.min() > 0
    assert torch.equal((dense > 0).sum(1), shard.lengths) and 0 < len(shard.values) < dense.numel()


@pytest.mark.parametrize("name", ["bert_dot", "colbert", "sparse"])
def test_a_student_finds_the_best_of_all(world, name, monkeypatch):
    monkeypatch.setattr("students.inference.search.SCORES_PER_BLOCK", 40)
    monkeypatch.setattr("students.inference.search.QUERIES_PER_BLOCK", 2)
    encode_passages(world, name, place(world, name), storage="float32")
    found = search(world, SearchSettings(student=name, k=7), QUERIES)
    scores = every_score(world, name)
    order = np.argsort(-scores, axis=1, kind="stable")[:, :7]
    for row, answer in enumerate(found.answers):
        assert [hit.passage for hit in answer.hits] == list(external_ids(world, "passages", order[row]))
        assert np.allclose([hit.score for hit in answer.hits], scores[row, order[row]], atol=1e-3)
        assert [hit.rank for hit in answer.hits] == list(range(1, 8))
        assert answer.hits[0].text == all_texts(world)[order[row, 0]]
    assert set(found.seconds) == {name} and found.seconds[name] > 0 and found.loading_seconds > 0


def test_evaluation_and_mining_search_what_is_stored(world, monkeypatch):
    encode_passages(world, "colbert", place(world, "colbert"), storage="float32")
    options = ("--student", "colbert", "--mode", "retrieve", "--depth", "5")
    run = world.path("runs", "dev-colbert-retrieve.run")
    prep(world, "evaluate", *options, "--dtype", "bfloat16")  # not as stored, so encoded for the purpose
    lower = run.read_text()
    for name in ("encode_in_chunks", "encode_passages"):
        monkeypatch.setattr(f"students.inference.scorer.SeparateScorer.{name}", None)
    prep(world, "evaluate", *options, "--mode", "rerank")
    assert run.read_text() != lower and run.read_text().count("\n") == 5 * worlds.DEV
    prep(world, "mine", "--student", "colbert", "--system", "stored", "--split", "dev", "--k", "5")
    prep(world, "evaluate", "--run", "stored")
    mined = world.path("runs", "dev-stored.run").read_text()
    assert [line.split()[:4] for line in mined.splitlines()] == [
        line.split()[:4] for line in run.read_text().splitlines()
    ]


def test_three_stages_hand_passages_on(world):
    encode_passages(world, "bert_dot", place(world, "bert_dot"))
    asked = SearchSettings("bert_dot", "bm25", "bert_cat", candidates=12, teacher_candidates=6, k=4)
    found = search(world, asked, QUERIES)
    assert list(found.seconds) == ["bm25", "bert_dot", "bert_cat"] and not found.notes
    first = hits(search(world, SearchSettings(first="bm25", k=12), QUERIES))
    second = hits(search(world, SearchSettings("bert_dot", "bm25", candidates=12, k=12), QUERIES))
    dots, logits = every_score(world, "bert_dot"), every_score(world, "bert_cat")
    ids = {str(name): i for i, name in enumerate(external_ids(world, "passages", np.arange(worlds.PASSAGES)))}
    for row in range(len(QUERIES)):
        assert {passage for passage, _ in second[row]} == {passage for passage, _ in first[row]}
        by_dot = sorted((ids[passage] for passage, _ in first[row]), key=lambda i: (-dots[row, i], i))
        assert [ids[passage] for passage, _ in second[row]] == by_dot
        by_logit = sorted(by_dot[:6], key=lambda i: (-logits[row, i], i))[:4]
        assert [ids[hit.passage] for hit in found.answers[row].hits] == by_logit
        assert np.allclose([hit.score for hit in found.answers[row].hits], logits[row, by_logit], atol=1e-3)
    assert any(first[row] != second[row] for row in range(len(QUERIES)))


def test_probabilities_are_the_sigmoid_of_a_logit(world):
    options = {"first": "bm25", "teacher": "mine=bert_cat", "teacher_candidates": 5, "k": 5}
    logits, shares = (
        [score for own in hits(search(world, SearchSettings(**options, probability=p), QUERIES)) for _, score in own]
        for p in (False, True)
    )
    assert np.allclose(shares, 1 / (1 + np.exp(-np.array(logits)))) and min(logits) != max(logits)
    for wrong in (SearchSettings("bert_dot", probability=True), SearchSettings(first="bm25", probability=True)):
        with pytest.raises(UsageError, match="no probability"):
            search(world, wrong, QUERIES)


def test_candidates_are_encoded_on_the_spot_where_nothing_is_stored(world, tmp_path):
    encode_passages(world, "tk", place(world, "tk"), storage="float32")
    stored = search(world, SearchSettings("tk", "bm25", candidates=9, k=5), QUERIES)
    other = search(world, SearchSettings(f"tk2={place(world, 'tk')}", "bm25", candidates=9, k=5), QUERIES)
    assert not stored.notes and "prep encode --student tk2" in other.notes[0]
    assert [[passage for passage, _ in own] for own in hits(stored)] == [
        [passage for passage, _ in own] for own in hits(other)
    ]


def test_no_word_in_common_finds_nothing(world):
    found = search(world, SearchSettings("bert_dot", "bm25", "bert_cat"), ["zzz", QUERIES[0]])
    assert not found.answers[0].hits and found.answers[1].hits
    assert "no passage contains a word of the query" in prep(world, "search", "--first", "bm25", "zzz")


def test_a_collection_that_grows_costs_what_is_new(tmp_path):
    workspace = worlds.imported(tmp_path)
    where = str(save_tiny("bert", tmp_path / "tiny"))
    saved = tmp_path / "dot"
    saved.mkdir()
    BertDot.from_checkpoint(where, SHAPE).save(saved)
    name = f"dot={saved}"
    with pytest.raises(WorkspaceError, match="have not been encoded"):
        search(workspace, SearchSettings(name), QUERIES)
    assert encode_passages(workspace, "dot", str(saved)).new_passages == worlds.PASSAGES
    more = tmp_path / "more.tsv"
    more.write_text("".join(f"new{i}\tcek dol number {i}\n" for i in range(5)))
    import_msmarco(workspace, more, [], [])
    stage = next(stage for stage in workspace_status(workspace) if stage.name == "encoded/dot")
    assert stage.state == "stale"
    with pytest.raises(WorkspaceError, match="have changed"):
        search(workspace, SearchSettings(name), QUERIES)
    grown = encode_passages(workspace, "dot", str(saved))
    assert (grown.passages, grown.new_passages, grown.kept_shards) == (85, 25, 2)
    assert len(search(workspace, SearchSettings(name, k=85), QUERIES).answers[0].hits) == 85
    student = BertDot.from_checkpoint(where, SHAPE)
    student.encoder.embeddings.word_embeddings.weight.data += 0.5
    student.save(saved)
    with pytest.raises(WorkspaceError, match="by another student"):
        search(workspace, SearchSettings(name), QUERIES)
    assert encode_passages(workspace, "dot", str(saved)).kept_shards == 0


def test_a_killed_run_keeps_whole_shards(world, monkeypatch):
    from students.inference import encoded

    write, count = encoded.write_encoded, 0

    def die(*arguments):
        nonlocal count
        count += 1
        if count == 2:
            raise KeyboardInterrupt
        write(*arguments)

    monkeypatch.setattr("students.inference.encoded.write_encoded", die)
    options = {"dtype": "bfloat16"}
    with pytest.raises(KeyboardInterrupt):
        encode_passages(world, "bert_dot", place(world, "bert_dot"), **options)
    monkeypatch.setattr("students.inference.encoded.write_encoded", write)
    assert encode_passages(world, "bert_dot", place(world, "bert_dot"), **options).kept_shards == 1
    assert load_stored(world, "bert_dot", place(world, "bert_dot")).dtype == "bfloat16"
    part = world.path("encoded", "bert_dot", "part-00001", "encoded.json")
    part.unlink()
    with pytest.raises(WorkspaceError, match="not all passages"):
        load_stored(world, "bert_dot", place(world, "bert_dot"))
    assert encode_passages(world, "bert_dot", place(world, "bert_dot"), **options).new_passages == 30


def test_commands_say_what_they_did(world, tmp_path):
    shown = prep(world, "encode", "--student", "bert_dot")
    assert "encoded/bert_dot: 80 passages" in shown and "float32" in shown
    shown = prep(world, "search", "--student", "bert_dot", "--k", "2", QUERIES[0], QUERIES[1])
    assert QUERIES[1] in shown and "for 2 queries" in shown and "of loading" in shown
    file = tmp_path / "queries.txt"
    file.write_text(f"{QUERIES[0]}\n\n{QUERIES[2]}\n")
    found = json.loads(prep(world, "search", "--student", "bert_dot", "--queries", str(file), "--json", "--k", "3"))
    assert [answer["query"] for answer in found["answers"]] == [QUERIES[0], QUERIES[2]]
    assert [hit["rank"] for hit in found["answers"][0]["hits"]] == [1, 2, 3] and found["seconds"]["bert_dot"] > 0
    piped = json.loads(
        prep(world, "search", "--student", "bert_dot", "--queries", "-", "--json", "--k", "3", input=file.read_text())
    )
    assert piped["answers"] == found["answers"]


@pytest.mark.parametrize(
    ("arguments", "kind", "message"),
    [
        (["search", "a"], UsageError, "nothing finds passages"),
        (["search", "--student", "bert_dot"], UsageError, "no query"),
        (["search", "--student", "bert_dot", " "], UsageError, "an empty query"),
        (["search", "--student", "who", "a"], WorkspaceError, "no student 'who'"),
        (["search", "--student", "prettr", "a"], UsageError, "cannot search a collection"),
        (["search", "--student", "bert_dot", "--candidates", "5", "a"], UsageError, "hands to a student"),
        (["search", "--first", "splade", "a"], UsageError, "unknown --first"),
        (["search", "--first", "bm25", "--teacher", "bert_dot", "a"], UsageError, "read query and passage together"),
        (["search", "--first", "bm25", "--teacher", "bert_cat", "--k", "60", "a"], UsageError, "last stage reads"),
        (["encode", "--student", "bert_cat"], ModelError, "nothing to encode"),
        (["encode", "--student", "bert_dot", "--storage", "int8"], UsageError, "unknown --storage"),
    ],
)
def test_what_cannot_be_is_said(world, arguments, kind, message):
    with pytest.raises(kind, match=message):
        prep(world, *arguments)


def test_nothing_is_encoded_without_passages(tmp_path):
    workspace = Workspace.open(str(tmp_path / "empty"), create=True)
    with pytest.raises(WorkspaceError, match="no passages yet"):
        load_stored(workspace, "x", "y")
