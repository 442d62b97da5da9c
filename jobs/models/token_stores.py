"""The token stores of a workspace: `.cache/tokens/<table>-<content>-<tokenizer>`, for `queries` and `passages`.

Made once before scoring, by parallel processes, and mapped by every actor. A cache: safe to remove at any time,
and never part of what scores depend on, since pairs of stored ids equal the tokenizer's own calls.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np

from pipeline.collection.texts import CACHE, Texts
from pipeline.fingerprint import digest_json
from pipeline.processes import map_in_order
from pipeline.storage.atomic_files import remove
from pipeline.storage.workspace import Workspace
from pipeline.tables.parts import content_fingerprint, read_footers
from pipeline.tokens.pairs import TokenChunk, TokenizedTexts
from pipeline.tokens.store import FACTS, open_store, write_store
from teachers.checkpoints.checkpoint import resolve

TABLES = ("queries", "passages")
TEXTS_PER_TASK = 8_192
TEXTS_PER_PROCESS = 100_000
"""A process takes seconds to start; fewer texts are not worth one."""


def make_stores(
    workspace: Workspace,
    checkpoint: str,
    *,
    processes: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Make what is missing of a checkpoint's two stores; nothing for a tokenizer that gives no plain ids.

    The callback gets texts tokenised, and all of the table.
    """
    missing = [table for table in TABLES if not workspace.fetch(_place(workspace, table, checkpoint), FACTS)]
    if not missing:
        return
    from teachers.tokens.text_tokens import tokenizer_of, vocabulary_of

    tokenizer_hash = resolve(checkpoint).tokenizer_hash
    tokenizer = tokenizer_of(checkpoint, tokenizer_hash)
    if not tokenizer.is_fast:
        return
    for table in missing:
        place = _place(workspace, table, checkpoint)
        _remove_older(workspace, place.name, table)
        source = _Source(workspace.location, table, place.name)
        count = len(source.texts())
        ranges = [range(start, min(start + TEXTS_PER_TASK, count)) for start in range(0, count, TEXTS_PER_TASK)]
        workers = min(processes or os.cpu_count() or 1, 1 + count // TEXTS_PER_PROCESS)
        chunks = map_in_order(partial(_tokenise, source, checkpoint, tokenizer_hash), ranges, processes=workers)
        made_from = {"table": table, "checkpoint": checkpoint, **_libraries()}
        write_store(place, _counted(chunks, count, on_progress), vocabulary_of(tokenizer), made_from)
        workspace.share(place, FACTS)


def open_stores(workspace: Workspace, checkpoint: str) -> tuple[TokenizedTexts, TokenizedTexts] | None:
    """The ids of all queries and all passages, by id; None where they have not been made.

    Raises:
        WorkspaceError: a store is damaged.
    """
    places = [_place(workspace, table, checkpoint) for table in TABLES]
    if not all(workspace.fetch(place, FACTS) for place in places):
        return None
    queries, passages = map(open_store, places)
    return queries, passages


def _place(workspace: Workspace, table: str, checkpoint: str) -> Path:
    content = content_fingerprint(read_footers(workspace.parts(table)))
    made_by = digest_json({"tokenizer": resolve(checkpoint).tokenizer_hash, **_libraries()})
    return workspace.local / CACHE / "tokens" / f"{table}-{content}-{made_by}"


def _libraries() -> dict[str, str]:
    return {name: version(name) for name in ("transformers", "tokenizers")}


def _remove_older(workspace: Workspace, name: str, table: str) -> None:
    """Remove stores of the table as it was; whoever reads one keeps its mapping."""
    content = name.rsplit("-", 1)[0]
    for root in {workspace.root, workspace.local}:
        for other in root.joinpath(CACHE, "tokens").glob(f"{table}-*"):
            if not other.name.startswith(content):
                remove(other)


def _counted(chunks: Iterator[TokenChunk], total: int, on_progress: Callable[[int, int], None]) -> Iterator[TokenChunk]:
    done = 0
    for chunk in chunks:
        yield chunk
        done += len(chunk.lengths)
        on_progress(done, total)


class _Source(NamedTuple):
    """A table's texts, to be opened where they are read."""

    location: str
    table: str
    state: str
    """Of the table: texts that a process has open are of one state."""

    @cache  # noqa: B019 - a process works on a few tables
    def texts(self) -> Texts:
        return Texts(Workspace.open(self.location), self.table)


def _tokenise(source: _Source, checkpoint: str, tokenizer_hash: str, rows: range) -> TokenChunk:
    """The ids of some rows of a table; runs in a worker."""
    from teachers.tokens.text_tokens import tokenise, tokenizer_of

    texts = source.texts().take(np.arange(rows.start, rows.stop))
    return tokenise(tokenizer_of(checkpoint, tokenizer_hash), texts)
