"""Reads a pickle of scores in a separate process with a memory limit, and passes its rows on as a stream.

The processes exchange JSON and plain numbers alone: nothing that the reading process sends is unpickled here.
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
from pipeline.imports.candidate_batches import id_array
from pipeline.imports.intake import CandidateBatch
from pipeline.imports.score_pickle import ENTRY, Entries, RefusedError, read_pickle
from pipeline.tables.json_lines import DAMAGED, open_binary

MEMORY_BYTES = 1 << 30
"""Address space that the process may use, beyond what it has after its imports."""
_BYTES_PER_BATCH = 4 << 20
_EXPECTED = "a pickled dict of dicts, query -> {passage -> score}, of integers, floats and strings alone"


def read_score_pickle(path: Path) -> Iterator[CandidateBatch]:
    """Read the scores in a pickle, plain or .gz; `line` counts queries.

    Raises:
        InputError: the file is missing, damaged or not a pickle of scores, or reading it takes too much memory.
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
        raise InputError(
            "the process that reads it died", where=path, todo="check whether the machine ran out of memory"
        ) from None
    finally:
        process.kill()
        process.join()
        receiver.close()


def _rows(facts: dict[str, Any], run: bytes, first: int) -> CandidateBatch:
    owner = np.repeat(np.arange(len(facts["queries"])), facts["lengths"])
    lines = np.array(facts["numbers"], np.int64)[owner] + first
    queries = id_array(facts["queries"]).take(pa.array(owner))
    if facts["others"] is None:
        entries = np.frombuffer(run, ENTRY)
        passages, scores = pa.array(entries["passage"].astype(np.int64)), entries["score"].astype(np.float64)
    else:
        passages, scores = id_array(facts["others"]), np.frombuffer(run, np.float64)
    return CandidateBatch(lines, queries, passages, scores, np.zeros(len(owner), np.int16))


def _read(path: str, sender: Connection, memory_bytes: int) -> None:
    """Runs in the separate process."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + memory_bytes, resource.getrlimit(resource.RLIMIT_AS)[1]))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        with open_binary(Path(path)) as stream:
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
