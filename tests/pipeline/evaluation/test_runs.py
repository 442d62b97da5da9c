import ir_measures
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ir_measures import RR, R, nDCG

from pipeline.errors import InputError
from pipeline.evaluation.metrics import Qrels, evaluate_run
from pipeline.evaluation.runs import rank_rows, read_run, write_run

SCORED = st.dictionaries(
    st.tuples(st.integers(0, 3), st.integers(0, 30)),
    st.sampled_from([0.0, -0.0, 1e-45, 1.0, 0.99999994, 0.9999999, 2.0, -3e38, -3.4028235e38]),
    min_size=1,
)
JUDGED = st.dictionaries(st.tuples(st.integers(0, 4), st.integers(0, 30)), st.integers(0, 3), min_size=1)


def columns(rows):
    keys = np.array(list(rows), dtype=np.int32).reshape(-1, 2)
    return keys[:, 0], keys[:, 1], np.array(list(rows.values()))


@given(SCORED, st.integers(1, 20))
def test_one_tie_rule(rows, depth):
    run = rank_rows(*columns(rows), depth)
    expected = []
    for query in sorted({q for q, _ in rows}):
        own = sorted(((p, s) for (q, p), s in rows.items() if q == query), key=lambda x: (-x[1], x[0]))
        expected += [(query, passage, rank + 1) for rank, (passage, _) in enumerate(own[:depth])]
    assert list(zip(run.query_id.tolist(), run.passage_id.tolist(), run.rank.tolist(), strict=True)) == expected
    same = run.query_id[1:] == run.query_id[:-1]
    assert (run.score[1:][same] < run.score[:-1][same]).all() and np.isfinite(run.score).all()


def test_ties_fall_by_the_smallest_steps():
    # 2 is enough room for the first tie; the fall of the second reaches scores that were different before.
    scores = np.array([[2, 2, 1, 1, 0.99999994, 0.9999999, 0.5, 0.5], [3, 0, -0.0, -1e-45, -1, -2, -2, -3]], np.float32)
    run = rank_rows(np.repeat([4, 9], 8), np.tile(np.arange(8), 2), scores.ravel())
    expected = scores.copy()
    for row in expected:
        for i in range(1, 8):
            row[i] = min(row[i], np.nextafter(row[i - 1], np.float32(-np.inf)))
    assert run.score.reshape(2, 8).tolist() == expected.tolist() and run.passage_id.tolist() == [*range(8), *range(8)]


@pytest.mark.parametrize("top", [2, 3, 500, 1000])
def test_saturated_scores_are_ranked_by_the_tie_rule(top):
    scores = np.where(np.arange(1000) < top, 1.0, 0.99999994)
    run = rank_rows(np.zeros(1000, np.int32), np.arange(1000), scores)
    assert run.passage_id.tolist() == list(range(1000)) and (np.diff(run.score) < 0).all()
    judged = Qrels(np.array([0, 0]), np.array([4, 999]), np.array([1, 1]))
    assert evaluate_run(run, judged).means() == pytest.approx(
        {
            "MRR@10": 1 / 5,
            "nDCG@10": (1 / np.log2(6)) / (1 + 1 / np.log2(3)),
            "Recall@10": 0.5,
            "Recall@100": 0.5,
            "Recall@1000": 1.0,
        }
    )


@given(SCORED, JUDGED, st.sampled_from([1, 2]))
def test_metrics_equal_ir_measures(rows, judged, level):
    run = rank_rows(*columns(rows))
    found = evaluate_run(run, Qrels(*columns(judged)), level).means()
    named = {
        "MRR@10": RR(rel=level) @ 10,
        "nDCG@10": nDCG @ 10,
        **{f"Recall@{k}": R(rel=level) @ k for k in (10, 100, 1000)},
    }
    qrels = [ir_measures.Qrel(str(q), str(p), g) for (q, p), g in judged.items()]
    docs = [
        ir_measures.ScoredDoc(str(q), str(p), float(s))
        for q, p, s in zip(run.query_id, run.passage_id, run.score, strict=True)
    ]
    direct = ir_measures.calc_aggregate(list(named.values()), qrels, docs)
    assert found == pytest.approx({name: direct[measure] for name, measure in named.items()})


def test_passes_over_queries_give_what_a_single_pass_gives(monkeypatch):
    rng = np.random.default_rng(0)
    query, passage = (column.ravel() for column in np.indices((9, 20)))
    run = rank_rows(query, passage, rng.random(180))
    # Queries 0, 3 and 6 are not judged; the judgements are in no order.
    judged = [(q, p, 1) for q in range(9) if q % 3 for p in rng.choice(20, 2, replace=False)]
    qrels = Qrels(*(np.array(column) for column in zip(*rng.permutation(judged), strict=True)))
    whole = evaluate_run(run, qrels)
    monkeypatch.setattr("pipeline.evaluation.metrics.QUERIES_PER_PASS", 2)
    parts = evaluate_run(run, qrels)
    assert parts.query_id.tolist() == whole.query_id.tolist() == [1, 2, 4, 5, 7, 8]
    for name, values in whole.values.items():
        assert parts.values[name].tolist() == values.tolist()
    assert len(set(whole.values["MRR@10"])) > 2


def test_a_judged_query_that_a_run_misses_scores_zero():
    run = rank_rows(np.array([0]), np.array([5]), np.array([1.0]))
    evaluation = evaluate_run(run, Qrels(np.array([0, 1]), np.array([5, 6]), np.array([1, 1])))
    assert evaluation.values["MRR@10"].tolist() == [1.0, 0.0] and evaluation.means()["MRR@10"] == 0.5


def test_a_run_is_written_with_external_ids_and_read_back(workspace, tmp_path):
    run = rank_rows(np.array([1, 1, 0]), np.array([4, 2, 3]), np.array([2.0, 2.0, 1 / 3]))
    path = write_run(workspace, "x", run)
    lines = [line.split() for line in path.read_text().splitlines()]
    assert [line[:4] for line in lines] == [
        ["q0", "Q0", "p21", "1"],
        ["q3", "Q0", "p14", "1"],
        ["q3", "Q0", "p28", "2"],
    ]
    again = read_run(workspace, path)
    assert all((a == b).all() for a, b in zip(run, again, strict=True))
    (tmp_path / "msmarco").write_text("q0\tp21\t1\nq3\tp14\t1\nq3\tp28\t2\n")
    assert (read_run(workspace, tmp_path / "msmarco").passage_id == run.passage_id).all()


def test_a_new_run_does_not_keep_what_was_told_of_the_old(workspace):
    workspace.write_json({"queries": 9}, "runs", "x.json")
    path = write_run(workspace, "x", rank_rows(np.array([1]), np.array([4]), np.array([2.0])))
    assert path.exists() and not workspace.path("runs", "x.json").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("q9999 Q0 p7 1 2.5 t", "line 2 names an unknown query"),
        ("q0 Q0 p9999 1 2.5 t", "line 2 names an unknown passage"),
        ("q0 Q0 p7 1 nan t", "line 2 has no finite score"),
        ("q0 Q0 p7 1 high t", "line 2 has no finite score"),
        ("q0 Q0 p0 2 2.5 t", "line 2 ranks a passage twice"),
        ("q0 Q0 p7 1 2.5", "line 2 is malformed"),
    ],
)
def test_a_bad_run_is_refused(workspace, tmp_path, line, message):
    path = tmp_path / "bad.run"
    path.write_text(f"q0 Q0 p0 1 3.5 t\n{line}\n")
    with pytest.raises(InputError, match=message):
        read_run(workspace, path)
