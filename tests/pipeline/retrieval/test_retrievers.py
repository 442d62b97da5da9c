import duckdb
import numpy as np

from pipeline.retrieval.mining import mine
from pipeline.retrieval.retrievers import RandomRetriever
from pipeline.scores.pairs import build_pairs
from tests import worlds


def read(workspace, name):
    return duckdb.sql(f"SELECT * FROM '{workspace.path(*name.split('/'))}/*.parquet' ORDER BY ALL").fetchall()


def test_random_passages_cover_the_collection_and_none_comes_twice(workspace):
    mine(workspace, ["train", "dev"], 20, RandomRetriever(seed=1))
    rows = read(workspace, "retrieved/random")
    drawn = {}
    for query, passage, rank, score in rows:
        drawn.setdefault(query, []).append(passage)
        assert score == 0 and 1 <= rank <= 20
    assert len(drawn) == worlds.TRAIN + worlds.DEV
    assert all(len(set(passages)) == 20 for passages in drawn.values())
    # 480 draws of 80 passages, each 6 times on average: none is never drawn, and no two queries get the same.
    assert len(np.unique([passage for passages in drawn.values() for passage in passages])) == worlds.PASSAGES
    assert len({tuple(sorted(passages)) for passages in drawn.values()}) == len(drawn)


def test_the_draw_depends_on_seed_and_query_alone(workspace, monkeypatch):
    mine(workspace, ["train"], 5, RandomRetriever(seed=1))
    first = read(workspace, "retrieved/random")
    monkeypatch.setattr("pipeline.retrieval.mining.QUERIES_PER_PART", 3)
    mine(workspace, ["train"], 5, RandomRetriever(seed=1))
    assert read(workspace, "retrieved/random") == first
    mine(workspace, ["train"], 5, RandomRetriever(seed=2))
    assert read(workspace, "retrieved/random") != first


def test_a_small_collection_is_drawn_whole(workspace):
    mine(workspace, ["dev"], 500, RandomRetriever())
    assert len(read(workspace, "retrieved/random")) == worlds.DEV * worlds.PASSAGES


def test_two_retrievers_unite_in_the_pairs(paired):
    before = {row[:2]: row[2:] for row in read(paired, "pairs")}
    mine(paired, ["train"], 5, RandomRetriever())
    build_pairs(paired, 40)
    after = {row[:2]: row[2:] for row in read(paired, "pairs")}
    drawn = {row[:2]: row[2] for row in read(paired, "retrieved/random")}
    assert after.keys() == before.keys() | drawn.keys()
    for key, (grade, rank_bm25, rank_random) in after.items():
        assert (grade, rank_bm25) == before.get(key, (None, None)) and rank_random == drawn.get(key)
