"""The stage `encode`: a student's states of all passages, in `encoded/<name>/part-NNNNN`, a directory for each shard.

A shard holds a range of passage ids, and says which student (files, arithmetic) made it from which texts; so a
collection that has grown costs only what is new, and what is stale is made again. Whoever reads gets all passages
in the order of their ids, or a message why not.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jobs.token_stores import make_stores, open_stores
from pipeline.content import hash_arrays
from pipeline.errors import ModelError, WorkspaceError
from pipeline.fingerprint import digest_json
from pipeline.names import check_name
from pipeline.schemas import SCHEMA_VERSION
from pipeline.text_hashes import text_hashes
from pipeline.workspace import Workspace
from students.identity import student_fingerprint
from students.settings import ENCODED_FILE, Storage
from teachers.settings import Dtype, ScoringSettings

if TYPE_CHECKING:  # torch is loaded where encoding happens, not where it is planned
    from students.encoded import Encoded

PASSAGES_PER_SHARD = 16_384
"""What a killed run loses at most."""


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


@dataclass(frozen=True)
class StoredPassages:
    """A student's states of all passages, complete and fresh."""

    dtype: Dtype
    """Arithmetic that they were made in."""
    paths: tuple[Path, ...]

    @cached_property
    def shards(self) -> list[Encoded]:
        """Mapped into memory, in the order of ids."""
        from students.encoded import open_encoded

        return [open_encoded(path)[0] for path in self.paths]

    def take(self, ids: NDArray[np.integer]) -> Encoded:
        """States of some passages, ids ascending, in memory."""
        import torch

        from students.encoded import Encoded

        pieces, first = [], 0
        for shard in self.shards:
            start, stop = np.searchsorted(ids, [first, first + shard.count])
            if stop > start:
                pieces.append(shard.take(torch.from_numpy(ids[start:stop].astype(np.int64) - first)))
            first += shard.count
        return Encoded.joined(pieces)


@dataclass(frozen=True)
class _Shard:
    """One directory: whose texts it holds, and what it must say of itself."""

    path: Path
    rows: range
    texts: str

    def fingerprint(self, student: str) -> str:
        return digest_json([SCHEMA_VERSION, student, self.rows.start, self.texts])


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
    """Encode what is missing or stale of `encoded/<name>`.

    Args:
        workspace: its passages.
        name: of the set.
        checkpoint: of the student.
        dtype: arithmetic.
        storage: of the values; None is float32 where a passage is one vector, else float16.
        on_tokens: told texts tokenised, and all.
        on_progress: told passages encoded, and all that are to be.

    Raises:
        ModelError: a student that reads query and passage together, or values that cannot be stored so.
        WorkspaceError: nothing imported, or another run encodes the same.
    """
    from students.architectures import architecture
    from students.architectures.one_vector import OneVectorStudent
    from students.architectures.separate import SeparateStudent
    from students.loading import architecture_of

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
        student, plan = student_fingerprint(checkpoint, dtype), _plan(workspace, name)
        missing = [shard for shard in plan if _facts(shard) != (shard.fingerprint(student), stored)]
        if missing:
            make_stores(workspace, checkpoint, on_progress=on_tokens)
            facts = {"student": student, "checkpoint": checkpoint, "architecture": kind.name, "arithmetic": dtype}
            _encode(workspace, checkpoint, missing, facts, stored, on_progress)
        folder = workspace.path("encoded", name)
        for left in folder.glob("*"):  # of a larger collection, or half-written
            if left not in {shard.path for shard in plan}:
                shutil.rmtree(left)
    size = sum(file.stat().st_size for shard in plan for file in shard.path.iterdir())
    new = sum(len(shard.rows) for shard in missing)
    passages = sum(len(shard.rows) for shard in plan)
    return EncodedPassages(name, passages, new, len(plan), len(plan) - len(missing), size / 1e9, stored)


def load_stored(workspace: Workspace, name: str, checkpoint: str) -> StoredPassages:
    """The set of a student, in whatever arithmetic it was made.

    Raises:
        WorkspaceError: nothing encoded, not all of it, or by another student or from other texts.
    """
    plan = _plan(workspace, name)
    found = [_read(shard.path) for shard in plan]
    todo = f"run: prep encode --student {name}"
    present = [facts for facts in found if facts]
    if not present:
        raise WorkspaceError(
            f"passages have not been encoded by student {name!r}", where=workspace.path("encoded", name), todo=todo
        )
    dtype: Dtype = present[0].get("arithmetic")  # type: ignore[assignment]
    student = student_fingerprint(checkpoint, dtype)
    if any(facts.get("student") != student for facts in present):
        raise WorkspaceError(
            f"student {name!r} is not the one that the passages were encoded by",
            where=workspace.path("encoded", name),
            expected=student,
            found=", ".join(sorted({str(facts.get("student")) for facts in present})),
            todo=todo,
        )
    fresh = [facts.get("fingerprint") == shard.fingerprint(student) for facts, shard in zip(found, plan, strict=True)]
    if not all(fresh):
        stale = any(facts and not good for facts, good in zip(found, fresh, strict=True))
        raise WorkspaceError(
            f"passages have changed since student {name!r} encoded them" if stale else "not all passages are encoded",
            where=workspace.path("encoded", name),
            expected=f"{len(plan)} shards",
            found=f"{sum(fresh)} that fit the collection",
            todo=todo,
        )
    return StoredPassages(dtype, tuple(shard.path for shard in plan))


def encoded_from(workspace: Workspace, name: str) -> str:
    """The checkpoint of a set: the student of this name, else the one that its shards name."""
    if name in workspace.names("students"):
        return str(workspace.path("students", name))
    found = [facts for path in sorted(workspace.path("encoded", name).glob("part-*")) if (facts := _read(path))]
    return str(found[0]["checkpoint"]) if found else name


def find_stored(workspace: Workspace, name: str, checkpoint: str, dtype: Dtype) -> StoredPassages | None:
    """The set of a student if there is a fresh one in this arithmetic."""
    try:
        found = load_stored(workspace, name, checkpoint)
    except WorkspaceError:
        return None
    return found if found.dtype == dtype else None


def _plan(workspace: Workspace, name: str) -> list[_Shard]:
    hashes = text_hashes(workspace, "passages")
    starts = range(0, len(hashes), PASSAGES_PER_SHARD)
    ranges = [range(start, min(start + PASSAGES_PER_SHARD, len(hashes))) for start in starts]
    folder = workspace.path("encoded", name)
    return [
        _Shard(folder / f"part-{number:05d}", rows, hash_arrays(hashes[rows.start : rows.stop]))
        for number, rows in enumerate(ranges)
    ]


def _read(path: Path) -> dict[str, Any]:
    """What a shard says of itself; nothing where there is none, or a damaged one."""
    with suppress(WorkspaceError):
        return Workspace(path).read_json(ENCODED_FILE)
    return {}


def _facts(shard: _Shard) -> tuple[Any, Any]:
    facts = _read(shard.path)
    return facts.get("fingerprint"), facts.get("dtype")


def _encode(
    workspace: Workspace,
    checkpoint: str,
    missing: list[_Shard],
    facts: dict[str, Any],
    storage: Storage,
    on_progress: Callable[[int, int], None],
) -> None:
    from students.encoded import write_encoded
    from students.encoding import SeparateScorer
    from students.token_rows import TextRows

    stores = open_stores(workspace, checkpoint)
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
