"""Token ids of a whole table on disk: each text is tokenised once per tokenizer, then memory-mapped.

A store is a directory of flat files, in the machine's byte order:

    ids      (total tokens,) uint16, or int32 where the vocabulary is larger
    offsets  (N + 1,) int64: text i is ids[offsets[i]:offsets[i + 1]]
    empty    (N,) bool: the text is the empty string
    store.json  counts, type, and what the ids were made from

The directory is written under a temporary name and renamed: a store that exists is complete. Works on ids, without a
tokenizer. NumPy only.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline.errors import WorkspaceError
from pipeline.storage.published_sets import staged_directory
from pipeline.tokens.pairs import TokenChunk, TokenizedTexts

FACTS = "store.json"
_SMALL = np.iinfo(np.uint16).max


def write_store(directory: Path, chunks: Iterable[TokenChunk], vocabulary: int, made_from: dict[str, Any]) -> None:
    """Write a store from chunks in order; memory is bounded by the largest chunk.

    If another process finishes the same store first, its files are kept.

    Args:
        directory: the store's directory; its name must identify the content.
        chunks: the token ids of all texts.
        vocabulary: the largest id plus one.
        made_from: JSON values that are kept in the store.
    """
    with staged_directory(directory) as staged:
        dtype = np.uint16 if vocabulary <= _SMALL + 1 else np.int32
        texts, tokens = _write(staged, chunks, dtype)
        facts = {"texts": texts, "tokens": tokens, "dtype": np.dtype(dtype).name, "byte_order": sys.byteorder}
        (staged / FACTS).write_text(json.dumps({**facts, "made_from": made_from}, indent=2), encoding="utf-8")


def open_store(directory: Path) -> TokenizedTexts:
    """Open a store, memory-mapped.

    Raises:
        WorkspaceError: the store is missing or damaged, or has the byte order of another machine.
    """
    try:
        facts = json.loads((directory / FACTS).read_text(encoding="utf-8"))
        if facts["byte_order"] != sys.byteorder:
            raise ValueError(f"byte order {facts['byte_order']}")
        texts, tokens = int(facts["texts"]), int(facts["tokens"])
        return TokenizedTexts(
            _map(directory / "ids", np.dtype(facts["dtype"]), tokens),
            _map(directory / "offsets", np.dtype(np.int64), texts + 1),
            _map(directory / "empty", np.dtype(np.bool_), texts),
        )
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkspaceError(
            "not a token store", where=directory, found=error, todo="remove the directory: it will be made again"
        ) from error


def _write(directory: Path, chunks: Iterable[TokenChunk], dtype: type[np.integer]) -> tuple[int, int]:
    """Write the arrays. Returns the numbers of texts and of tokens."""
    texts, tokens = 0, 0
    names = ("ids", "offsets", "empty")
    streams = [(directory / name).open("wb") for name in names]
    try:
        ids, offsets, empty = streams
        offsets.write(np.zeros(1, np.int64).tobytes())
        for chunk in chunks:
            ids.write(chunk.ids.astype(dtype).tobytes())
            offsets.write((tokens + np.cumsum(chunk.lengths, dtype=np.int64)).tobytes())
            empty.write(chunk.empty.astype(np.bool_).tobytes())
            texts, tokens = texts + len(chunk.lengths), tokens + len(chunk.ids)
    finally:
        for stream in streams:
            stream.close()
    return texts, tokens


def _map(path: Path, dtype: np.dtype[Any], count: int) -> NDArray[Any]:
    expected = dtype.itemsize * count
    if path.stat().st_size != expected:
        raise ValueError(f"{path.name}: {path.stat().st_size} bytes, not {expected}")
    if not count:
        return np.empty(0, dtype)
    # Not an np.memmap: its slices cost microseconds each.
    return np.asarray(np.memmap(path, dtype, "r", shape=(count,)))
