import gzip
import io
import pickle
import pickletools
import struct
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.imports import score_pickle
from pipeline.imports.score_pickle import ENTRY, RefusedError, read_pickle
from pipeline.imports.score_process import read_score_pickle

IDS = st.one_of(st.integers(-(2**70), 2**70), st.integers(0, 300), st.integers(0, 70_000), st.text(max_size=5))
SCORES = st.one_of(st.floats(allow_nan=False), st.integers(-(2**40), 2**40))


def loaded(content: bytes) -> dict:
    read: dict = {}
    for query, run, others in read_pickle(io.BytesIO(content)):
        entries = np.frombuffer(run, ENTRY)
        passages = dict(zip(entries["passage"].tolist(), entries["score"].tolist(), strict=True)) | dict(others)
        assert query not in read
        read[query] = passages
    return read


@settings(max_examples=50)
@given(st.dictionaries(IDS, st.dictionaries(IDS, SCORES, max_size=6), max_size=6))
def test_it_reads_what_pickle_wrote(scores):
    for protocol in (2, 3, 4, 5):
        assert loaded(pickle.dumps(scores, protocol)) == scores


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_integers_of_all_lengths_among_many(protocol):
    rng = np.random.default_rng(protocol)
    scores: dict = {}
    for query in rng.permutation(2500).tolist():
        ids = (rng.integers(0, 2**31, rng.integers(1, 60)) >> rng.choice([0, 8, 16, 24])).tolist()
        scores[query * 40] = dict(zip(ids, rng.normal(0, 9, len(ids)).tolist(), strict=True))
    read = loaded(pickle.dumps(scores, protocol))
    assert read == scores and list(read) == list(scores)


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


@pytest.mark.parametrize("code", sorted(set(range(256)) - {ord(code) for code in pickletools.code2op}))
def test_a_byte_that_is_no_opcode_is_refused(code):
    with pytest.raises(RefusedError, match="a malformed opcode, before byte 4"):
        loaded(b"\x80\x04}" + bytes([code]))


@pytest.mark.parametrize("opcode", pickletools.opcodes, ids=lambda opcode: opcode.name)
def test_every_opcode_that_pickle_knows_is_followed_or_refused(opcode):
    rest = b"0\n0\n" + bytes(8) + b"."
    with pytest.raises(RefusedError) as error:
        loaded(b"\x80\x04}(" + opcode.code.encode("latin-1") + rest)
    calls = opcode.name in score_pickle._CALLS
    assert ("a class or function that is named or called" in str(error.value)) == calls


def test_a_string_that_no_table_could_hold_is_refused():
    with pytest.raises(RefusedError, match="a string that is no UTF-8"):
        loaded(pickle.dumps({1: {"\ud83d": 2.0}}))


def test_a_value_that_claims_gigabytes_is_refused_before_it_is_read():
    for code in (b"X", b"T", b"B", b"\x8b"):
        with pytest.raises(RefusedError, match=f"a value of {2**31 - 1} bytes"):
            loaded(b"\x80\x04}(" + code + struct.pack("<i", 2**31 - 1) + b"x.")
    with pytest.raises(RefusedError, match="a line of more than"):
        loaded(b"\x80\x04c" + b"x" * 10_000)


def test_no_more_than_a_query_is_held():
    """A million entries in little memory, although pickle fills the outer dict by a thousand queries at once."""
    content = pickle.dumps({query: dict.fromkeys(range(10**6, 10**6 + 2000), 1.0) for query in range(500)})
    tracemalloc.start()
    try:
        assert sum(len(entries.run) for entries in read_pickle(io.BytesIO(content))) == 500 * 2000 * ENTRY.itemsize
        assert tracemalloc.get_traced_memory()[1] < 6 << 20
    finally:
        tracemalloc.stop()


def test_a_dict_that_two_queries_share_is_refused():
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


def test_the_process_that_reads_starts_without_arrow():
    code = "import sys, pipeline.imports.score_worker; assert not {'pyarrow', 'duckdb'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
