"""The separate process of `score_process`: reads a pickle under a memory limit and sends its scores.

Imports little, because every import of a pickle waits for this process to start.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import InputError
from pipeline.imports.score_pickle import ENTRY, Entries, RefusedError, read_pickle
from pipeline.tables.compression import DAMAGED, open_binary

_BYTES_PER_BATCH = 4 << 20
_EXPECTED = "a pickled dict of dicts, query -> {passage -> score}, of integers, floats and strings alone"


def send_scores(path: str, sender: Connection, memory_bytes: int) -> None:
    """Send the scores of a pickle, then `{"end": true}`; or `{"error", "expected", "found"}` in place of either.

    A message of scores has two parts: facts (queries, how many entries each has, the passages that are no 32-bit
    integers), and the entries, or the scores of these passages.

    Args:
        path: the pickle, plain or compressed.
        sender: connection to the process that imports the scores.
        memory_bytes: address space that this process may use beyond what it has now.
    """
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open_binary(Path(path), text=False) as stream:
            _send_all(read_pickle(stream), sender)
        _send_facts(sender, end=True)
    except RefusedError as error:
        _send_facts(sender, error="not the scores it should be", expected=_EXPECTED, found=str(error))
    except InputError as error:
        _send_facts(sender, error=error.what, expected=_EXPECTED, found=None)
    except DAMAGED as error:
        _send_facts(sender, error="unreadable", expected="a whole file", found=str(error))
    except MemoryError:
        limit = f"at most {memory_bytes >> 20} MB of strings"
        _send_facts(sender, error="reading it takes too much memory", expected=limit, found=None)


def _send_facts(sender: Connection, **facts: Any) -> None:
    sender.send_bytes(json.dumps(facts).encode())


def _send_all(queries: Iterator[Entries], sender: Connection) -> None:
    batch: list[Entries] = []
    size = 0
    for entries in queries:
        batch.append(entries)
        size += len(entries.run) + ENTRY.itemsize * len(entries.others)
        if size >= _BYTES_PER_BATCH:
            _send(batch, sender)
            batch, size = [], 0
    _send(batch, sender)


def _send(batch: list[Entries], sender: Connection) -> None:
    """Sends the scores of integer passages; then, if there are any, those of the other passages."""
    plain = [(number, entries) for number, entries in enumerate(batch) if entries.run]
    others = [(number, entries) for number, entries in enumerate(batch) if entries.others]
    lengths = [len(entries.run) // ENTRY.itemsize for _, entries in plain]
    _send_facts(sender, **_facts(plain, lengths), others=None, count=0 if others else len(batch))
    sender.send_bytes(b"".join(entries.run for _, entries in plain))
    if others:
        passages = [passage for _, entries in others for passage, _ in entries.others]
        scores = [score for _, entries in others for _, score in entries.others]
        lengths = [len(entries.others) for _, entries in others]
        _send_facts(sender, **_facts(others, lengths), others=passages, count=len(batch))
        sender.send_bytes(np.array(scores, np.float64).tobytes())


def _facts(chosen: list[tuple[int, Entries]], lengths: list[int]) -> dict[str, Any]:
    return {
        "numbers": [number for number, _ in chosen],
        "queries": [entries.query for _, entries in chosen],
        "lengths": lengths,
    }
