"""Passages that `prep encode` has stored for a student: finds them, checks them, reads them.

A set is `encoded/<name>/part-NNNNN`, one directory per shard. A shard holds a range of passage ids and records the
student (files, dtype) and the texts it was made from. A reader gets all passages in the order of their ids, or an
error that says what does not match.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from jobs.models.checkpoints import locate_checkpoint
from pipeline.collection.texts_by_content import text_hashes
from pipeline.errors import StaleError, WorkspaceError
from pipeline.fingerprint import digest_json
from pipeline.schemas import SCHEMA_VERSION
from pipeline.storage.workspace import Workspace
from pipeline.tables.content import hash_arrays
from pipeline.tables.staleness import refuse_stale
from students.identity import student_fingerprint
from students.settings import ENCODED_FILE
from teachers.checkpoints.checkpoint import Checkpoint
from teachers.settings import Dtype

if TYPE_CHECKING:  # torch is loaded where states are read, not where they are looked for
    from students.inference.encoded import Encoded
    from students.inference.scorer import SeparateScorer

PASSAGES_PER_SHARD = 16_384
"""The most that a killed run loses."""
PAIRS_AT_ONCE = 20_000


@dataclass(frozen=True)
class Shard:
    """One directory, the passages it holds, and the fingerprint it must have."""

    path: Path
    rows: range
    texts: str
    """Digest of their hashes."""

    def fingerprint(self, student: str) -> str:
        """Identity of the shard when this student encodes it."""
        return digest_json([SCHEMA_VERSION, student, self.rows.start, self.texts])


@dataclass(frozen=True)
class StoredPassages:
    """The encodings of all passages by one student, complete and up to date."""

    dtype: Dtype
    """The dtype they were computed in."""
    paths: tuple[Path, ...]

    @cached_property
    def shards(self) -> list[Encoded]:
        """The shards, mapped into memory, in the order of passage ids."""
        from students.inference.encoded import open_encoded

        return [open_encoded(path)[0] for path in self.paths]

    def take(self, ids: NDArray[np.integer]) -> Encoded:
        """Encodings of some passages, given by ascending ids, in memory."""
        import torch

        from students.inference.encoded import Encoded

        pieces, first = [], 0
        for shard in self.shards:
            start, stop = np.searchsorted(ids, [first, first + shard.count])
            if stop > start:
                pieces.append(shard.take(torch.from_numpy(ids[start:stop].astype(np.int64) - first)))
            first += shard.count
        return Encoded.joined(pieces)

    def scores(
        self,
        scorer: SeparateScorer,
        queries: Sequence[str],
        query: NDArray[np.integer],
        passage_id: NDArray[np.integer],
    ) -> NDArray[np.float32]:
        """Scores (N,) of pairs, given by row of `queries` (N,) and passage id (N,), `PAIRS_AT_ONCE` at a time."""
        encoded, scores = scorer.encode_queries(queries), np.empty(len(query), np.float32)
        for start in range(0, len(scores), PAIRS_AT_ONCE):
            rows = slice(start, start + PAIRS_AT_ONCE)
            ids, place = np.unique(passage_id[rows], return_inverse=True)
            scores[rows] = scorer.score_encoded(encoded, self.take(ids), query[rows], place)
        return scores


def load_stored(
    workspace: Workspace, name: str, checkpoint: str | Checkpoint, prompts: tuple[str, str] | None = None
) -> StoredPassages:
    """The stored passages of a student, in whichever dtype; with the model's prompts unless others are given.

    A workspace that accepts stale sets gives the passages that were encoded before the collection changed.

    Raises:
        WorkspaceError: passages are missing.
        StaleError: passages were encoded by another student, or from other texts.
    """
    plan = shards_of(workspace, name)
    found = [read_facts(shard.path) for shard in plan]
    todo = f"run: prep encode --student {name}"
    present = [facts for facts in found if facts]
    if not present:
        raise WorkspaceError(
            f"passages have not been encoded by student {name!r}", where=stored_at(workspace, name), todo=todo
        )
    dtype: Dtype = present[0].get("arithmetic")  # type: ignore[assignment]
    student = student_fingerprint(checkpoint, dtype, prompts)
    if any(facts.get("student") != student for facts in present):
        raise StaleError(
            f"the passages were encoded by another student than {name!r}",
            where=stored_at(workspace, name),
            expected=student,
            found=", ".join(sorted({str(facts.get("student")) for facts in present})),
            todo=todo,
        )
    fresh = [facts.get("fingerprint") == shard.fingerprint(student) for facts, shard in zip(found, plan, strict=True)]
    if any(facts and not good for facts, good in zip(found, fresh, strict=True)):
        why = f"passages have changed since student {name!r} encoded them: {sum(fresh)} of {len(plan)} shards fit"
        refuse_stale(workspace, f"encoded/{name}", why, where=stored_at(workspace, name), todo=todo)
        return StoredPassages(dtype, tuple(shard.path for shard, facts in zip(plan, found, strict=True) if facts))
    if not all(fresh):
        raise WorkspaceError(
            "not all passages are encoded",
            where=stored_at(workspace, name),
            expected=f"{len(plan)} shards",
            found=f"{sum(fresh)} that fit the collection",
            todo=todo,
        )
    return StoredPassages(dtype, tuple(shard.path for shard in plan))


def stored_at(workspace: Workspace, name: str) -> Path:
    """The directory of a set. It is always local, since it is mapped into memory."""
    return workspace.local.joinpath("encoded", name)


def stored_names(workspace: Workspace) -> list[str]:
    """Names of the sets on this machine, sorted."""
    return Workspace(workspace.local).names("encoded")


def encoded_from(workspace: Workspace, name: str) -> str:
    """The checkpoint of a set: the student of this name, or else the checkpoint recorded in its shards."""
    if name in workspace.names("students"):
        return locate_checkpoint(workspace, name)
    found = [facts for path in sorted(stored_at(workspace, name).glob("part-*")) if (facts := read_facts(path))]
    return str(found[0]["checkpoint"]) if found else name


def find_stored(
    workspace: Workspace,
    name: str,
    checkpoint: str | Checkpoint,
    dtype: Dtype,
    *,
    prompts: tuple[str, str] | None = None,
) -> StoredPassages | None:
    """The stored passages of a student if they are up to date and were encoded in this dtype with these prompts."""
    try:  # The caller can encode by itself, so stale passages are never accepted here.
        found = load_stored(Workspace(workspace.root), name, checkpoint, prompts)
    except WorkspaceError:
        return None
    return found if found.dtype == dtype else None


def shards_of(workspace: Workspace, name: str) -> list[Shard]:
    """The shards of a complete set for the present collection.

    Raises:
        WorkspaceError: no passages have been imported.
    """
    hashes = text_hashes(workspace, "passages")
    starts = range(0, len(hashes), PASSAGES_PER_SHARD)
    ranges = [range(start, min(start + PASSAGES_PER_SHARD, len(hashes))) for start in starts]
    folder = stored_at(workspace, name)
    return [
        Shard(folder / f"part-{number:05d}", rows, hash_arrays(hashes[rows.start : rows.stop]))
        for number, rows in enumerate(ranges)
    ]


def read_facts(path: Path) -> dict[str, Any]:
    """The facts stored with a shard; empty if the shard is missing or damaged."""
    with suppress(WorkspaceError):
        return Workspace(path).read_json(ENCODED_FILE)
    return {}
