"""Teacher scores beside their pair shards: `scores/<teacher>/part-NNNNN.parquet`, rows as in the pair shard.

A score file is matched to its pair shard by content: its recipe holds the settings of the teacher and the `texts`
fingerprint of the shard. A teacher is only a name and a description here.

Shapes: N pairs of a shard.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa

from pipeline import schemas
from pipeline.errors import StaleError, WorkspaceError
from pipeline.scores.pairs import PairSet
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace
from pipeline.tables.parts import content_fingerprint, open_part, part_name, read_footers, read_part, write_part
from pipeline.tables.provenance import Footer, Recipe


@dataclass(frozen=True)
class ScoreSet:
    """The scores that one teacher gave to all pair shards: paths with their footers, in shard order."""

    teacher: str
    pairs: PairSet
    """The shards that were scored."""
    paths: list[AnyPath]
    footers: list[Footer]

    @property
    def content(self) -> str:
        """Content fingerprint of the whole set."""
        return content_fingerprint(self.footers)


def score_recipe(description: Mapping[str, Any], pairs: Footer) -> Recipe:
    """The recipe of a score file, from the description of the teacher and the footer of the pair shard."""
    return Recipe("scores", description, {"pairs": pairs.extra["texts"]})


def missing_shards(
    workspace: Workspace,
    pairs: PairSet,
    teacher: str,
    description: Mapping[str, Any],
    *,
    overwrite: bool = False,
) -> list[int]:
    """Numbers of the pair shards that have no valid score file yet.

    Raises:
        WorkspaceError: this teacher has scores of another model or other settings, without `overwrite`.
    """
    missing = []
    files = _score_files(workspace, pairs, teacher)
    for number, footer in enumerate(pairs.footers):
        if part_name(number) not in files:
            missing.append(number)
            continue
        path, scored = files[part_name(number)]
        found = scored.recipe
        if dict(found.settings) != dict(description) and not overwrite:
            differing = sorted(k for k in description if found.settings.get(k) != description[k])
            raise WorkspaceError(
                f"teacher {teacher!r} already has scores of another model or other settings",
                where=path,
                expected={k: description[k] for k in differing},
                found={k: found.settings.get(k) for k in differing},
                todo="choose another name, or pass --overwrite",
            )
        if found.fingerprint != score_recipe(description, footer).fingerprint:
            missing.append(number)
    return missing


def read_pair_ids(path: AnyPath) -> tuple[np.ndarray, np.ndarray]:
    """Query ids (N,) int32 and passage ids (N,) int32 of a file of pairs or scores."""
    file, _ = open_part(path)
    with file:
        table = file.read(columns=["query_id", "passage_id"])
    return table.column("query_id").to_numpy(), table.column("passage_id").to_numpy()


def write_scores(
    workspace: Workspace,
    teacher: str,
    number: int,
    pairs: Footer,
    ids: tuple[np.ndarray, np.ndarray],
    scores: np.ndarray,
    description: Mapping[str, Any],
    extra: Mapping[str, Any],
) -> None:
    """Write the score file of one pair shard: query and passage ids (N,) int32, scores (N,) float32 raw logits.

    Raises:
        ValueError: the scores are not one finite float32 for each pair.
    """
    if scores.shape != ids[0].shape or scores.dtype != np.float32 or not np.isfinite(scores).all():
        raise ValueError("a score file takes one finite float32 for each pair")
    batch = pa.RecordBatch.from_arrays([pa.array(ids[0]), pa.array(ids[1]), pa.array(scores)], schema=schemas.SCORES)
    write_part(
        workspace.current_path("scores", teacher) / part_name(number),
        [batch],
        schemas.SCORES,
        score_recipe(description, pairs),
        part=number,
        parts=pairs.parts,
        extra=extra,
    )


def load_scores(workspace: Workspace, pairs: PairSet, teacher: str) -> ScoreSet:
    """The complete scores of a teacher.

    Raises:
        WorkspaceError: the teacher is unknown, shards are missing, or two models are mixed.
        StaleError: shards have scores of other pairs. Their rows do not fit, so no workspace accepts them.
    """
    known = workspace.names("scores")
    if teacher not in known:
        raise WorkspaceError(
            f"no teacher {teacher!r}",
            where=workspace.path("scores"),
            expected=f"one of: {', '.join(known) or 'none yet'}",
            todo=f"run: prep score --teacher {teacher}=CHECKPOINT",
        )
    todo = f"run again: prep score --teacher {teacher}=CHECKPOINT"
    files = _score_files(workspace, pairs, teacher, schemas.SCORES)
    if any("imported_from" in footer.recipe.settings for _, footer in list(files.values())[:1]):
        todo = f"import them again: prep import scores FILE --teacher {teacher}"
    paths, footers, missing, stale = [], [], [], []
    for number, footer in enumerate(pairs.footers):
        if part_name(number) not in files:
            missing.append(number)
            continue
        path, scored = files[part_name(number)]
        if dict(scored.recipe.inputs) != {"pairs": footer.extra["texts"]} or scored.rows != footer.rows:
            stale.append(number)
        paths.append(path)
        footers.append(scored)
    if missing or stale:
        raise (WorkspaceError if missing else StaleError)(
            f"scores of teacher {teacher!r} are not complete",
            where=workspace.path("scores", teacher),
            expected=f"{len(pairs.footers)} shards that match the pairs",
            found=f"{len(missing)} missing, {len(stale)} stale; first: {(missing + stale)[:5]}",
            todo=todo,
        )
    if len({footer.recipe.settings["fingerprint"] for footer in footers}) > 1:
        raise WorkspaceError(
            f"scores of two models are mixed under {teacher!r}",
            where=paths[0].parent,
            todo=todo + " --overwrite",
        )
    return ScoreSet(teacher, pairs, paths, footers)


def _score_files(
    workspace: Workspace, pairs: PairSet, teacher: str, schema: pa.Schema | None = None
) -> dict[str, tuple[AnyPath, Footer]]:
    """Name of each score file that a pair shard of that number exists for → its path and footer."""
    wanted = {part_name(number) for number in range(len(pairs.footers))}
    paths = [path for path in workspace.parts("scores", teacher) if path.name in wanted]
    return {path.name: (path, footer) for path, footer in zip(paths, read_footers(paths, schema), strict=True)}


def read_scores(path: AnyPath) -> np.ndarray:
    """Scores (N,) float32 raw logits of one file, in row order."""
    table, _ = read_part(path, schemas.SCORES, ["score"])
    return np.asarray(table.column("score"), np.float32)
