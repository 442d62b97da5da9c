"""Queries that are passages: leaving them out gives what BEIR's evaluation gives."""

import json

import numpy as np
import pytest
import pytrec_eval

from pipeline.evaluation.identical_ids import find_identical_ids, is_beir
from pipeline.evaluation.metrics import Qrels, evaluate_run
from pipeline.evaluation.runs import rank_rows
from pipeline.imports.beir import beir_collection
from pipeline.imports.collection_source import import_collection
from pipeline.storage.workspace import Workspace


@pytest.fixture
def beir(tmp_path):
    """Passages d0 to d39. The queries d3, d11 and d20 are passages too; q1 is not."""
    folder = tmp_path / "arguana"
    (folder / "qrels").mkdir(parents=True)
    corpus = [{"_id": f"d{i}", "title": "", "text": f"text {i} word{i % 7}"} for i in range(40)]
    queries = [{"_id": name, "text": f"about {name}"} for name in ("d20", "q1", "d3", "d11")]
    for name, rows in (("corpus", corpus), ("queries", queries)):
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    judged = [("d20", "d21", 1), ("q1", "d1", 2), ("d3", "d4", 1), ("d3", "d3", 1), ("d11", "d12", 1)]
    lines = [f"{query}\t{passage}\t{grade}\n" for query, passage, grade in judged]
    (folder / "qrels" / "test.tsv").write_text("query-id\tcorpus-id\tscore\n" + "".join(lines))
    workspace = Workspace.open(str(tmp_path / "ws"), create=True)
    import_collection(workspace, beir_collection(folder))
    return workspace, judged


def test_what_is_left_out_is_what_beir_leaves_out(beir):
    workspace, judged = beir
    assert is_beir(workspace)
    queries, passages = ["d20", "q1", "d3", "d11"], [f"d{i}" for i in range(40)]
    scores = np.random.default_rng(0).random((4, 40)).astype(np.float32)
    scores[[0, 1, 2, 3], [21, 1, 4, 12]] += 0.95
    scores[[0, 2, 3], [20, 3, 11]] = 2  # a query finds itself first
    query, passage = (column.ravel() for column in np.indices((4, 40)))
    found = find_identical_ids(workspace, np.arange(4))
    assert [(queries[q], passages[p]) for q, p in zip(*found, strict=True)] == [
        ("d20", "d20"),
        ("d3", "d3"),
        ("d11", "d11"),
    ]
    kept = ~found.mask(query, passage)
    assert kept.sum() == 4 * 40 - 3
    run = rank_rows(query[kept], passage[kept], scores.ravel()[kept])
    columns = zip(*((queries.index(q), passages.index(p), g) for q, p, g in judged), strict=True)
    values = evaluate_run(run, Qrels(*(np.array(column) for column in columns))).values

    results = {q: {p: float(scores[i, j]) for j, p in enumerate(passages)} for i, q in enumerate(queries)}
    for name, row in results.items():  # beir.retrieval.evaluation.EvaluateRetrieval.evaluate
        row.pop(name, None)
    qrels = {q: {p: g for own, p, g in judged if own == q} for q in queries}
    expected = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10", "recall.10"}).evaluate(results)
    assert (values["nDCG@10"] > 0).all() and len(set(values["nDCG@10"])) > 1
    for i, name in enumerate(queries):
        assert values["nDCG@10"][i] == pytest.approx(expected[name]["ndcg_cut_10"])
        assert values["Recall@10"][i] == pytest.approx(expected[name]["recall_10"])


def test_only_the_queries_of_interest(beir):
    workspace, _ = beir
    assert find_identical_ids(workspace, np.array([1, 2])).query_id.tolist() == [2]
    none = find_identical_ids(workspace, np.array([1]))
    assert not none.mask(np.array([1, 1]), np.array([1, 3])).any()


def test_other_collections_are_not_of_beir(workspace):
    assert not is_beir(workspace)
