"""BM25 retrieval over millions of passages: builds the index that `pipeline.retrieval.bm25_index` searches.

Input: Parquet files with `passage_id` int32 and `text` string, and the texts of all queries. Output: an index of the
terms that occur in the queries, in chunks of passages; a process needs the memory of one chunk. Scores equal those of
bm25s (Lù, "BM25S", arXiv:2407.03618, 2024; method "lucene", its Tokenizer without stemmer) to the last bit. The formula
is "Lucene (accurate)" of Kamphuis et al., "Which BM25 do you mean?", ECIR 2020: the sum over the query's terms t of

    idf(t) * tf / (tf + k1 * (1 - b + b * length / mean length)),  idf(t) = log(1 + (N - df(t) + 0.5) / (df(t) + 0.5))

with lengths in tokens. As in bm25s, a passage without tokens counts as one token long; unlike there, it is never
retrieved.

Writes no provenance: the directory is scratch space of the caller, and is complete once `build_index` returns.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from bm25s.tokenization import Tokenizer

from pipeline.processes import map_in_order
from pipeline.retrieval.bm25_index import Bm25Index, Chunk, Retrieved
from pipeline.retrieval.settings import Bm25Settings
from pipeline.storage.location import AnyPath
from pipeline.tables.parquet import metadata_of, open_parquet

__all__ = ["Bm25Index", "Bm25Settings", "Retrieved", "build_index"]

CHUNK_PASSAGES = 131_072
_BATCH_PASSAGES = 2_048
_SLAB_POSTINGS = 1 << 20
_OTHER_WORD, STOP_WORD = -1, -2

# Shapes: V terms of all queries, Q queries, N passages and P postings of a chunk, W words of a batch.


class Span(NamedTuple):
    """A range of rows in a row group of a Parquet file."""

    path: AnyPath
    row_group: int
    start: int
    rows: int


def build_index(
    passages: Sequence[AnyPath],
    query_texts: Sequence[str],
    directory: Path,
    settings: Bm25Settings,
    *,
    processes: int,
    on_progress: Callable[[int], None] = lambda _: None,
) -> Bm25Index:
    """Index the passages for these queries.

    Args:
        passages: Parquet files; small row groups are joined, large ones cut, to 131,072 passages.
        query_texts: the queries; `Bm25Index.search` takes positions in this sequence.
        directory: where the index is written; created if missing.
        settings: parameters of the scores.
        processes: number of parallel processes; with 1, the calling process does the work.
        on_progress: receives the number of newly indexed passages.

    Raises:
        PrepError: a worker died.
    """
    directory.mkdir(parents=True, exist_ok=True)
    write_queries(query_texts, directory, settings)
    chunks = list(chunks_of(passages))
    count, tokens = 0, 0
    write_postings = partial(_write_postings, directory, settings)
    for new, new_tokens in map_in_order(write_postings, enumerate(chunks), processes=processes):
        count, tokens = count + new, tokens + new_tokens
        on_progress(new)
    return finish_index(directory, len(chunks), count, tokens, settings, processes=processes)


def finish_index(
    directory: Path, chunks: int, passages: int, tokens: int, settings: Bm25Settings, *, processes: int
) -> Bm25Index:
    """Replace the term counts of all chunks by impacts: what each posting adds to a score."""
    np.save(directory / "idf.npy", _idfs(directory, chunks, passages))
    write_impacts = partial(_write_impacts, directory, settings, np.float64(tokens / max(passages, 1)))
    for _ in map_in_order(write_impacts, range(chunks), processes=processes):
        pass
    return Bm25Index(directory, chunks)


def chunks_of(passages: Sequence[AnyPath]) -> Iterator[list[Span]]:
    """Divide all rows, in order, into chunks of CHUNK_PASSAGES rows; the last chunk may be smaller."""
    chunk: list[Span] = []
    room = CHUNK_PASSAGES
    for path in passages:
        metadata = metadata_of(path)
        for group in range(metadata.num_row_groups):
            start, end = 0, metadata.row_group(group).num_rows
            while start < end:
                rows = min(room, end - start)
                chunk.append(Span(path, group, start, rows))
                start, room = start + rows, room - rows
                if not room:
                    yield chunk
                    chunk, room = [], CHUNK_PASSAGES
    if chunk:
        yield chunk


def write_queries(texts: Sequence[str], directory: Path, settings: Bm25Settings) -> None:
    """Write the queries' term ids, flat with offsets, and the vocabulary, whose line numbers are the term ids."""
    tokenizer = Tokenizer(stopwords=settings.stop_words)
    flat, offsets = array("i"), array("q", [0])
    for ids in tokenizer.streaming_tokenize(texts, update_vocab=True, allow_empty=False):
        flat.extend(ids)
        offsets.append(len(flat))
    np.save(directory / "query_terms.npy", np.array(flat, np.int32))
    np.save(directory / "query_offsets.npy", np.array(offsets, np.int64))  # (Q + 1,)
    vocabulary_path(directory).write_text("".join(f"{term}\n" for term in tokenizer.word_to_id), encoding="utf-8")


def vocabulary_path(directory: Path) -> Path:
    """Path of the file with the queries' terms."""
    return directory / "vocabulary.txt"


def _write_postings(directory: Path, settings: Bm25Settings, numbered: tuple[int, list[Span]]) -> tuple[int, int]:
    """First pass over a chunk: count the queries' terms. Returns the number of its passages and of their tokens."""
    number, spans = numbered
    tokenizer = Tokenizer(stopwords=settings.stop_words)
    with vocabulary_path(directory).open(encoding="utf-8") as lines:
        vocabulary = {line[:-1]: term for term, line in enumerate(lines)}
    terms = len(vocabulary)
    vocabulary |= dict.fromkeys(tokenizer.stopwords, STOP_WORD)
    chunk = Chunk(directory, number)
    # Splits as Tokenizer does, but without its vocabulary, which would grow with the collection.
    keys, rows, tokens = count_terms(
        chunk, spans, tokenizer.splitter, lambda words: map(vocabulary.get, words, repeat(_OTHER_WORD))
    )
    save_postings(chunk, keys, terms)
    return rows, tokens


def count_terms(
    chunk: Chunk,
    spans: list[Span],
    splitter: Callable[[str], list[str]],
    terms_of: Callable[[list[str]], Iterator[int]],
) -> tuple[np.ndarray, int, int]:
    """Read a chunk's passages: save their ids and lengths, and return their terms.

    Args:
        chunk: the chunk that the arrays `passage_ids` and `lengths` are saved in.
        spans: the rows to read.
        splitter: splits a lower-cased text into words.
        terms_of: maps words to term ids. Negative ids are not indexed: STOP_WORD does not count in a passage's length,
            other negative ids do.

    Returns:
        A key (term << 32 | row) for each occurrence of a term, the number of passages, and the number of their tokens.
    """
    ids, lengths, keys = [], [], []
    start = 0
    for batch in _read(spans):
        batch_lengths, batch_terms, rows = _tokenize(batch["text"].to_pylist(), splitter, terms_of)
        ids.append(batch["passage_id"].to_numpy())
        lengths.append(batch_lengths)
        keys.append(batch_terms.astype(np.int64) << 32 | (rows + start))
        start += batch.num_rows
    chunk.save("passage_ids", np.concatenate(ids))
    chunk.save("lengths", np.concatenate(lengths))
    return np.concatenate(keys), start, int(sum(part.sum() for part in lengths))


def _read(spans: list[Span]) -> Iterator[pa.RecordBatch]:
    for span in spans:
        with open_parquet(span.path) as file:
            seen, end = 0, span.start + span.rows
            columns = ["passage_id", "text"]
            for batch in file.iter_batches(_BATCH_PASSAGES, [span.row_group], columns, use_threads=False):
                first, last = max(span.start - seen, 0), min(end - seen, batch.num_rows)
                if first < last:
                    yield batch.slice(first, last - first)
                seen += batch.num_rows
                if seen >= end:
                    break


def _tokenize(
    texts: list[str], splitter: Callable[[str], list[str]], terms_of: Callable[[list[str]], Iterator[int]]
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Length of each passage in tokens (N,), and term and row of every word that has a term."""
    words: list[str] = []
    counts = []
    for text in texts:
        split = splitter(text.lower())
        counts.append(len(split))
        words += split
    terms = np.fromiter(terms_of(words), np.int32, len(words))  # (W,)
    rows = np.repeat(np.arange(len(texts)), counts)  # (W,)
    lengths = np.bincount(rows[terms != STOP_WORD], minlength=len(texts))
    known = terms >= 0
    return np.maximum(lengths, 1).astype(np.int32), terms[known], rows[known]


def save_postings(chunk: Chunk, keys: np.ndarray, terms: int) -> None:
    """Save term counts sorted by term, then row, from a key (term << 32 | row) for each occurrence."""
    keys, counts = np.unique(keys, return_counts=True)  # (P,)
    df = np.bincount(keys >> 32, minlength=terms)  # (V,)
    chunk.save("indptr", np.cumsum(np.append(0, df)))
    chunk.save("documents", (keys & 0xFFFFFFFF).astype(np.int32))
    chunk.save("counts", counts.astype(np.min_scalar_type(counts.max(initial=0))))


def idf(df: int, passages: int) -> float:
    """Inverse document frequency of a term that `df` of the passages contain.

    >>> idf(1, 1) < idf(1, 10)
    True
    """
    return math.log(1 + (passages - df + 0.5) / (df + 0.5))


def saturated_tf(tf: np.ndarray, lengths: np.ndarray, mean_length: np.float64, settings: Bm25Settings) -> np.ndarray:
    """Saturated, length-normalised term frequencies (P,) of postings with term counts `tf` (P,)."""
    # The order of the operations is that of bm25s: another one would differ in the last bit.
    saturated: np.ndarray = tf / (settings.k1 * ((1 - settings.b) + settings.b * lengths / mean_length) + tf)
    return saturated


def _idfs(directory: Path, chunks: int, passages: int) -> np.ndarray:
    """Inverse document frequency of each term, (V,) float32."""
    df = sum((np.diff(Chunk(directory, number).map("indptr")) for number in range(chunks)), np.zeros(1, np.int64))
    values, where = np.unique(df, return_inverse=True)
    return np.array([idf(int(value), passages) for value in values], np.float32)[where]


def _write_impacts(directory: Path, settings: Bm25Settings, mean_length: np.float64, number: int) -> None:
    """Second pass over a chunk: replace each posting's count by what it adds to a score, (P,) float32."""
    chunk = Chunk(directory, number)
    documents, counts, lengths = chunk.map("documents"), chunk.map("counts"), chunk.map("lengths")
    idfs = np.repeat(np.load(directory / "idf.npy"), np.diff(chunk.map("indptr")))  # (P,)
    impacts = np.empty(len(counts), np.float32)
    for start in range(0, len(counts), _SLAB_POSTINGS):
        part = slice(start, start + _SLAB_POSTINGS)
        tf = counts[part].astype(np.float32)
        impacts[part] = idfs[part] * saturated_tf(tf, lengths[documents[part]], mean_length, settings)
    chunk.save("impacts", impacts)
    chunk.path("counts").unlink()
    chunk.path("lengths").unlink()
