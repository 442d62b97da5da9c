import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.errors import WorkspaceError
from pipeline.tokens.pairs import TokenChunk, TokenizedTexts
from pipeline.tokens.store import open_store, write_store


def chunks(texts, size):
    for start in range(0, len(texts), size):
        part = texts[start : start + size]
        ids = np.array([token for text in part for token in text], np.int64)
        yield TokenChunk(ids, np.array([len(text) for text in part]), np.array([not text for text in part]))


@given(
    texts=st.lists(st.lists(st.integers(0, 70_000), max_size=5), max_size=20),
    size=st.integers(1, 7),
    vocabulary=st.sampled_from([65_536, 65_537]),
)
def test_a_store_gives_back_what_it_was_given(tmp_path_factory, texts, size, vocabulary):
    texts = [[token % vocabulary for token in text] for text in texts]
    directory = tmp_path_factory.mktemp("tokens") / "store"
    write_store(directory, chunks(texts, size), vocabulary, {"tokenizer": "t"})
    found, expected = open_store(directory), TokenizedTexts.concatenate(chunks(texts, 100))
    assert found.ids.dtype == (np.uint16 if vocabulary == 65_536 else np.int32)
    assert all(np.array_equal(one, other) for one, other in zip(found, expected, strict=True))


def test_a_run_cut_short_leaves_nothing(tmp_path):
    def broken():
        yield from chunks([[1], [2]], 1)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_store(tmp_path / "store", broken(), 10, {})
    assert not list(tmp_path.iterdir())


def test_the_first_of_two_writers_stays(tmp_path):
    def while_another_finishes():
        write_store(tmp_path / "store", chunks([[1, 2]], 1), 10, {})
        yield from chunks([[1, 2]], 1)

    write_store(tmp_path / "store", while_another_finishes(), 10, {})
    assert [path.name for path in tmp_path.iterdir()] == ["store"]
    assert open_store(tmp_path / "store").ids.tolist() == [1, 2]


@pytest.mark.parametrize("file", ["ids", "offsets", "empty", "store.json"])
def test_a_damaged_store_is_refused(tmp_path, file):
    write_store(tmp_path / "store", chunks([[1, 2], [], [3]], 2), 10, {})
    path = tmp_path / "store" / file
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(WorkspaceError, match="not a token store"):
        open_store(tmp_path / "store")
