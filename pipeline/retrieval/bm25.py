"""BM25 retrieval over millions of passages: builds the index that `pipeline.retrieval.bm25_index` searches.

In: Parquet files with `passage_id` int32 and `text` string, and the texts of all queries. Out: an index of
the terms that occur in the queries, in chunks of passages; a process needs the memory of one chunk. Tokens,
formula and sums are those of bm25s (method "lucene", its Tokenizer, no stemmer), to the last bit. A passage
without tokens is one token long, as there; unlike there, no query finds it.

Writes no provenance: the directory is the caller's scratch, and whole once `build_index` returns.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import repeat
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pyarrow as pa
from bm25s.scoring import _score_idf_lucene, _score_tfc_lucene
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
    """Some rows of a row group of a Parquet file."""

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
        query_texts: what the positions given to `Bm25Index.search` refer to.
        directory: where the index is written; made if it is not there.
        settings: what shapes the scores.
        processes: how many work at once; 1 is the calling one alone.
        on_progress: receives the number of passages newly indexed.

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
    """Turn the term counts of all chunks into what each posting adds to a score."""
    np.save(directory / "idf.npy", _idf(directory, chunks, passages))
    write_impacts = partial(_write_impacts, directory, settings, np.float64(tokens / max(passages, 1)))
    for _ in map_in_order(write_impacts, range(chunks), processes=processes):
        pass
    return Bm25Index(directory, chunks)


def chunks_of(passages: Sequence[AnyPath]) -> Iterator[list[Span]]:
    """All rows in order, as lists of CHUNK_PASSAGES rows; the last one may be shorter."""
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
    """Term ids of each query, flat with offsets, and the vocabulary: the line number is the term id."""
    tokenizer = Tokenizer(stopwords=settings.stop_words)
    flat, offsets = array("i"), array("q", [0])
    for ids in tokenizer.streaming_tokenize(texts, update_vocab=True, allow_empty=False):
        flat.extend(ids)
        offsets.append(len(flat))
    np.save(directory / "query_terms.npy", np.array(flat, np.int32))
    np.save(directory / "query_offsets.npy", np.array(offsets, np.int64))  # (Q + 1,)
    vocabulary_path(directory).write_text("".join(f"{term}\n" for term in tokenizer.word_to_id), encoding="utf-8")


def vocabulary_path(directory: Path) -> Path:
    """Where the queries' terms stand."""
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
    # As Tokenizer does, without its vocabulary, which would grow with the collection.
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
    """A key (term << 32 | row) for each occurrence of a term, and the numbers of passages and of their tokens.

    Saves the chunk's passage ids and their lengths. Words without a term have a negative one: STOP_WORD does not
    count in a length, others do.
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
    """Length of each passage in tokens (N,), then term and row of every word that has a term."""
    words: list[str] = []
    counts = []
    for text in texts:
        found = splitter(text.lower())
        counts.append(len(found))
        words += found
    terms = np.fromiter(terms_of(words), np.int32, len(words))  # (W,)
    rows = np.repeat(np.arange(len(texts)), counts)  # (W,)
    lengths = np.bincount(rows[terms != STOP_WORD], minlength=len(texts))
    known = terms >= 0
    return np.maximum(lengths, 1).astype(np.int32), terms[known], rows[known]


def save_postings(chunk: Chunk, keys: np.ndarray, terms: int) -> None:
    """Write term counts by term, then row, from a key (term << 32 | row) for each occurrence."""
    keys, counts = np.unique(keys, return_counts=True)  # (P,)
    df = np.bincount(keys >> 32, minlength=terms)  # (V,)
    chunk.save("indptr", np.cumsum(np.append(0, df)))
    chunk.save("documents", (keys & 0xFFFFFFFF).astype(np.int32))
    chunk.save("counts", counts.astype(np.min_scalar_type(counts.max(initial=0))))


def _idf(directory: Path, chunks: int, passages: int) -> np.ndarray:
    """Inverse document frequency of each term, (V,) float32."""
    df = sum((np.diff(Chunk(directory, number).map("indptr")) for number in range(chunks)), np.zeros(1, np.int64))
    values, where = np.unique(df, return_inverse=True)
    idf = np.array([_score_idf_lucene(int(one), passages) for one in values], np.float32)
    return idf[where]


def _write_impacts(directory: Path, settings: Bm25Settings, mean_length: np.float64, number: int) -> None:
    """Second pass over a chunk: the score that each posting adds, (P,) float32, in place of its count.

    Kamphuis et al., "Which BM25 do you mean?", ECIR 2020, the row "Lucene (accurate)".
    """
    chunk = Chunk(directory, number)
    documents, counts, lengths = chunk.map("documents"), chunk.map("counts"), chunk.map("lengths")
    idf = np.repeat(np.load(directory / "idf.npy"), np.diff(chunk.map("indptr")))  # (P,)
    impacts = np.empty(len(counts), np.float32)
    for start in range(0, len(counts), _SLAB_POSTINGS):
        part = slice(start, start + _SLAB_POSTINGS)
        tf = counts[part].astype(np.float32)
        impacts[part] = idf[part] * _score_tfc_lucene(
            tf, lengths[documents[part]], mean_length, settings.k1, settings.b
        )
    chunk.save("impacts", impacts)
    chunk.path("counts").unlink()
    chunk.path("lengths").unlink()
