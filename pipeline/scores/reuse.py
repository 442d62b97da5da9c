"""Reuses scores after the pairs were rebuilt, or when the same model is scored under another name.

A score depends on two texts and on the fingerprint of the teacher. A score file is valid for each of its pairs if its
footer matches the texts that its ids have now, whichever shards hold these pairs today. Score files that would be
overwritten are kept in `.cache/scores/<fingerprint>/` until the new set is complete.

Shapes: N pairs.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pipeline import schemas
from pipeline.collection.texts import CACHE
from pipeline.errors import WorkspaceError
from pipeline.scores.pair_texts import TextHashes
from pipeline.scores.pairs import PairSet
from pipeline.storage.atomic_files import move_file, remove
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace
from pipeline.tables.parts import open_part, read_part
from pipeline.tables.provenance import Footer


@dataclass(frozen=True)
class OldScores:
    """A score file of one model: where it is, what its footer says, and the range of its query ids."""

    path: AnyPath
    footer: Footer
    first_query: int
    last_query: int


def find_old_scores(
    workspace: Workspace, pairs: PairSet, teacher: str, description: Mapping[str, Any], *, keep: bool
) -> list[OldScores]:
    """All valid score files of this model, except those that are already where the pair shards need them.

    Args:
        workspace: its score files are read and, with `keep`, moved.
        pairs: the shards to score.
        teacher: the name to score them under.
        description: the model and its settings.
        keep: move files that new shards would overwrite; they stay until `discard_old_scores`.
    """
    texts = TextHashes(workspace)
    current = {footer.extra["texts"] for footer in pairs.footers}
    directory = workspace.current_path("scores", teacher)
    valid = []
    for old in _files_of_model(workspace, description):
        in_place, scored_texts = old.path.parent == directory, old.footer.recipe.inputs["pairs"]
        if in_place and _is_wanted(pairs, old.footer):
            continue
        if scored_texts not in current and not texts.fit(old.path, scored_texts):
            continue
        if in_place and keep:
            kept = _kept_directory(workspace, description) / f"{uuid.uuid4().hex[:12]}.parquet"
            try:
                old = replace(old, path=move_file(old.path, kept))
            except FileNotFoundError:  # another run has moved it
                continue
        valid.append(old)
    return valid


def discard_old_scores(workspace: Workspace, description: Mapping[str, Any]) -> None:
    """Remove kept files, once the set that replaces them is complete."""
    remove(_kept_directory(workspace, description))


def overlapping(old: Sequence[OldScores], shard: Footer) -> list[AnyPath]:
    """The files whose range of query ids overlaps that of a pair shard."""
    first, last = shard.extra["first_query"], shard.extra["last_query"]
    return [file.path for file in old if file.first_query <= last and file.last_query >= first]


def take_scores(paths: Sequence[AnyPath], ids: tuple[np.ndarray, np.ndarray]) -> NDArray[np.float32]:
    """Scores (N,) of pairs, given as query ids (N,) and passage ids (N,); NaN for pairs that no file has."""
    scores = np.full(len(ids[0]), np.nan, np.float32)
    wanted = _keys(ids)
    for path in paths:
        try:
            table, _ = read_part(path, schemas.SCORES)
        except WorkspaceError:
            if path.exists():
                raise
            continue  # another run has completed the set and removed the file; scoring again does no harm
        query, passage, values = (table.column(name).to_numpy() for name in schemas.SCORES.names)
        keys = _keys((query, passage))
        rows = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
        known = keys[rows] == wanted
        scores[known] = values[rows[known]]
    return scores


def _files_of_model(workspace: Workspace, description: Mapping[str, Any]) -> list[OldScores]:
    """Score files with the model's fingerprint: kept files, then those under any teacher's name."""
    kept: list[AnyPath] = sorted(_kept_directory(workspace, description).glob("*.parquet"))
    named = [path for teacher in workspace.names("scores") for path in workspace.parts("scores", teacher)]
    of_model = [
        old for old in map(_read, named) if old.footer.recipe.settings.get("fingerprint") == description["fingerprint"]
    ]
    return [*map(_read, kept), *of_model]


def _read(path: AnyPath) -> OldScores:
    """Footer and query range of a score file, from one read of its metadata."""
    file, footer = open_part(path, schemas.SCORES)
    with file:
        groups = [file.metadata.row_group(i).column(0).statistics for i in range(file.metadata.num_row_groups)]
    first = min((group.min for group in groups), default=0)
    return OldScores(path, footer, first, max((group.max for group in groups), default=-1))


def _kept_directory(workspace: Workspace, description: Mapping[str, Any]) -> AnyPath:
    return workspace.path(CACHE, "scores", description["fingerprint"])


def _is_wanted(pairs: PairSet, footer: Footer) -> bool:
    """Whether the pair shard of the file's number has the texts that the file scores."""
    texts = [shard.extra["texts"] for shard in pairs.footers[footer.part : footer.part + 1]]
    return texts == [footer.recipe.inputs["pairs"]]


def _keys(ids: tuple[np.ndarray, np.ndarray]) -> NDArray[np.int64]:
    """A key (N,) for each pair, in the order of the pairs."""
    return np.asarray((ids[0].astype(np.int64) << 32) | ids[1].astype(np.int64))
