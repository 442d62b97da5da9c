import numpy as np
import pytest

from pipeline.scores.pairs import load_pairs
from pipeline.scores.scores import load_scores, read_scores
from pipeline.tables.parts import open_part
from pipeline.triples.agreement import score_agreement
from tests import worlds


@pytest.fixture
def world(tmp_path):
    return worlds.graded(tmp_path, digits=0)


def test_counts_and_agreement_are_those_of_a_plain_loop(world):
    pairs = load_pairs(world)
    scores = [load_scores(world, pairs, name) for name in "abc"]
    found = score_agreement(scores)
    rows = []
    for number, path in enumerate(pairs.paths):
        file, _ = open_part(path)
        with file:
            table = file.read(columns=["query_id", "grade"]).to_pylist()
        columns = [read_scores(one.paths[number]).tolist() for one in scores]
        rows += [(row["query_id"], row["grade"], values) for row, *values in zip(table, *columns, strict=True)]
    margins = [
        np.subtract(ours, theirs)
        for query, grade, ours in rows
        for other, low, theirs in rows
        if query == other and (grade or 0) >= 1 and (low or 0) < 1
    ]
    signs = np.sign(margins)
    assert found.candidates == len(margins) and found.pairs == len(rows)
    assert found.alike[0, 2] == pytest.approx(np.mean(signs[:, 0] == signs[:, 2])) and (np.diag(found.alike) == 1).all()
    assert found.right[1] == pytest.approx(np.mean(signs[:, 1] > 0))
    assert found.right[3] == pytest.approx(np.mean(np.mean(margins, axis=1) > 0))
    judged = [grade for _, grade, _ in rows]
    assert found.relevant.sum(axis=1).tolist() == [sum((g or 0) >= 1 for g in judged)] * 4
    assert found.unjudged.sum(axis=1).tolist() == [sum(g is None for g in judged)] * 4
    assert found.irrelevant.sum(axis=1).tolist() == [sum(g == 0 for g in judged)] * 4


def test_large_sets_are_sampled_by_whole_shards(world):
    pairs = load_pairs(world)
    scores = [load_scores(world, pairs, "a")]
    found = score_agreement(scores, most_pairs=60)
    assert 1 < found.shards < len(pairs.paths) and found.pairs < pairs.pairs
