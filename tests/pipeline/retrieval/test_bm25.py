"""BM25 against bm25s on one whole index, and that chunks, batches and processes leave no trace."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import bm25s
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bm25s.tokenization import Tokenizer
from hypothesis import given, settings
from hypothesis import strategies as st

import pipeline.retrieval.bm25
from pipeline.errors import UsageError
from pipeline.retrieval.bm25 import Bm25Index, Bm25Settings, Retrieved, build_index

ANSERINI = Bm25Settings()
OTHER = Bm25Settings(k1=1.2, b=0.75, stop_words="german")


def write(folder: Path, texts: Sequence[str], ids: Sequence[int], group: int = 4) -> list[Path]:
    """Two files, the second empty when there is little."""
    table = pa.table({"passage_id": pa.array(ids, pa.int32()), "text": pa.array(texts, pa.string())})
    paths = [folder / "a.parquet", folder / "b.parquet"]
    pq.write_table(table.slice(0, 10), paths[0], row_group_size=group)
    pq.write_table(table.slice(10), paths[1], row_group_size=group)
    return paths


def indexed(
    folder: Path,
    texts: Sequence[str],
    queries: Sequence[str],
    ids: Sequence[int] | None = None,
    options: Bm25Settings = ANSERINI,
    processes: int = 1,
) -> Bm25Index:
    paths = write(folder, texts, range(len(texts)) if ids is None else ids)
    return build_index(paths, queries, folder / "index", options, processes=processes)


def oracle(
    texts: list[str], queries: list[str], ids: list[int], k: int, options: Bm25Settings
) -> list[list[tuple[int, float]]]:
    """Ids and scores of bm25s itself, by score, then id."""
    tokenizer = Tokenizer(stopwords=options.stop_words)
    tokens = tokenizer.tokenize(texts, show_progress=False)
    model = bm25s.BM25(k1=options.k1, b=options.b, method="lucene")
    model.index((tokens, tokenizer.get_vocab_dict()), show_progress=False)
    found = []
    for terms in tokenizer.tokenize(queries, update_vocab=False, allow_empty=False, show_progress=False):
        scores = model.get_scores_from_ids(terms).tolist()
        ranked = sorted(zip(ids, scores, strict=True), key=lambda pair: (-pair[1], pair[0]))
        found.append([(passage, score) for passage, score in ranked if score > 0][:k])
    return found


def by_query(result: Retrieved, queries: int) -> list[list[tuple[int, float]]]:
    pairs: list[list[tuple[int, float]]] = [[] for _ in range(queries)]
    for query, passage, rank, score in zip(*(column.tolist() for column in result), strict=True):
        pairs[query].append((passage, score))
        assert rank == len(pairs[query])
    return pairs


def same(a: Retrieved, b: Retrieved) -> bool:
    return all(x.dtype == y.dtype and x.tobytes() == y.tobytes() for x, y in zip(a, b, strict=True))


def joined(parts: Sequence[Retrieved]) -> Retrieved:
    return Retrieved(*(np.concatenate(columns) for columns in zip(*parts, strict=True)))


words = st.sampled_from(["cat", "CAT", "dog", "fish", "ünder", "don't", "the", "is", "und", "x", "x2", "—", "rare"])
sentences = st.lists(words, max_size=12).map(" ".join)


@settings(max_examples=60)
@given(
    texts=st.lists(sentences, min_size=1, max_size=25),
    queries=st.lists(st.lists(words | st.just("unseen"), max_size=5).map(" ".join), min_size=1, max_size=5),
    k=st.integers(1, 6),
    chunk=st.integers(1, 9),
    options=st.sampled_from([ANSERINI, OTHER]),
    data=st.data(),
)
def test_agrees_with_bm25s(
    texts: list[str], queries: list[str], k: int, chunk: int, options: Bm25Settings, data: st.DataObject
) -> None:
    ids = data.draw(st.permutations(range(100, 100 + 3 * len(texts), 3)))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(pipeline.retrieval.bm25, "CHUNK_PASSAGES", chunk)
        patch.setattr(pipeline.retrieval.bm25, "_BATCH_PASSAGES", 2)
        patch.setattr(pipeline.retrieval.bm25, "_SLAB_POSTINGS", 7)
        index = indexed(Path(folder), texts, queries, ids, options)
        found = by_query(index.search(range(len(queries)), k), len(queries))
    assert found == oracle(texts, queries, ids, k, options)


@pytest.fixture(scope="module")
def corpus() -> tuple[list[str], list[str]]:
    rng = np.random.default_rng(0)
    vocabulary = np.array([f"w{number}" for number in range(60)])
    texts = [" ".join(vocabulary[rng.zipf(1.3, rng.integers(0, 20)) % 60]) for _ in range(300)]
    return texts, [" ".join(vocabulary[rng.integers(0, 60, 4)]) for _ in range(23)]


@pytest.mark.parametrize("options", [ANSERINI, Bm25Settings(k1=0, b=0), Bm25Settings(k1=2, b=1)])
def test_sums_as_bm25s_does_to_the_last_bit(
    tmp_path: Path, corpus: tuple[list[str], list[str]], options: Bm25Settings
) -> None:
    texts, queries = corpus
    found = indexed(tmp_path, texts, queries, options=options).search(range(23), 300)
    expected = oracle(texts, queries, list(range(300)), 300, options)
    assert sum(map(len, expected)) > 1000
    # One by one: pytest takes minutes to show how long lists differ.
    for got, wanted in zip(by_query(found, 23), expected, strict=True):
        assert got == wanted


def test_chunks_batches_and_processes_leave_no_trace(
    tmp_path: Path, corpus: tuple[list[str], list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, queries = corpus
    (tmp_path / "whole").mkdir()
    whole = indexed(tmp_path / "whole", texts, queries)
    assert whole.chunks == 1
    expected = whole.search(range(23), 10)
    assert len(expected.query) > 200
    for chunk, batch, processes in [(7, 1, 1), (64, 5, 2)]:
        monkeypatch.setattr(pipeline.retrieval.bm25, "CHUNK_PASSAGES", chunk)
        folder = tmp_path / str(chunk)
        folder.mkdir()
        index = indexed(folder, texts, queries, processes=processes)
        assert index.chunks == -(-300 // chunk)
        batches = [range(first, min(first + batch, 23)) for first in range(0, 23, batch)]
        assert same(joined(list(index.search_all(batches, 10, processes=processes))), expected)


def test_ties_at_the_cut_go_to_the_lower_id(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.retrieval.bm25, "CHUNK_PASSAGES", 3)
    index = indexed(tmp_path, ["cat cat cat"] + ["cat dog"] * 8, ["cat"], ids=[3, 7, 5, 8, 6, 4, 2, 1, 0])
    for k in range(1, 10):
        assert index.search(range(1), k).passage_id.tolist() == [3, 0, 1, 2, 4, 5, 6, 7, 8][:k]


def test_a_repeated_query_term_counts_again(tmp_path: Path) -> None:
    index = indexed(tmp_path, ["cat", "dog"], ["cat", "cat cat"])
    once, twice = index.search(range(2), 1).score
    assert twice == 2 * once


def test_queries_that_find_nothing(tmp_path: Path) -> None:
    texts = ["cat", "", "the", "dog"]
    index = indexed(tmp_path, texts, ["", "the of", "unseen", "—", "dog unseen"])
    found = index.search(range(5), 3)
    assert (found.query.tolist(), found.passage_id.tolist(), found.rank.tolist()) == ([4], [3], [1])


def test_nothing_to_index_and_nothing_to_ask(tmp_path: Path) -> None:
    empty = indexed(tmp_path, [], ["cat"]).search(range(1), 5)
    none = indexed(tmp_path, ["cat"], []).search(range(0), 5)
    assert same(empty, none)
    assert [column.dtype for column in none] == [np.int32, np.int32, np.int16, np.float32]
    assert not len(none.query)


def test_positions_refer_to_all_texts(tmp_path: Path) -> None:
    index = indexed(tmp_path, ["cat", "dog"], ["cat", "dog", "cat dog"])
    found = index.search(range(1, 3), 5)
    assert found.query.tolist() == [1, 2, 2]
    assert found.passage_id.tolist() == [1, 0, 1]


def test_progress_counts_every_passage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline.retrieval.bm25, "CHUNK_PASSAGES", 5)
    seen: list[int] = []
    paths = write(tmp_path, ["cat"] * 12, range(12))
    build_index(paths, ["cat"], tmp_path / "index", ANSERINI, processes=1, on_progress=seen.append)
    assert seen == [5, 5, 2]


@pytest.mark.parametrize("k", [0, 32_768])
def test_k_fits_a_rank(tmp_path: Path, k: int) -> None:
    index = indexed(tmp_path, ["cat"], ["cat"])
    with pytest.raises(UsageError, match="32767"):
        index.search(range(1), k)
    with pytest.raises(UsageError, match="32767"):
        index.search_all([range(1)], k, processes=1)


@pytest.mark.parametrize("wrong", [{"k1": -0.1}, {"b": 1.5}, {"b": -0.5}, {"stop_words": "klingon"}])
def test_settings_are_checked(wrong: dict[str, Any]) -> None:
    with pytest.raises(UsageError):
        Bm25Settings(**wrong)
