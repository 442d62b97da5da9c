import gzip
import io
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.imports import score_pickle
from pipeline.imports.pickle_entries import ENTRY
from pipeline.imports.score_pickle import RefusedError, read_pickle
from pipeline.imports.score_process import read_score_pickle

IDS = st.one_of(st.integers(-(2**70), 2**70), st.integers(0, 300), st.integers(0, 70_000), st.text(max_size=5))
SCORES = st.one_of(st.floats(allow_nan=False), st.integers(-(2**40), 2**40))


def loaded(content: bytes) -> dict:
    found: dict = {}
    for query, run, others in read_pickle(io.BytesIO(content)):
        entries = np.frombuffer(run, ENTRY)
        own = dict(zip(entries["passage"].tolist(), entries["score"].tolist(), strict=True)) | dict(others)
        assert query not in found
        found[query] = own
    return found


@given(st.dictionaries(IDS, st.dictionaries(IDS, SCORES, max_size=6), max_size=6), st.integers(2, 5))
def test_it_reads_what_pickle_wrote(scores, protocol):
    assert loaded(pickle.dumps(scores, protocol)) == scores


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_integers_of_all_lengths_among_many(protocol):
    rng = np.random.default_rng(protocol)
    scores: dict = {}
    for query in rng.permutation(2500).tolist():
        ids = (rng.integers(0, 2**31, rng.integers(1, 60)) >> rng.choice([0, 8, 16, 24])).tolist()
        scores[query * 40] = dict(zip(ids, rng.normal(0, 9, len(ids)).tolist(), strict=True))
    found = loaded(pickle.dumps(scores, protocol))
    assert found == scores and list(found) == list(scores)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("size", [999, 1000, 1001, 2001])
def test_batches_of_a_thousand_and_their_rest(protocol, size, monkeypatch):
    monkeypatch.setattr(score_pickle, "READ_BYTES", 1000)
    shared = "p"
    scores = {n: {n * 50 + i: i / 3 for i in range(3)} | {shared: 1.0} for n in range(size)}
    scores[-1] = {i * 7: float(i) for i in range(size)}
    scores[-70_000] = {70_000 + i: float(i) for i in range(3)}
    assert loaded(pickle.dumps(scores, protocol)) == scores


@given(st.binary(max_size=40) | st.binary(max_size=40).map(lambda tail: pickle.dumps({1: {2: 3.0}})[:-3] + tail))
def test_any_bytes_give_scores_or_a_refusal(content):
    try:
        loaded(b"\x80\x04" + content)
    except RefusedError:
        pass
    except AssertionError:
        pass  # a query given twice


def test_a_dict_that_stands_twice_is_refused():
    shared = {1: 2.0}
    with pytest.raises(RefusedError, match="used twice"):
        loaded(pickle.dumps({1: shared, 2: shared}))


def test_rows_come_over_with_numbers_and_strings_apart(tmp_path):
    scores = {7: {1: 0.5, "a": 1.5, 2: 2.5}, "q": {3: 3.5}, 8: {}}
    path = tmp_path / "s.pkl.gz"
    path.write_bytes(gzip.compress(pickle.dumps(scores)))
    rows = [
        row
        for batch in read_score_pickle(path)
        for row in zip(batch.line, batch.query.to_pylist(), batch.passage.to_pylist(), batch.score, strict=True)
    ]
    assert rows == [(1, "7", 1, 0.5), (1, "7", 2, 2.5), (2, "q", 3, 3.5), (1, 7, "a", 1.5)]
