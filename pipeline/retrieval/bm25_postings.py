"""A cache of the term counts of a whole collection, for interactive queries: they need not read the texts again.

It is a directory under `.cache`, named by the passages' content and the stop words, and may be deleted at any time.
Each chunk of passages has its own sorted `terms`, and for each term the passages that contain it and how often.
`Postings.index` selects the terms of some queries; the resulting index equals that of
`pipeline.retrieval.bm25.build_index` to the last bit.
"""

from __future__ import annotations

import shutil
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
from bm25s.tokenization import Tokenizer

from pipeline.collection.texts import CACHE
from pipeline.processes import map_in_order
from pipeline.retrieval.bm25 import (
    STOP_WORD,
    Bm25Settings,
    Span,
    chunks_of,
    count_terms,
    finish_index,
    save_postings,
    vocabulary_path,
    write_queries,
)
from pipeline.retrieval.bm25_index import Bm25Index, Chunk
from pipeline.storage.location import AnyPath
from pipeline.storage.published_sets import staged_directory
from pipeline.storage.workspace import Workspace
from pipeline.tables.parts import content_fingerprint, read_footers

_FACTS = "postings.json"
_TERM = pa.schema([pa.field("term", pa.string(), nullable=False)])


@dataclass(frozen=True)
class Postings:
    """Term counts on disk."""

    directory: Path
    chunks: int
    passages: int
    tokens: int

    def index(self, query_texts: Sequence[str], directory: Path, settings: Bm25Settings) -> Bm25Index:
        """Write an index for these queries into `directory`: as `build_index`, but from the cached counts."""
        directory.mkdir(parents=True, exist_ok=True)
        write_queries(query_texts, directory, settings)
        terms = vocabulary_path(directory).read_text(encoding="utf-8").split("\n")[:-1]
        for number in range(self.chunks):
            _select(Chunk(self.directory, number), Chunk(directory, number), _Terms(self.directory, number), terms)
        return finish_index(directory, self.chunks, self.passages, self.tokens, settings, processes=1)


def open_postings(
    workspace: Workspace,
    stop_words: str,
    *,
    processes: int,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> Postings:
    """Open the term counts of the workspace's passages; count them first if they are not cached.

    While counting, `on_progress` receives the number of passages counted so far and the number of all passages.

    Raises:
        PrepError: a worker died.
    """
    passages = workspace.parts("passages")
    footers = read_footers(passages)
    directory = workspace.local.joinpath(CACHE, f"bm25-{content_fingerprint(footers)}-{stop_words}")
    if not directory.is_dir():
        with staged_directory(directory) as staged:
            facts = _count(staged, passages, stop_words, processes, on_progress, sum(f.rows for f in footers))
            Workspace(staged).write_json(facts, _FACTS)
        for older in directory.parent.glob("bm25-*"):
            if older != directory:
                shutil.rmtree(older, ignore_errors=True)
    facts = Workspace(directory).read_json(_FACTS)
    return Postings(directory, facts["chunks"], facts["passages"], facts["tokens"])


def _count(
    directory: Path,
    passages: Sequence[AnyPath],
    stop_words: str,
    processes: int,
    on_progress: Callable[[int, int], None],
    total: int,
) -> dict[str, int]:
    chunks = list(chunks_of(passages))
    count, tokens = 0, 0
    work = partial(_count_chunk, directory, stop_words)
    # More processes than chunks would be idle.
    for new, new_tokens in map_in_order(work, enumerate(chunks), processes=max(1, min(processes, len(chunks)))):
        count, tokens = count + new, tokens + new_tokens
        on_progress(count, total)
    return {"chunks": len(chunks), "passages": count, "tokens": tokens}


class _Vocabulary(dict[str, int]):
    """Maps words to term ids; a new word gets the next id."""

    def __init__(self, stop_words: Sequence[str]) -> None:
        super().__init__(dict.fromkeys(stop_words, STOP_WORD))
        self._stop_words = len(self)

    def __missing__(self, word: str) -> int:
        term = self[word] = len(self) - self._stop_words
        return term


def _count_chunk(directory: Path, stop_words: str, numbered: tuple[int, list[Span]]) -> tuple[int, int]:
    """Count all terms of a chunk. Returns the numbers of its passages and of their tokens."""
    number, spans = numbered
    tokenizer = Tokenizer(stopwords=stop_words)
    vocabulary, chunk = _Vocabulary(tokenizer.stopwords), Chunk(directory, number)
    keys, rows, tokens = count_terms(chunk, spans, tokenizer.splitter, partial(map, vocabulary.__getitem__))
    terms = [word for word, term in vocabulary.items() if term >= 0]
    order = sorted(range(len(terms)), key=terms.__getitem__)
    sorted_position = np.empty(len(terms), np.int64)
    sorted_position[order] = np.arange(len(terms))
    save_postings(chunk, sorted_position[keys >> 32] << 32 | keys & 0xFFFFFFFF, len(terms))
    batch = pa.record_batch([pa.array([terms[i] for i in order], pa.string())], schema=_TERM)
    with pa.ipc.new_file(str(chunk.path("terms").with_suffix(".arrow")), _TERM) as writer:
        writer.write_batch(batch)
    return rows, tokens


class _Terms(Sequence[str]):
    """A chunk's sorted terms, memory-mapped."""

    def __init__(self, directory: Path, number: int) -> None:
        path = Chunk(directory, number).path("terms").with_suffix(".arrow")
        self._terms = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0).column(0)

    def __len__(self) -> int:
        return len(self._terms)

    def __getitem__(self, index: int) -> str:  # type: ignore[override]
        return self._terms[index].as_py()  # type: ignore[no-any-return]


def _select(kept: Chunk, chunk: Chunk, known: _Terms, terms: Sequence[str]) -> None:
    """Copy a chunk's postings of `terms`; positions in `terms` become the term ids."""
    starts, slices = kept.map("indptr"), []
    for term in terms:
        position = bisect_left(known, term)
        is_known = position < len(known) and known[position] == term
        slices.append(slice(int(starts[position]), int(starts[position + 1])) if is_known else slice(0, 0))
    chunk.save("indptr", np.cumsum([0, *(part.stop - part.start for part in slices)]))
    for name in ("documents", "counts"):
        column = kept.map(name)
        chunk.save(name, np.concatenate([column[:0], *(column[part] for part in slices)]))
    for name in ("passage_ids", "lengths"):
        chunk.save(name, kept.map(name))
