"""Scores that are found again by content when the pairs are built anew, or under another teacher's name.

A score belongs to two texts and a teacher's fingerprint. Ids never change their text within a workspace, so a
score file whose footer fits the texts that its ids have now is valid for each of its pairs, whatever shards the
pairs are in today. Files that the new shards would displace are kept in `.cache/scores/<fingerprint>/` until
the new set is complete.

Shapes: N pairs.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import schemas
from pipeline.collection.texts import CACHE
from pipeline.errors import WorkspaceError
from pipeline.scores.pair_texts import TextHashes
from pipeline.scores.pairs import PairSet
from pipeline.scores.scores import read_pair_ids, read_scores
from pipeline.storage.atomic_files import move_file, remove
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace
from pipeline.tables.parquet import metadata_of
from pipeline.tables.parts import open_part
from pipeline.tables.provenance import Footer


@dataclass(frozen=True)
class OldScores:
    """A score file that is valid for its pairs."""

    path: AnyPath
    first_query: int
    last_query: int


def find_old_scores(
    workspace: Workspace, pairs: PairSet, teacher: str, description: Mapping[str, Any], *, keep: bool
) -> list[OldScores]:
    """All files with scores of this model that are not simply in place.

    Args:
        workspace: its files are read, and moved with `keep`.
        pairs: the shards to be scored.
        teacher: the name they will be scored under.
        description: the model and its settings.
        keep: move files that new shards would displace to where they stay until `discard_old_scores`.
    """
    texts = TextHashes(workspace)
    current = {footer.extra["texts"] for footer in pairs.footers}
    standing = workspace.current_path("scores", teacher)
    found = []
    for path in _candidates(workspace, description):
        file, footer = open_part(path, schemas.SCORES)
        file.close()
        in_place = path.parent == standing
        if in_place and _fits(pairs, footer):
            continue
        if footer.recipe.inputs["pairs"] not in current and not texts.fit(path, footer.recipe.inputs["pairs"]):
            continue
        if in_place and keep:
            kept = _place(workspace, description) / f"{uuid.uuid4().hex[:12]}.parquet"
            try:
                path = move_file(path, kept)
            except FileNotFoundError:  # another run keeps it
                continue
        found.append(OldScores(path, *_queries(path)))
    return found


def discard_old_scores(workspace: Workspace, description: Mapping[str, Any]) -> None:
    """Remove kept files; the set that displaced them is complete."""
    remove(_place(workspace, description))


def overlapping(old: Sequence[OldScores], shard: Footer) -> list[AnyPath]:
    """The files that can hold scores of a pair shard's queries."""
    first, last = shard.extra["first_query"], shard.extra["last_query"]
    return [file.path for file in old if file.first_query <= last and file.last_query >= first]


def take_scores(paths: Sequence[AnyPath], ids: tuple[np.ndarray, np.ndarray]) -> NDArray[np.float32]:
    """Scores (N,) of pairs by query ids (N,) and passage ids (N,); NaN where no file has one."""
    scores = np.full(len(ids[0]), np.nan, np.float32)
    wanted = _keys(ids)
    for path in paths:
        try:
            keys, values = _keys(read_pair_ids(path)), read_scores(path)
        except WorkspaceError:
            if path.exists():
                raise
            continue  # another run has completed the set and removed it; scoring again does no harm
        place = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        known = keys[place] == wanted
        scores[known] = values[place[known]]
    return scores


def _candidates(workspace: Workspace, description: Mapping[str, Any]) -> list[AnyPath]:
    """Score files of this model: kept ones, then those under any teacher's name."""
    named = [path for teacher in workspace.names("scores") for path in workspace.parts("scores", teacher)]
    kept: list[AnyPath] = sorted(_place(workspace, description).glob("*.parquet"))
    return [*kept, *(path for path in named if _made_by(path, description))]


def _made_by(path: AnyPath, description: Mapping[str, Any]) -> bool:
    file, footer = open_part(path, schemas.SCORES)
    file.close()
    return bool(footer.recipe.settings.get("fingerprint") == description["fingerprint"])


def _place(workspace: Workspace, description: Mapping[str, Any]) -> AnyPath:
    return workspace.path(CACHE, "scores", description["fingerprint"])


def _fits(pairs: PairSet, footer: Footer) -> bool:
    """Whether the file stands where the pair shard of its number wants it."""
    texts = [shard.extra["texts"] for shard in pairs.footers[footer.part : footer.part + 1]]
    return texts == [footer.recipe.inputs["pairs"]]


def _queries(path: AnyPath) -> tuple[int, int]:
    """First and last query id, from the file's statistics."""
    metadata = metadata_of(path)
    groups = [metadata.row_group(i).column(0).statistics for i in range(metadata.num_row_groups)]
    return min(group.min for group in groups), max(group.max for group in groups)


def _keys(ids: tuple[np.ndarray, np.ndarray]) -> NDArray[np.int64]:
    """One key for each pair; ascending as the pairs are."""
    return np.asarray((ids[0].astype(np.int64) << 32) | ids[1].astype(np.int64))
