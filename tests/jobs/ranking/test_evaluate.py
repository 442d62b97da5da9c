"""The stage `evaluate`: what it reads, what it leaves out, and what its facts say."""

from dataclasses import replace

import numpy as np
import pytest
from typer.testing import CliRunner

from jobs.cli import app
from jobs.ranking import candidates
from jobs.ranking.candidates import candidates_of, teacher_scores
from jobs.ranking.evaluate import evaluate, split_qrels
from jobs.ranking.run_facts import read_run_facts
from jobs.ranking.settings import EvaluationSettings
from jobs.report.result_rows import workspace_results
from pipeline.errors import WorkspaceError
from pipeline.imports.msmarco import import_msmarco
from pipeline.retrieval.bm25_index import Retrieved
from pipeline.retrieval.mining import mine
from pipeline.retrieval.retrievers import Bm25Retriever, RandomRetriever
from pipeline.scores.pairs import build_pairs, load_pairs
from pipeline.scores.scores import load_scores
from pipeline.storage.workspace import Workspace
from pipeline.tables.parts import read_footers
from tests import worlds


def prep(workspace, command, *arguments):
    result = CliRunner().invoke(app, [command, "-w", str(workspace.root), *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return " ".join(result.output.split())


def read_rows(monkeypatch, module, name):
    """Rows of the files that `module.name(…, path)` opens from now on."""
    rows, original = [], getattr(module, name)

    def opened(*arguments, **options):
        paths = arguments[-1] if isinstance(arguments[-1], list) else [arguments[0]]
        rows.extend(footer.rows for footer in read_footers(paths))
        return original(*arguments, **options)

    monkeypatch.setattr(module, name, opened)
    return rows


def test_the_lists_of_other_splits_are_not_read(paired, monkeypatch):
    queries = np.unique(split_qrels(paired, "dev").query_id)
    rows = read_rows(monkeypatch, candidates, "view_parquet")
    found = candidates_of(paired, "bm25", "dev", queries[:5])
    assert sum(rows) == 10 * worlds.DEV and np.unique(found[0]).tolist() == queries[:5].tolist()


def test_shards_without_the_queries_are_not_read(paired, monkeypatch):
    worlds.scored(paired, {"a": 1})
    queries = np.unique(split_qrels(paired, "dev").query_id)
    pairs = load_pairs(paired)
    rows = read_rows(monkeypatch, candidates, "open_part")
    query, passage, score = teacher_scores(paired, "bm25", "dev", queries, load_scores(paired, pairs, "a"))
    overlapping = [f.rows for f in pairs.footers if f.extra["last_query"] >= queries[0]]
    assert rows == overlapping and len(rows) < len(pairs.footers)
    known = {}
    for number, path in enumerate(pairs.paths):
        ids, drawn = candidates.open_part(path)[0].read(), np.random.default_rng((1, number))
        values = drawn.normal(0, 4, ids.num_rows).astype(np.float32)
        known |= dict(
            zip(zip(ids["query_id"].to_pylist(), ids["passage_id"].to_pylist(), strict=True), values, strict=True)
        )
    assert len(query) == 10 * len(queries)
    assert [known[pair] for pair in zip(query.tolist(), passage.tolist(), strict=True)] == score.tolist()


def test_lists_that_were_not_scored_are_refused(paired):
    worlds.scored(paired, {"a": 1})
    scores = load_scores(paired, load_pairs(paired), "a")
    mine(paired, ["dev"], 12, Bm25Retriever())
    queries = np.unique(split_qrels(paired, "dev").query_id)
    with pytest.raises(WorkspaceError, match="are not those that the teachers scored") as error:
        teacher_scores(paired, "bm25", "dev", queries, scores)
    assert error.value.expected == f"{12 * worlds.DEV} pairs of query and passage"


def test_a_query_of_two_splits_is_measured_by_the_lists_of_the_split(tmp_path):
    files = worlds.write_files(tmp_path)
    line = files["train"].read_text().splitlines()[0]
    files["dev"].write_text(files["dev"].read_text() + line + "\n")
    judged = files["train.qrels"].read_text().splitlines()[0]
    files["dev.qrels"].write_text(files["dev.qrels"].read_text() + judged + "\n")
    workspace = Workspace.open(str(tmp_path / "ws"), create=True)
    import_msmarco(
        workspace,
        files["collection"],
        *([(split, files[f"{split}{end}"]) for split in ("train", "dev")] for end in ("", ".qrels")),
    )
    mine(workspace, ["dev"], 4, RandomRetriever(0))
    mine(workspace, ["train"], 9, RandomRetriever(0))
    build_pairs(workspace, 40)
    worlds.scored(workspace, {"a": 1})
    settings = EvaluationSettings(runs=["random"], teachers=["a"], candidates="random")
    for row in evaluate(workspace, settings):
        assert np.bincount(row.run.query_id)[np.unique(row.run.query_id)].tolist() == [4] * (worlds.DEV + 1)


@pytest.fixture
def arguana(tmp_path):
    return worlds.arguana(tmp_path)


def test_a_query_that_is_its_own_passage_is_no_hit(arguana):
    shown = prep(arguana, "evaluate", "--split", "test", "--run", "bm25")
    assert "passages left out because they have their query's id, as in BEIR: bm25 6" in shown
    (facts,) = read_run_facts(arguana)
    assert (facts["ignore_identical_ids"], facts["identical_ids"]) == (True, 6)
    lines = [line.split() for line in facts["run"].read_text().splitlines()]
    assert all(line[0] != line[2] for line in lines) and lines[0][3] == "1"
    without = facts["means"]["MRR@10"]
    prep(arguana, "evaluate", "--split", "test", "--run", "bm25", "--no-ignore-identical-ids")
    (facts,) = read_run_facts(arguana)
    assert (facts["ignore_identical_ids"], facts["identical_ids"]) == (False, None)
    assert facts["means"]["MRR@10"] < without and "--no-ignore-identical-ids" in facts["command"]
    first = [line.split() for line in facts["run"].read_text().splitlines() if line.split()[3] == "1"]
    assert all(line[0] == line[2] for line in first)


def test_a_run_file_loses_the_same_passages(arguana, tmp_path):
    path = tmp_path / "own.run"
    path.write_text("".join(f"d0 Q0 d{i} {i + 1} {9 - i} x\n" for i in range(4)))
    (row,) = evaluate(arguana, EvaluationSettings("test", runs=[str(path)], depth=2))
    assert row.identical_ids == 1 and row.missing_queries == 5
    assert row.run.passage_id.tolist() == [1, 2, 3] and row.run.rank.tolist() == [1, 2, 3]


def test_runs_with_and_without_identical_ids_are_not_compared(arguana, tmp_path):
    prep(arguana, "evaluate", "--split", "test", "--run", "bm25")
    copy = tmp_path / "copy.run"
    copy.write_bytes(arguana.path("runs", "test-bm25.run").read_bytes())
    prep(arguana, "evaluate", "--split", "test", "--run", copy, "--no-ignore-identical-ids")
    found = workspace_results(arguana)
    assert len(found.lines) == 2 and not found.compared
    assert {line.queries_described for line in found.lines} == {"6 of test", "6 of test, without identical ids"}


def test_equal_ids_mean_nothing_in_other_collections(paired):
    (row,) = evaluate(paired, EvaluationSettings(runs=["bm25"]))
    assert row.identical_ids is None and len(row.run.query_id) == 10 * worlds.DEV
    (row,) = evaluate(paired, EvaluationSettings(runs=["bm25"], ignore_identical_ids=True))
    assert row.identical_ids == 0


def test_a_search_finds_a_passage_more_where_one_is_left_out(arguana, monkeypatch):
    asked = []

    class Search:
        def __init__(self, workspace, *others):
            pass

        def search(self, request, batches, k, scratch):
            asked.append(k)
            count = len(request.query_ids)
            query = np.repeat(np.arange(count, dtype=np.int32), k)
            passage = (request.query_ids[:, None] * 5 + np.arange(k)) % 30  # the passage of the query is the first
            yield Retrieved(query, passage.ravel().astype(np.int32), query, np.tile(-np.arange(k), count) * 1.0)

    monkeypatch.setattr("jobs.ranking.evaluate.StudentRetriever", Search)
    monkeypatch.setattr("jobs.ranking.evaluate.named_student", lambda workspace, text: (text, text))
    monkeypatch.setattr("jobs.ranking.evaluate.find_stored", lambda *named: None)
    monkeypatch.setattr("students.inference.loading.architecture_of", lambda name: "bert_dot")
    settings = EvaluationSettings("test", students=["s"], modes=["retrieve"], depth=3)
    (row,) = evaluate(arguana, settings)
    assert np.bincount(row.run.query_id).tolist() == [3] * 6 and row.identical_ids == 6
    evaluate(arguana, replace(settings, ignore_identical_ids=False))
    assert asked == [4, 3]
