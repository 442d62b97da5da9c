"""What a build reads: pair shards and the scores of its teachers, loaded once and handed on from step to step."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.errors import MissingError
from pipeline.scores.pairs import PairSet, current_pairs
from pipeline.scores.scores import ScoreSet, load_scores
from pipeline.storage.workspace import Workspace
from pipeline.tables.parts import content_fingerprint, read_footers
from pipeline.triples.shard import Shard

TABLES = ("queries", "passages")


@dataclass(frozen=True)
class ScoredPairs:
    """Pair shards with the complete scores of one or more teachers."""

    scores: tuple[ScoreSet, ...]
    tables: Mapping[str, str]
    """Content fingerprints of `queries` and `passages`."""

    @property
    def pairs(self) -> PairSet:
        """The pair shards that all teachers scored."""
        return self.scores[0].pairs

    @property
    def teachers(self) -> tuple[str, ...]:
        """Names of the teachers."""
        return tuple(scores.teacher for scores in self.scores)

    @property
    def contents(self) -> dict[str, str]:
        """Content fingerprints of pairs and scores, by dataset."""
        return {"pairs": self.pairs.content} | {f"scores/{scores.teacher}": scores.content for scores in self.scores}

    def shards(self) -> tuple[Shard, ...]:
        """The files of each shard."""
        return tuple(
            Shard(path, tuple(scores.paths[number] for scores in self.scores))
            for number, path in enumerate(self.pairs.paths)
        )


def current_scored_pairs(workspace: Workspace, teachers: Sequence[str] = ()) -> ScoredPairs:
    """Up-to-date pairs with the complete scores of the named teachers, in the order of their names.

    Without names, all teachers that have scored.

    Raises:
        WorkspaceError: pairs or scores are missing or incomplete.
        StaleError: pairs or scores are stale.
    """
    names = sorted(set(teachers or workspace.names("scores")))
    if not names:
        raise MissingError(
            "no teacher has scored yet",
            where=workspace.root,
            todo="run: prep score --teacher NAME=CHECKPOINT",
        )
    pairs = current_pairs(workspace)
    scores = tuple(load_scores(workspace, pairs, name) for name in names)
    return ScoredPairs(scores, table_contents(workspace))


def table_contents(workspace: Workspace) -> dict[str, str]:
    """Content fingerprints of `queries` and `passages` as they are now."""
    return {table: content_fingerprint(read_footers(workspace.parts(table))) for table in TABLES}
