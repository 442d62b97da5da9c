"""`prep evaluate --ensemble`: what the students of a set of triples learn from, re-ranking."""

from itertools import pairwise

import pyarrow.parquet as pq
import pytest

from pipeline.evaluation.runs import read_run
from pipeline.retrieval.mining import mine
from pipeline.retrieval.retrievers import Bm25Retriever
from pipeline.triples.build import TripleSettings, build_triples
from tests import worlds
from tests.jobs.test_cli import prep


@pytest.fixture
def unlike(paired):
    """Two teachers on different scales, and their triples: the mean, and in units of their spread."""
    worlds.scored(paired, {"a": 1})
    worlds.scored(paired, {"b": 2}, spread=50)
    build_triples(paired, TripleSettings(None), name="plain")
    build_triples(paired, TripleSettings(None, ensemble="zscore"), name="scaled")
    return paired


def falls(workspace, system, triples):
    """Whether a run orders the passages of triples by the triples' scores."""
    table = pq.read_table(workspace.parts("triples", triples)[0]).to_pydict()
    scores = {}
    for side in ("positive", "negative"):
        for query, passage, score in zip(*(table[n] for n in ("query_id", f"{side}_id", f"{side}_score")), strict=True):
            scores[query, passage] = score
    run = read_run(workspace, workspace.path("runs", f"train-{system}.run"))
    pairs = zip(run.query_id.tolist(), run.passage_id.tolist(), strict=True)
    ranked = [(pair[0], scores[pair]) for pair in pairs if pair in scores]
    assert len(ranked) > 50
    return all(q != r or x >= y for (q, x), (r, y) in pairwise(ranked))


def test_it_ranks_by_the_scores_that_the_triples_hold(unlike, monkeypatch, capsys):
    typed = "evaluate --split train --teacher a --teacher b --ensemble plain --ensemble scaled"
    code, output, error = prep(monkeypatch, capsys, *typed.split(), "-w", unlike.root)
    assert code == 0 and "ensemble-scaled" in output, error
    assert falls(unlike, "ensemble", "plain") and falls(unlike, "ensemble-plain", "plain")
    assert falls(unlike, "ensemble-scaled", "scaled") and not falls(unlike, "ensemble-plain", "scaled")
    # The mean of raw logits is warned of: by itself, and as that of the triples.
    assert error.count("the mean of a, b: the spreads of the teachers differ by a factor of") == 2
    code, _, error = prep(monkeypatch, capsys, *typed.split()[:5], "--ensemble", "scaled", "-w", unlike.root)
    assert code == 0 and "spreads" not in error
    facts = unlike.read_json("runs", "train-ensemble-scaled.json")
    assert facts["command"].endswith("--ensemble scaled") and {"scores/a", "scores/b"} <= set(facts["inputs"])


def test_two_systems_of_one_name_do_not_share_a_run_file(unlike, monkeypatch, capsys):
    worlds.scored(unlike, {"ensemble-plain": 3})
    typed = "evaluate --split train --teacher ensemble-plain --ensemble plain"
    code, _, error = prep(monkeypatch, capsys, *typed.split(), "-w", unlike.root)
    assert code == 2 and "share a name, and so a run file" in error and "ensemble-plain" in error
    assert not unlike.path("runs", "train-ensemble-plain.run").exists()


def test_a_system_that_is_not_there_is_told_before_any_is_ranked(unlike, monkeypatch, capsys):
    for missing in ("--run none", "--teacher none", "--ensemble none", "--student none"):
        typed = f"evaluate --split train --teacher a {missing}"
        code, _, error = prep(monkeypatch, capsys, *typed.split(), "-w", unlike.root)
        assert code == 1 and "none" in error and not unlike.path("runs", "train-a.run").exists()


def test_other_lists_than_the_teachers_scored_are_refused(unlike, monkeypatch, capsys):
    mine(unlike, ["train"], 3, Bm25Retriever())
    code, _, error = prep(monkeypatch, capsys, "evaluate", "--split", "train", "--teacher", "a", "-w", unlike.root)
    assert code == 2 and "the pairs are stale" in error and "prep build-pairs" in error


def test_triples_of_other_scores_are_refused(unlike, monkeypatch, capsys):
    worlds.scored(unlike, {"a": 3})
    code, _, error = prep(monkeypatch, capsys, "evaluate", "--split", "train", "--ensemble", "plain", "-w", unlike.root)
    assert code == 2 and "triples 'plain' are stale" in error and "scores/a" in error
