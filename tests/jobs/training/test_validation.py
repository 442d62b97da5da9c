"""The validation measure re-ranks a retriever's lists as `evaluate` does."""

import numpy as np
import pytest

from jobs.ranking.evaluate import evaluate
from jobs.ranking.settings import EvaluationSettings
from jobs.training.validation import reranking_measure
from students.settings import TrainSettings
from tests import worlds


@pytest.mark.parametrize("depth", [3, 5])
def test_a_query_that_is_its_own_passage_is_no_hit(tmp_path, monkeypatch, depth):
    workspace = worlds.arguana(tmp_path)
    read = []

    class Backwards:
        """Scores the lists from their end."""

        def score(self, pairs):
            read.append(
                [(pairs.queries[q], pairs.passages[p]) for q, p in zip(pairs.query, pairs.passage, strict=True)]
            )
            return np.arange(len(pairs.query), dtype=np.float32)

    monkeypatch.setattr("students.inference.scoring.scorer_of", lambda student: Backwards())
    settings = TrainSettings("bert_dot", "x", "ranknet", eval_split="test", eval_steps=1, eval_depth=depth)
    measured = reranking_measure(workspace, settings)(None)
    assert all(query != passage for query, passage in read[0])
    (row,) = evaluate(workspace, EvaluationSettings("test", runs=["bm25"], depth=depth))
    lists = [row.run.passage_id[row.run.query_id == query] for query in range(6)]
    # The relevant passage of query i is the one after its own, 5 i + 1.
    ranks = [len(own) - own.tolist().index(5 * query + 1) for query, own in enumerate(lists) if 5 * query + 1 in own]
    assert measured == pytest.approx(sum(1 / np.log2(1 + rank) for rank in ranks) / 6) and ranks
