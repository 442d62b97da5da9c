"""Known figures on real questions and passages, if PREP_TEST_MEDQUAD names their directory."""

import os
from pathlib import Path

import pytest

from jobs.ranking.evaluate import EvaluationSettings, evaluate
from pipeline.imports.msmarco import import_msmarco
from pipeline.retrieval.mining import mine
from pipeline.retrieval.retrievers import Bm25Retriever
from pipeline.storage.workspace import Workspace

DIRECTORY = Path(os.environ.get("PREP_TEST_MEDQUAD") or "nowhere")


@pytest.mark.skipif(not DIRECTORY.is_dir(), reason="PREP_TEST_MEDQUAD names no directory")
def test_bm25_reaches_the_known_figures(tmp_path):
    workspace = Workspace.open(str(tmp_path / "ws"), create=True)
    queries, qrels = [[("dev", DIRECTORY / f"{kind}.dev.tsv.gz")] for kind in ("queries", "qrels")]
    import_msmarco(workspace, DIRECTORY / "collection.tsv.gz", queries, qrels)
    mine(workspace, ["dev"], 1000, Bm25Retriever(processes=2))
    (row,) = evaluate(workspace, EvaluationSettings("dev", runs=["bm25"]))
    known = {"MRR@10": 0.452, "Recall@10": 0.776, "Recall@100": 0.885, "Recall@1000": 0.924}
    assert {name: round(row.means[name], 3) for name in known} == known and row.queries == 1463
