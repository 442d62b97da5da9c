import itertools
import shutil

import duckdb
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pipeline.errors import WorkspaceError
from pipeline.retrieval.mining import mine
from pipeline.retrieval.retrievers import Bm25Retriever, RandomRetriever
from pipeline.scores.pairs import build_pairs, load_pairs, shard_ends


def rows(workspace, name):
    return duckdb.sql(f"SELECT * FROM '{workspace.path(*name.split('/'))}/*.parquet'").fetchall()


def test_pairs_are_the_union_of_judged_and_retrieved(paired):
    expected = {}
    for query, passage, rank, _ in rows(paired, "retrieved/bm25"):
        expected[query, passage] = (None, rank)
    mined = {query for query, _ in expected}
    for query, passage, grade in rows(paired, "qrels"):
        if query in mined:
            expected[query, passage] = (grade, expected.get((query, passage), (None, None))[1])
    found = [row for path in paired.parts("pairs") for row in duckdb.sql(f"SELECT * FROM '{path}'").fetchall()]
    assert found == [(*key, *expected[key]) for key in sorted(expected)]
    assert {grade for _, _, grade, _ in found} == {None, 1} and None in {rank for *_, rank in found}


def test_a_query_stands_in_one_shard(paired):
    shards = [{row[0] for row in duckdb.sql(f"SELECT query_id FROM '{p}'").fetchall()} for p in paired.parts("pairs")]
    assert len(shards) > 3 and sum(map(len, shards)) == len(set.union(*shards))


@example([3, 5], 4)  # the end before the share is nearer than the one after it
@given(st.lists(st.integers(1, 50), min_size=1, max_size=60), st.integers(1, 100))
def test_shards_are_even(counts, pairs_per_shard):
    """Each shard but the last ends at the query that brings its end nearest to its share."""
    total, ends = sum(counts), list(itertools.accumulate(counts))
    shards = max(1, round(total / pairs_per_shard))
    shares = [total * i / shards for i in range(1, shards)]
    nearest = {min(range(len(ends)), key=lambda i: (abs(ends[i] - share), -i)) + 1 for share in shares}
    assert shard_ends(np.array(counts), pairs_per_shard) == sorted(nearest | {len(counts)})


def test_building_again_does_nothing_until_something_changes(paired):
    before = {p: p.stat().st_mtime_ns for p in paired.parts("pairs")}
    assert build_pairs(paired, 40).unchanged
    assert {p: p.stat().st_mtime_ns for p in paired.parts("pairs")} == before
    mine(paired, ["train"], 5, Bm25Retriever())
    built = build_pairs(paired, 40)
    assert not built.unchanged and built.pairs < sum(1 for _ in before) * 60
    assert build_pairs(paired, 1000).shards == 1


def test_unmined_queries_are_left_out_and_counted(workspace):
    mine(workspace, ["dev"], 10, Bm25Retriever())
    built = build_pairs(workspace, 1000)
    train = {
        q
        for (q,) in duckdb.sql(
            f"SELECT query_id FROM '{workspace.path('queries')}/*.parquet' WHERE splits = ['train']"
        ).fetchall()
    }
    judged = [row for row in rows(workspace, "qrels") if row[0] in train]
    assert built.queries == 8 and built.unmined_judgements == len(judged)
    everything = build_pairs(workspace, 1000, all_judged=True)
    assert (
        everything.queries == 24 and everything.pairs == built.pairs + len(judged) and not everything.unmined_judgements
    )


def test_an_interrupted_or_stale_mine_is_refused(paired, monkeypatch, tmp_path):
    monkeypatch.setattr("pipeline.retrieval.mining.QUERIES_PER_PART", 3)
    mine(paired, ["train"], 7, Bm25Retriever())
    lost = paired.path("retrieved", "bm25", "train-00002.parquet")
    lost.unlink()
    with pytest.raises(WorkspaceError, match="incomplete"):
        build_pairs(paired, 40)
    assert mine(paired, ["train"], 7, Bm25Retriever())[0].kept_parts == 5 and lost.exists()
    build_pairs(paired, 40)
    from pipeline.imports.msmarco import import_msmarco

    (tmp_path / "more").write_text("new\tpassage\n")
    import_msmarco(paired, tmp_path / "more", [], [])
    with pytest.raises(WorkspaceError, match="another state of the collection"):
        build_pairs(paired, 40)


def test_a_lost_shard_is_noticed(paired):
    paired.parts("pairs")[1].unlink()
    with pytest.raises(WorkspaceError, match="incomplete"):
        load_pairs(paired)
    assert not build_pairs(paired, 40).unchanged
    load_pairs(paired)


def test_retrievers_that_differ_in_case_only_are_refused(paired):
    with pytest.raises(WorkspaceError, match="differ in case only") as error:
        mine(paired, ["train"], 5, RandomRetriever(system="BM25"))
    assert "bm25, BM25" in str(error.value) and not paired.path("retrieved", "BM25").exists()
    shutil.copytree(paired.path("retrieved", "bm25"), paired.path("retrieved", "BM25"))
    with pytest.raises(WorkspaceError, match="differ in case only"):
        build_pairs(paired, 40)
