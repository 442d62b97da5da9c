"""Reads a pickle of scores in a separate process with a memory limit, and passes its rows on as a stream.

The processes exchange JSON and plain numbers alone: nothing that the reading process sends is unpickled here.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline.errors import InputError
from pipeline.imports.candidate_batches import id_array
from pipeline.imports.intake import CandidateBatch
from pipeline.imports.score_pickle import ENTRY
from pipeline.imports.score_worker import send_scores

MEMORY_BYTES = 1 << 30
"""Address space that the process may use, beyond what it has after its imports."""


def read_score_pickle(path: Path) -> Iterator[CandidateBatch]:
    """Read the scores in a pickle, plain or .gz; `line` counts queries.

    Raises:
        InputError: the file is missing, damaged or not a pickle of scores, or reading it takes too much memory.
    """
    context = get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=send_scores, args=(str(path), sender, MEMORY_BYTES), daemon=True)
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
