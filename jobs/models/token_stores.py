"""The token stores of a workspace: `.cache/tokens/<table>-<content>-<tokenizer>`, for `queries` and `passages`.

Parallel processes create them once before scoring, and every actor maps them into memory. They are a cache: safe to
remove at any time, and without influence on scores, since pairs made from stored ids equal the tokenizer's pair calls.
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
from pipeline.fingerprint import digest_files, digest_json
from pipeline.processes import map_in_order
from pipeline.storage.atomic_files import remove
from pipeline.storage.workspace import Workspace
from pipeline.tables.parts import content_fingerprint, read_footers
from pipeline.tokens.pairs import TokenChunk, TokenizedTexts
from pipeline.tokens.store import FACTS, open_store, write_store
from teachers.checkpoints.checkpoint import Checkpoint, resolve
from teachers.checkpoints.inputs import is_trained_here
from teachers.checkpoints.model_files import read_object

TABLES = ("queries", "passages")
TEXTS_PER_TASK = 8_192
TEXTS_PER_PROCESS = 100_000
"""A process takes seconds to start, so a further process is only started for each this many texts."""


def make_stores(
    workspace: Workspace,
    checkpoint: str | Checkpoint,
    *,
    prompts: tuple[str, str] = ("", ""),
    processes: int | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> None:
    """Create the two stores of a checkpoint's tokenizer if they are missing; slow tokenizers get none.

    Args:
        workspace: has the texts.
        checkpoint: has the tokenizer; a name is resolved here.
        prompts: texts put before every query and before every passage.
        processes: the most to run in parallel; None means one per CPU.
        on_progress: receives the texts tokenised so far and the size of the table.
    """
    checkpoint = resolve(checkpoint)
    before = dict(zip(TABLES, prompts, strict=True))
    directories = {table: _directory(workspace, table, checkpoint, prompt) for table, prompt in before.items()}
    missing = [table for table, directory in directories.items() if not workspace.fetch(directory, FACTS)]
    if not missing:
        return
    from teachers.tokens.text_tokens import tokenizer_of, vocabulary_of

    tokenizer = tokenizer_of(checkpoint, checkpoint.tokenizer_hash)
    if not tokenizer.is_fast:
        return
    for table in missing:
        directory = directories[table]
        _remove_older(workspace, directory.name, table)
        source = _Source(workspace.location, table, directory.name)
        count = len(source.texts())
        ranges = [range(start, min(start + TEXTS_PER_TASK, count)) for start in range(0, count, TEXTS_PER_TASK)]
        workers = min(processes or os.cpu_count() or 1, 1 + count // TEXTS_PER_PROCESS)
        chunks = map_in_order(partial(_tokenise, source, checkpoint, before[table]), ranges, processes=workers)
        made_from = {"table": table, "checkpoint": checkpoint.name, **_libraries()}
        write_store(directory, _counted(chunks, count, on_progress), vocabulary_of(tokenizer), made_from)
        workspace.share(directory, FACTS)


def open_stores(
    workspace: Workspace, checkpoint: str | Checkpoint, prompts: tuple[str, str] = ("", "")
) -> tuple[TokenizedTexts, TokenizedTexts] | None:
    """The token ids of all queries and all passages after their prompts, by row; None if they have not been made.

    Raises:
        WorkspaceError: a store is damaged.
    """
    checkpoint = resolve(checkpoint)
    directories = [
        _directory(workspace, table, checkpoint, prompt) for table, prompt in zip(TABLES, prompts, strict=True)
    ]
    if not all(workspace.fetch(directory, FACTS) for directory in directories):
        return None
    queries, passages = map(open_store, directories)
    return queries, passages


def _directory(workspace: Workspace, table: str, checkpoint: Checkpoint, prompt: str) -> Path:
    content = content_fingerprint(read_footers(workspace.parts(table)))
    prompted = {"prompt": prompt} if prompt else {}
    made_by = digest_json({"tokenizer": _tokenizer_identity(checkpoint), **_libraries(), **prompted})
    return workspace.local / CACHE / "tokens" / f"{table}-{content}-{made_by}"


def _tokenizer_identity(checkpoint: Checkpoint) -> str:
    """Identity of a tokenizer as far as texts without special tokens depend on it.

    Students carry their limits in their tokenizer's files: those of one start share its store all the same.
    """
    directory = checkpoint.tokenizer_directory
    path = directory / "tokenizer_config.json"
    content, vocabulary = read_object(path), directory / "tokenizer.json"
    definition = checkpoint.definition
    if definition.lower_case or definition.prefix_tokens:
        return checkpoint.tokenizer_hash
    if not (is_trained_here(directory) and vocabulary.is_file() and content.get("model_max_length", 1e9) < 1e9):
        return checkpoint.tokenizer_hash
    kept = {key: value for key, value in content.items() if key not in ("model_max_length", "model_input_names")}
    return digest_json([digest_files([vocabulary]), kept])


def _libraries() -> dict[str, str]:
    return {name: version(name) for name in ("transformers", "tokenizers")}


def _remove_older(workspace: Workspace, name: str, table: str) -> None:
    """Remove stores of earlier states of the table; a process that has one mapped keeps its mapping."""
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
    """A table, whose texts are opened in the process that reads them."""

    location: str
    table: str
    state: str
    """Name of the store: part of the key, so that a changed table is opened anew."""

    @cache  # noqa: B019 - a process works on a few tables
    def texts(self) -> Texts:
        return Texts(Workspace.open(self.location), self.table)


def _tokenise(source: _Source, checkpoint: Checkpoint, prompt: str, rows: range) -> TokenChunk:
    """The token ids of some rows of a table after the prompt; runs in a worker process."""
    from teachers.tokens.text_tokens import tokenise, tokenizer_of

    texts = source.texts().take(np.arange(rows.start, rows.stop))
    return tokenise(tokenizer_of(checkpoint, checkpoint.tokenizer_hash), texts, prompt)
