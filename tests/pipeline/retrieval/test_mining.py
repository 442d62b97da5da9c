"""Mined files: each holds some queries of a split, and a shorter set leaves none of a longer one behind."""

from pipeline.retrieval import mining
from pipeline.retrieval.mining import mine
from pipeline.retrieval.retrievers import RandomRetriever
from tests import worlds


def test_a_shorter_set_replaces_a_longer_one(workspace, monkeypatch):
    monkeypatch.setattr(mining, "QUERIES_PER_PART", 3)
    mine(workspace, ["train", "dev"], 4, RandomRetriever(0))
    before = [path.name for path in workspace.parts("retrieved", "random")]
    assert len([name for name in before if name.startswith("dev-")]) == -(-worlds.DEV // 3)
    (mined,) = mine(workspace, ["dev"], 4, RandomRetriever(0), max_queries=4)
    after = [path.name for path in workspace.parts("retrieved", "random")]
    assert mined.parts == 2 and after == [name for name in before if name != "dev-00002.parquet"]
