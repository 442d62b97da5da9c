"""Batch sources from a workspace's files: triples, lists, or judged pairs with retrieved negatives."""

from __future__ import annotations

from collections.abc import Sequence

from jobs.training.one_per_query import OnePerQuery
from pipeline.scores.judged_pairs import read_judged_pairs
from pipeline.scores.pairs import current_pairs
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace
from pipeline.triples.arrays import read_lists, read_triples
from pipeline.triples.sets import usable_set
from pipeline.triples.turns import load_turns
from students.settings import TrainSettings
from students.training.batches import Batch, BatchSource, JudgedPairs, ShuffledParts


def batch_source(workspace: Workspace, settings: TrainSettings) -> BatchSource:
    """The rows that `settings` trains on.

    Raises:
        WorkspaceError: the set is missing or incomplete.
        StaleError: the set is stale.
    """
    if settings.lists is not None:
        paths, footers = usable_set(workspace, "lists", settings.lists)
        return list_batches(paths, [footer.rows for footer in footers], settings.seed, settings.list_size)
    if settings.triples is not None:
        paths, footers = usable_set(workspace, "triples", settings.triples)
        if settings.one_per_query:
            return OnePerQuery(load_turns(workspace, paths, footers, settings.seed), settings.seed)
        return triple_batches(paths, [footer.rows for footer in footers], settings.seed)
    return JudgedPairs(
        *read_judged_pairs(workspace, current_pairs(workspace), settings.split),
        negatives=settings.negatives,
        random_negatives=settings.random_negatives,
        seed=settings.seed,
    )


def triple_batches(paths: Sequence[AnyPath], counts: Sequence[int], seed: int) -> ShuffledParts:
    """Triples with teacher scores, one negative each; `counts` are the rows of each part."""
    return ShuffledParts(lambda part: Batch(*read_triples(paths[part])), counts, seed)


def list_batches(paths: Sequence[AnyPath], counts: Sequence[int], seed: int, size: int) -> ShuffledParts:
    """Lists with teacher scores, each cut to its first `size` passages."""
    return ShuffledParts(lambda part: Batch(*read_lists(paths[part], size)), counts, seed)
