from collections import namedtuple

import duckdb
import ir_measures
import numpy as np
import pytest

from jobs.ranking.evaluate import split_qrels
from pipeline.errors import InputError
from pipeline.evaluation.metrics import evaluate_run, measures
from pipeline.evaluation.runs import rank_rows
from pipeline.imports.beir import beir_collection
from pipeline.imports.collection_source import import_collection
from pipeline.imports.irds import ir_collection, load
from pipeline.imports.msmarco import import_msmarco
from pipeline.storage.workspace import Workspace
from tests.published_files import lines, write

CORPUS = [
    {"_id": "d1", "title": "Title", "text": "tab\tand\nline", "metadata": {}},
    {"_id": "d2", "title": "", "text": "plain"},
    {"_id": 7, "text": "number"},
]
QUERIES = [{"_id": f"q{i}", "text": f"query {i}"} for i in range(3)]
QRELS = {"test": "q0\td1\t1\nq1\t7\t2\n", "train": "q0\td2\t0\n"}


def import_beir(workspace, directory):
    return import_collection(workspace, beir_collection(directory))


@pytest.fixture
def empty(tmp_path):
    return Workspace.open(str(tmp_path / "ws"), create=True)


def dataset(directory, corpus=CORPUS, queries=QUERIES, qrels=QRELS, end=""):
    (directory / "qrels").mkdir(parents=True)
    write(directory / f"corpus.jsonl{end}", lines(corpus))
    write(directory / f"queries.jsonl{end}", lines(queries))
    for split, rows in qrels.items():
        write(directory / f"qrels/{split}.tsv{end}", f"query-id\tcorpus-id\tscore\n{rows}".encode())
    return directory


def table(workspace, name, columns):
    return duckdb.sql(f"SELECT {columns} FROM '{workspace.path(name)}/*.parquet' ORDER BY ALL").fetchall()


@pytest.mark.parametrize("end", ["", ".gz"])
def test_texts_keep_tabs_and_lines_and_queries_get_their_splits(empty, tmp_path, end):
    directory = dataset(tmp_path / "beir", end=end)
    added = import_beir(empty, directory)
    assert (added.passages, added.queries, added.qrels) == (3, 3, 3)
    assert table(empty, "passages", "external_id, text") == [
        ("7", "number"), ("d1", "Title tab\tand\nline"), ("d2", "plain"),
    ]  # fmt: skip
    assert table(empty, "queries", "external_id, splits") == [
        ("q0", ["test", "train"]), ("q1", ["test"]), ("q2", ["unjudged"]),
    ]  # fmt: skip
    assert sorted(row[0] for row in table(empty, "qrels", "grade")) == [0, 1, 2]
    assert import_beir(empty, directory).unchanged


def test_blank_lines_move_no_passage(empty, tmp_path):
    directory = dataset(tmp_path / "beir")
    first, second, third = (lines([record]) for record in CORPUS)
    write(directory / "corpus.jsonl", first + b"\n\n" + second + first + b"\n" + third)
    assert import_beir(empty, directory).passages == 3
    assert table(empty, "passages", "passage_id, external_id, text") == [
        (0, "d1", "Title tab\tand\nline"), (1, "d2", "plain"), (2, "7", "number"),
    ]  # fmt: skip
    hashes = table(empty, "passages", "text_hash = md5_number_lower(text)")
    assert hashes == [(True,)] * 3


def test_qrels_without_a_header(empty, tmp_path):
    directory = dataset(tmp_path / "beir")
    (directory / "qrels/test.tsv").write_text(QRELS["test"])
    assert import_beir(empty, directory).qrels == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"corpus": [*CORPUS, {"_id": "d3"}]}, "line 4 is malformed"),
        ({"corpus": [*CORPUS, {"_id": "d2", "text": "other"}]}, "line 4 gives passage d2 a second text"),
        ({"queries": [*QUERIES, {"_id": None, "text": "x"}]}, "line 4 is malformed"),
        ({"qrels": {"test": "q9\td1\t1\n"}}, "line 2 names an unknown query"),
        ({"qrels": {"test": "q0\td1\n"}}, "malformed"),
        ({"qrels": {}}, "no qrels"),
    ],
)
def test_bad_files_are_refused_and_leave_nothing(empty, tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        import_beir(empty, dataset(tmp_path / "beir", **changes))
    assert not empty.path("passages").exists() and not empty.path("queries").exists()


def test_a_missing_file_is_named(empty, tmp_path):
    directory = dataset(tmp_path / "beir")
    (directory / "queries.jsonl").unlink()
    with pytest.raises(InputError, match=r"no queries\.jsonl"):
        import_beir(empty, directory)


class Record(dict):
    """A document or query as ir_datasets yields it."""

    __getattr__ = dict.__getitem__

    def default_text(self):
        return self["text"]


class FakeDataset:
    """The part of a data set of ir_datasets that is used."""

    def has_docs(self):
        return True

    has_queries = has_qrels = has_scoreddocs = has_docs

    def has_docpairs(self):
        return False

    def qrels_cls(self):
        return namedtuple("Qrel", ["query_id", "doc_id", "relevance", *self.more])

    more = ("iteration",)

    def docs_iter(self):
        return iter([Record(doc_id="a", text="one"), Record(doc_id="b", text="two")])

    def queries_iter(self):
        return iter([Record(query_id="q", text="what")])

    def qrels_iter(self):
        return iter([Record(query_id="q", doc_id="b", relevance=2)])


def test_what_ir_datasets_has(empty):
    added = import_collection(empty, ir_collection("fake/one", FakeDataset(), "dev"))
    assert (added.passages, added.queries, added.qrels) == (2, 1, 1)
    assert table(empty, "qrels", "*") == [(0, 1, 2)] and table(empty, "queries", "splits") == [(["dev"],)]
    source = ir_collection("fake/one", FakeDataset(), "dev")
    assert import_collection(empty, source).unchanged and list(source.unused_columns) == ["scoreddocs"]


def test_grades_of_subtopics_are_no_grades_of_passages():
    dataset = FakeDataset()
    dataset.more = ("iteration", "subtopic_id", "subtopic_grade")
    with pytest.raises(InputError, match="column 'subtopic_grade' holds labels or grades"):
        ir_collection("fake/one", dataset, "dev")


def test_ir_datasets_itself(empty, tmp_path, monkeypatch):
    """A data set of the real package, made of files of the test."""
    import ir_datasets as irds

    monkeypatch.setenv("IR_DATASETS_HOME", str(tmp_path))
    write(tmp_path / "docs.tsv", b"a\tone\nb\ttwo\n")
    write(tmp_path / "queries.tsv", b"q\twhat\n")
    write(tmp_path / "qrels", b"q 0 b 2\n")
    made = irds.create_dataset(
        docs_tsv=str(tmp_path / "docs.tsv"),
        queries_tsv=str(tmp_path / "queries.tsv"),
        qrels_trec=str(tmp_path / "qrels"),
    )
    assert import_collection(empty, ir_collection("own", made, "train")).qrels == 1
    with pytest.raises(InputError, match="no such data set"):
        load("no-such-collection")


def test_a_judgement_of_a_missing_passage_counts_as_never_found(empty, tmp_path):
    """ArguAna has one. The oracle is ir_measures with the external ids of the files."""
    rows = "q0\td1\t1\nq1\tgone\t1\nq1\td2\t2\nq2\tlost\t1\n"
    directory = dataset(tmp_path / "beir", qrels={"test": rows})
    added = import_beir(empty, directory)
    assert (added.qrels, added.unknown_passages) == (2, 2)
    qrels = split_qrels(empty, "test")
    zeros = np.zeros(3, np.int32)
    run = rank_rows(np.arange(3), zeros + 1, np.ones(3))  # every query finds d2 alone
    judged = [ir_measures.Qrel(q, p, int(g)) for q, p, g in (line.split("\t") for line in rows.splitlines())]
    docs = [ir_measures.ScoredDoc(f"q{i}", "d2", 1.0) for i in range(3)]
    named = measures()
    expected = ir_measures.calc_aggregate(list(named.values()), judged, docs)
    assert evaluate_run(run, qrels).means() == pytest.approx({name: expected[m] for name, m in named.items()})
    assert expected[named["Recall@10"]] == pytest.approx(1 / 6)
    # The passage comes later: its judgement becomes one of the others, and the rest stays.
    write(tmp_path / "more.tsv", b"gone\ttext\n")
    import_msmarco(empty, tmp_path / "more.tsv", [], [])
    assert (1, 3, 1) in table(empty, "qrels", "*") and table(empty, "unknown_judgements", "external_id") == [("lost",)]


def test_a_judgement_of_a_missing_passage_has_one_grade_and_not_all_are_missing(empty, tmp_path):
    with pytest.raises(InputError, match="judges query q0 and passage gone twice"):
        import_beir(empty, dataset(tmp_path / "a", qrels={"test": "q0\td1\t1\nq0\tgone\t1\nq0\tgone\t2\n"}))
    with pytest.raises(InputError, match="judges no passage of the collection"):
        import_beir(empty, dataset(tmp_path / "b", qrels={"test": "q0\tx\t1\nq1\ty\t1\n"}))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("qrels/test.tsv.gz", "two files of split test"),
        ("qrels/dev.txt", "no qrels file"),
        ("qrels/dev.jsonl", "no qrels file"),
        ("qrels/test.tsv.bak", "no qrels file"),
        ("corpus.jsonl.gz", r"two files of corpus\.jsonl"),
    ],
)
def test_no_file_of_a_table_is_left_out(tmp_path, name, message):
    directory = dataset(tmp_path / "beir")
    write(directory / name, b"q0\td2\t1\n")
    with pytest.raises(InputError, match=message):
        beir_collection(directory)


def test_columns_that_are_not_used_are_named_and_scores_refused(empty, tmp_path):
    corpus = [{**CORPUS[0], "url": "u"}, {**CORPUS[1], "lang": "de"}]
    source = beir_collection(dataset(tmp_path / "a", corpus=corpus, qrels={"test": "q0\td1\t1\n"}))
    import_collection(empty, source)
    assert list(source.unused_columns) == ["url", "lang"]
    queries = [QUERIES[0], {**QUERIES[1], "positive_ids": ["d1"]}]
    with pytest.raises(InputError, match="line 2: column 'positive_ids' holds positives"):
        beir_collection(dataset(tmp_path / "b", queries=queries))


@pytest.mark.parametrize(
    ("header", "message"),
    [("corpus-id\tquery-id\tscore", "line 1 is a header"), ("query_id\tdoc_id\trelevance", "line 1 is a header")],
)
def test_another_header_is_not_read_by_position(tmp_path, header, message):
    directory = dataset(tmp_path / "beir")
    (directory / "qrels/test.tsv").write_text(f"{header}\nd1\tq0\t1\n")
    with pytest.raises(InputError, match=message):
        beir_collection(directory)
