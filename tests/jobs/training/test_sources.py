import duckdb
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.training.one_per_query import OnePerQuery
from jobs.training.sources import triple_batches
from pipeline.errors import WorkspaceError
from pipeline.scores.judged_pairs import read_judged_pairs
from pipeline.scores.pairs import load_pairs
from pipeline.triples.arrays import read_triples
from pipeline.triples.build import TripleSettings, build_triples
from pipeline.triples.sets import load_triples
from pipeline.triples.turns import load_turns
from students.training.batches import Batch, JudgedPairs
from tests import worlds


@pytest.fixture(scope="module")
def triples(tmp_path_factory):
    workspace = worlds.scored(worlds.paired(worlds.imported(tmp_path_factory.mktemp("batches"))), {"a": 1})
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.triples.build.TRIPLES_PER_PART", 37)
        build_triples(workspace, TripleSettings(None))
    paths, footers = load_triples(workspace, "default")
    assert len(paths) > 2
    rows = duckdb.sql(
        f"SELECT query_id, positive_id, negative_id, positive_score, negative_score FROM '{paths[0].parent}/*.parquet'"
    )
    return paths, [footer.rows for footer in footers], rows.fetchall()


def rows_of(batch):
    columns = (batch.query, *batch.passages.T, *batch.teacher.T)
    return list(zip(*(column.tolist() for column in columns), strict=True))


@given(size=st.integers(1, 90), epoch=st.integers(0, 2), seed=st.integers(0, 2))
def test_each_triple_once_an_epoch(triples, size, epoch, seed):
    paths, counts, expected = triples
    source = triple_batches(paths, counts, seed)
    found = [row for start in range(0, source.rows, size) for row in rows_of(source.batch(epoch, start, size))]
    assert sorted(found) == sorted(expected)
    assert (found == expected) == (epoch == 0)
    # Any step can be asked for alone: the same rows as in the stream.
    fresh = triple_batches(paths, counts, seed)
    start = size * (source.rows // size // 2)
    assert rows_of(fresh.batch(epoch, start, size)) == found[start : start + size]


def test_each_query_once_an_epoch_with_its_next_positive_and_negative(tmp_path):
    workspace = worlds.graded(tmp_path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.triples.build.TRIPLES_PER_PART", 37)
        build_triples(workspace, TripleSettings(None))
    paths, footers = load_triples(workspace, "default")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.triples.turns._ROWS_PER_BATCH", 50)
        source = OnePerQuery(load_turns(workspace, paths, footers, 7), 7)
    rows = duckdb.sql(
        f"SELECT query_id, positive_id, negative_id, positive_score, negative_score FROM '{paths[0].parent}/*.parquet'"
    ).fetchall()
    positives, negatives = {}, {}
    for query, positive, negative, *_ in rows:
        positives.setdefault(query, set()).add(positive)
        negatives.setdefault((query, positive), set()).add(negative)
    assert source.rows == len(positives) and max(map(len, positives.values())) > 1
    epochs = [[row for start in range(0, source.rows, 5) for row in rows_of(source.batch(epoch, start, 5))]
              for epoch in range(60)]  # fmt: skip
    assert all({row[0] for row in epoch} == set(positives) and len(epoch) == source.rows for epoch in epochs)
    assert {row for epoch in epochs for row in epoch} <= set(rows)
    assert [row[0] for row in epochs[0]] != [row[0] for row in epochs[1]]
    by_query = {query: [next(row for row in epoch if row[0] == query) for epoch in epochs] for query in positives}
    rounds = 0
    for query, own in by_query.items():
        many = len(positives[query])
        # Each turn takes the next one: as many turns as there are positives see all of them.
        assert all({row[1] for row in own[i : i + many]} == positives[query] for i in range(60 - many))
        for positive in positives[query]:
            ring, every = [row[2] for row in own if row[1] == positive], negatives[query, positive]
            seen = [set(ring[i : i + len(every)]) for i in range(len(ring) - len(every))]
            assert all(kinds == every for kinds in seen)
            rounds += len(seen) * (len(every) > 1)
    assert rounds > 20
    again = OnePerQuery(load_turns(workspace, paths, footers, 7), 7)
    assert rows_of(again.batch(3, 5, 5)) == epochs[3][5:10]
    other = OnePerQuery(load_turns(workspace, paths, footers, 8), 8)
    assert sorted(rows_of(other.batch(0, 0, other.rows))) != sorted(epochs[0])


def judged(workspace, seed=0):
    pairs = read_judged_pairs(workspace, load_pairs(workspace), "train")
    return JudgedPairs(*pairs, negatives=2, random_negatives=1, seed=seed)


@pytest.mark.parametrize("kind", ["triples", "turns", "judged"])
def test_every_epoch_and_every_seed_has_another_order(triples, tmp_path, kind):
    paths, counts, _ = triples
    if kind == "turns":
        workspace = worlds.graded(tmp_path)
        build_triples(workspace, TripleSettings(None))
        turns = load_turns(workspace, *load_triples(workspace, "default"), 0)
    elif kind == "judged":
        workspace = worlds.paired(worlds.imported(tmp_path))
    make = {
        "triples": lambda seed: triple_batches(paths, counts, seed),
        "turns": lambda seed: OnePerQuery(turns, seed),
        "judged": lambda seed: judged(workspace, seed),
    }[kind]
    orders, passages = {}, {}
    for seed in range(2):
        source = make(seed)
        for epoch in range(1, 4):
            batch = source.batch(epoch, 0, source.rows)
            orders[seed, epoch] = tuple(batch.query.tolist())
            passages[seed, epoch] = sorted(map(tuple, np.column_stack([batch.query, batch.passages]).tolist()))
    assert len(set(orders.values())) == 6
    if kind == "triples":  # the rows of a part are shuffled too, not only the parts
        first = set(rows_of(Batch(*read_triples(paths[0]))))
        inside = [
            [row for row in rows_of(make(0).batch(epoch, 0, sum(counts))) if row in first] for epoch in range(1, 4)
        ]
        assert len({tuple(rows) for rows in inside}) == 3
    elif kind == "judged":  # other negatives are drawn
        assert len({str(rows) for rows in passages.values()}) == 6


def test_judged_positives_once_an_epoch_with_their_own_negatives(paired):
    source = judged(paired)
    pairs = duckdb.sql(f"SELECT query_id, passage_id, grade FROM '{paired.path('pairs')}/*.parquet'").fetchall()
    relevant = {(q, p) for q, p, grade in pairs if grade}
    other = {(q, p) for q, p, grade in pairs if not grade}
    for epoch in range(3):
        batches = [source.batch(epoch, start, 4) for start in range(0, source.rows, 4)]
        drawn = [(q, p) for batch in batches for q, p in zip(batch.query, batch.passages[:, 0], strict=True)]
        assert len(drawn) == len(set(drawn)) == source.rows and set(drawn) <= relevant
        rows = [(q, row) for b in batches for q, row in zip(b.query, b.passages[:, 1:], strict=True)]
        assert {(q, p) for q, row in rows for p in row[:2]} <= other
        strangers = {(q, row[2]) for q, row in rows}
        assert strangers - other and not strangers & relevant
    again = judged(paired).batch(1, 4, 4)
    assert np.array_equal(again.passages, source.batch(1, 4, 4).passages)
    assert not np.array_equal(source.batch(0, 4, 4).passages, source.batch(1, 4, 4).passages)


def test_a_split_without_negatives_is_refused(workspace):
    worlds.paired(workspace, k=1)
    with pytest.raises(WorkspaceError, match="no queries of split"):
        read_judged_pairs(workspace, load_pairs(workspace), "test")
