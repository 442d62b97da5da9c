"""Synthetic texts with the lengths of MS MARCO; words follow Zipf's law, and the most frequent are stop words."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from bm25s.stopwords import STOPWORDS_EN

MARCO_PASSAGES, MARCO_QUERIES = 8_841_823, 808_731
VOCABULARY = 300_000
PASSAGE_WORDS, QUERY_WORDS = 56, 6


def words() -> pa.Array:
    """The vocabulary (VOCABULARY,), most frequent first: stop words, then strings of three to eight letters."""
    rng = np.random.default_rng(0)
    letters = rng.integers(ord("a"), ord("z") + 1, (VOCABULARY, 8), dtype=np.uint8)
    letters[np.arange(8) >= rng.integers(3, 9, (VOCABULARY, 1))] = 0
    vocabulary = letters.view("S8").ravel().astype("U8")
    vocabulary[: len(STOPWORDS_EN)] = STOPWORDS_EN
    return pa.array(vocabulary)


def texts(vocabulary: pa.Array, rng: np.random.Generator, count: int, mean_words: int) -> pa.Array:
    """`count` texts of Zipf-distributed words: the density of rank r is proportional to 1 / (r + 2.7)."""
    lengths = np.maximum(rng.normal(mean_words, mean_words * 0.35, count), 1).astype(np.int32)
    ranks = 2.7 * ((VOCABULARY + 2.7) / 2.7) ** rng.random(lengths.sum()) - 2.7
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
    chosen = vocabulary.take(pa.array(ranks.astype(np.int32)))
    return pc.binary_join(pa.ListArray.from_arrays(offsets, chosen), " ")
