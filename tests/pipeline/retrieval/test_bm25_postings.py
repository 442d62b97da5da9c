import numpy as np
import pytest

import pipeline.retrieval.bm25
import pipeline.retrieval.bm25_postings
from pipeline.collection.texts import CACHE, Texts
from pipeline.imports.msmarco import import_msmarco
from pipeline.retrieval.bm25 import Bm25Settings, build_index
from pipeline.retrieval.bm25_postings import open_postings
from pipeline.storage.workspace import Workspace

TEXTS = [
    "The cat sat on the mat",
    "",
    "a Dog and a cat and a Dog",
    "of the and",
    "Zürich naïve café",
    "mat mat cat",
    "x1 dog",
]
QUERIES = ["cat dog", "the", "zürich café dog dog", "unseen", "", "MAT of x1"]


@pytest.fixture
def collection(tmp_path):
    workspace = Workspace.open(str(tmp_path / "ws"), create=True)
    texts = [text for text in TEXTS if text] * 3
    file = tmp_path / "collection.tsv"
    file.write_text("".join(f"p{i}\t{text}\n" for i, text in enumerate(texts)))
    import_msmarco(workspace, file, [], [])
    return workspace


@pytest.mark.parametrize(("chunk", "processes"), [(1, 1), (4, 2), (1000, 1)])
def test_what_is_kept_gives_the_index_that_the_texts_give(collection, tmp_path, monkeypatch, chunk, processes):
    monkeypatch.setattr(pipeline.retrieval.bm25, "CHUNK_PASSAGES", chunk)
    shape, seen = Bm25Settings(k1=1.2, b=0.7), []
    read = build_index(collection.parts("passages"), QUERIES, tmp_path / "read", shape, processes=1)
    kept = open_postings(
        collection, shape.stop_words, processes=processes, on_progress=lambda *counts: seen.append(counts)
    )
    assert seen[-1] == (18, 18)
    found = [index.search(range(len(QUERIES)), 9) for index in (read, kept.index(QUERIES, tmp_path / "kept", shape))]
    assert all(np.array_equal(*columns) for columns in zip(*found, strict=True)) and len(found[0].query) > 20


def test_counts_are_made_once_and_anew_when_the_collection_grows(collection, tmp_path, monkeypatch):
    first = open_postings(collection, "english", processes=1)
    with monkeypatch.context() as patch:
        patch.setattr(pipeline.retrieval.bm25_postings, "_count", None)
        assert open_postings(collection, "english", processes=1) == first
    file = tmp_path / "more.tsv"
    file.write_text("new\ta new passage\n")
    import_msmarco(collection, file, [], [])
    grown = open_postings(collection, "english", processes=1)
    assert grown.passages == first.passages + 1 == len(Texts(collection, "passages"))
    assert [path.name for path in collection.path(CACHE).glob("*bm25*")] == [grown.directory.name]


def test_a_count_cut_short_leaves_nothing(collection, monkeypatch):
    def die(done, total):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        open_postings(collection, "english", processes=1, on_progress=die)
    assert not list(collection.path(CACHE).glob("*bm25*"))
