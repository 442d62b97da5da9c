"""The stage `encode`: a student's states of all passages, shard by shard; only what is new or stale.

A shard is written beside its place and renamed; a collection that has grown costs only its new passages.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from jobs.models.stored_passages import Shard, read_facts, shards_of, stored_at
from jobs.models.token_stores import make_stores, open_stores
from pipeline.errors import ModelError
from pipeline.names import check_name
from pipeline.storage.workspace import Workspace
from students.identity import student_fingerprint
from students.settings import Storage
from teachers.checkpoints.checkpoint import resolve
from teachers.settings import Dtype, ScoringSettings

if TYPE_CHECKING:  # torch is loaded where encoding happens, not where it is planned
    from students.inference.encoded import Encoded


@dataclass(frozen=True)
class EncodedPassages:
    """What `encode` made or found."""

    name: str
    passages: int
    new_passages: int
    shards: int
    kept_shards: int
    gigabytes: float
    storage: Storage


def encode_passages(
    workspace: Workspace,
    name: str,
    checkpoint: str,
    *,
    dtype: Dtype = "float32",
    storage: Storage | None = None,
    on_tokens: Callable[[int, int], None] = lambda done, total: None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> EncodedPassages:
    """Encode the shards of `encoded/<name>` that are missing or stale.

    Args:
        workspace: holds the passages.
        name: name of the set.
        checkpoint: checkpoint of the student.
        dtype: arithmetic of the student.
        storage: type of the stored values; None is float32 if a passage is one vector, else float16.
        on_tokens: called with the texts tokenised and the number of all texts.
        on_progress: called with the passages encoded and the number to encode.

    Raises:
        ModelError: the student encodes query and passage together, or its values do not fit the storage type.
        WorkspaceError: nothing has been imported, or another run encodes the same set.
    """
    from students.architectures import architecture
    from students.architectures.one_vector import OneVectorStudent
    from students.architectures.separate import SeparateStudent
    from students.inference.loading import architecture_of

    check_name("student", name)
    kind = architecture(architecture_of(checkpoint))
    if not issubclass(kind, SeparateStudent):
        raise ModelError(
            f"a {kind.name} reads query and passage together: there is nothing to encode beforehand",
            where=checkpoint,
            todo="let it re-rank: prep search --first bm25",
        )
    stored: Storage = storage or ("float32" if issubclass(kind, OneVectorStudent) else "float16")
    with workspace.exclusive(f"encode-{name}"):
        student, plan = student_fingerprint(checkpoint, dtype), shards_of(workspace, name)
        missing = [shard for shard in plan if _facts(shard) != (shard.fingerprint(student), stored)]
        if missing:
            prompts = resolve(checkpoint).definition.prompts
            make_stores(workspace, checkpoint, prompts=prompts, on_progress=on_tokens)
            facts = {"student": student, "checkpoint": checkpoint, "architecture": kind.name, "arithmetic": dtype}
            _encode(workspace, checkpoint, missing, facts, stored, on_progress)
        folder = stored_at(workspace, name)
        for left in folder.glob("*"):  # of a larger collection, or half-written
            if left not in {shard.path for shard in plan}:
                shutil.rmtree(left)
    size = sum(file.stat().st_size for shard in plan for file in shard.path.iterdir())
    new = sum(len(shard.rows) for shard in missing)
    passages = sum(len(shard.rows) for shard in plan)
    return EncodedPassages(name, passages, new, len(plan), len(plan) - len(missing), size / 1e9, stored)


def _facts(shard: Shard) -> tuple[Any, Any]:
    facts = read_facts(shard.path)
    return facts.get("fingerprint"), facts.get("dtype")


def _encode(
    workspace: Workspace,
    checkpoint: str,
    missing: list[Shard],
    facts: dict[str, Any],
    storage: Storage,
    on_progress: Callable[[int, int], None],
) -> None:
    from students.inference.encoded import write_encoded
    from students.inference.scorer import SeparateScorer
    from students.token_rows import TextRows

    stores = open_stores(workspace, checkpoint, resolve(checkpoint).definition.prompts)
    if stores is None:
        raise ModelError("texts cannot be tokenised beforehand", where=checkpoint, expected="a fast tokenizer")
    scorer = SeparateScorer.load(checkpoint, ScoringSettings(dtype=facts["arithmetic"]))
    done, total = 0, sum(len(shard.rows) for shard in missing)

    def count(new: int) -> None:
        nonlocal done
        done += new
        on_progress(done, total)

    def states(rows: range) -> Iterator[Encoded]:
        return scorer.encode_in_chunks(TextRows(stores[1], np.arange(rows.start, rows.stop)), count)

    for shard in missing:
        own = {"fingerprint": shard.fingerprint(facts["student"]), "first_passage": shard.rows.start}
        write_encoded(shard.path, states(shard.rows), {**facts, **own}, storage)
