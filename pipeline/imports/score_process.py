"""Reads a pickle of scores in a process of its own that may use little memory, and hands the rows on as they come.

What crosses over is JSON and plain numbers, so that nothing the other process says is ever run either.
"""

from __future__ import annotations

import json
import resource
from collections.abc import Iterator
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import InputError
from pipeline.imports.intake import Rows
from pipeline.imports.row_batches import id_array
from pipeline.imports.score_pickle import ENTRY, Entries, RefusedError, read_pickle
from pipeline.tables.json_lines import DAMAGED, open_binary

MEMORY_BYTES = 1 << 30
"""How much the process may use beyond what Python and NumPy take."""
_BYTES_PER_BATCH = 4 << 20
_EXPECTED = "a pickled dict of dicts, query -> {passage -> score}, of integers, floats and strings alone"


def read_score_pickle(path: Path) -> Iterator[Rows]:
    """The rows of a pickle, plain or .gz; `line` counts queries.

    Raises:
        InputError: missing, damaged, something else than scores, or more memory is needed.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_read, args=(str(path), sender, MEMORY_BYTES), daemon=True)
    process.start()
    sender.close()
    first = 1
    try:
        while True:
            facts = json.loads(receiver.recv_bytes())
            if "error" in facts:
                raise InputError(facts["error"], where=path, expected=facts["expected"], found=facts["found"])
            if facts.get("end"):
                return
            yield _rows(facts, receiver.recv_bytes(), first)
            first += facts["count"]
    except EOFError:
        raise InputError("the process that reads it died", where=path, todo="look for lack of memory") from None
    finally:
        process.kill()
        process.join()
        receiver.close()


def _rows(facts: dict[str, Any], run: bytes, first: int) -> Rows:
    places = np.repeat(np.arange(len(facts["queries"])), facts["lengths"])
    lines = np.array(facts["numbers"], np.int64)[places] + first
    queries = id_array(facts["queries"]).take(pa.array(places))
    if facts["others"] is None:
        entries = np.frombuffer(run, ENTRY)
        passages, scores = pa.array(entries["passage"].astype(np.int64)), entries["score"].astype(np.float64)
    else:
        passages, scores = id_array(facts["others"]), np.frombuffer(run, np.float64)
    return Rows(lines, queries, passages, scores, np.zeros(len(places), np.int16))


def _read(path: str, sender: Connection, memory_bytes: int) -> None:
    """What the process does."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open_binary(Path(path)) as stream:
            _send_all(read_pickle(stream), sender)
        _tell(sender, end=True)
    except RefusedError as error:
        _tell(sender, error="not the scores it should be", expected=_EXPECTED, found=str(error))
    except InputError as error:
        _tell(sender, error=error.what, expected=_EXPECTED, found=None)
    except DAMAGED as error:
        _tell(sender, error="unreadable", expected="a whole file", found=str(error))
    except MemoryError:
        limit = f"at most {memory_bytes >> 20} MB of strings"
        _tell(sender, error="reading it takes too much memory", expected=limit, found=None)


def _tell(sender: Connection, **facts: Any) -> None:
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
    """Integer passages first; then, if there are any, the others."""
    plain = [(number, entries) for number, entries in enumerate(batch) if entries.run]
    others = [(number, entries) for number, entries in enumerate(batch) if entries.others]
    lengths = [len(entries.run) // ENTRY.itemsize for _, entries in plain]
    _tell(sender, **_facts(plain, lengths), others=None, count=0 if others else len(batch))
    sender.send_bytes(b"".join(entries.run for _, entries in plain))
    if others:
        passages = [passage for _, entries in others for passage, _ in entries.others]
        scores = [score for _, entries in others for _, score in entries.others]
        lengths = [len(entries.others) for _, entries in others]
        _tell(sender, **_facts(others, lengths), others=passages, count=len(batch))
        sender.send_bytes(np.array(scores, np.float64).tobytes())


def _facts(chosen: list[tuple[int, Entries]], lengths: list[int]) -> dict[str, Any]:
    return {
        "numbers": [number for number, _ in chosen],
        "queries": [entries.query for _, entries in chosen],
        "lengths": lengths,
    }
