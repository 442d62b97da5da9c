"""Lists for listwise losses: `lists/<name>/part-NNNNN.parquet`, one row for each positive of a query.

`passage_ids` begins with the positive; the negatives follow from the highest scored on, chosen and filtered as for
triples. Scores are the ensemble's. A shard or a part is held at a time, never the collection.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

from pipeline.errors import UsageError
from pipeline.row_layouts import Lists
from pipeline.triple_passes import Runner
from pipeline.triple_settings import TripleSettings
from pipeline.triple_shards import Plan
from pipeline.triples import BuiltTriples, Resources, build_triples
from pipeline.workspace import Workspace


def build_lists(
    workspace: Workspace,
    settings: TripleSettings,
    size: int = 32,
    *,
    drop_short: bool = False,
    name: str = "default",
    teachers: Sequence[str] = (),
    resources: Resources | None = None,
    runner: Callable[[Plan], Runner] | None = None,
    on_progress: Callable[[int, int], None] = lambda done, total: None,
) -> BuiltTriples:
    """Build lists of at most `size` passages; `settings.negatives_per_query` follows from it.

    Raises:
        UsageError: lists of fewer than two.
        PrepError: as `build_triples`.
    """
    if size < 2:
        raise UsageError("--size must be 2 or more", found=size)
    return build_triples(
        workspace,
        replace(settings, negatives_per_query=size - 1),
        name=name,
        teachers=teachers,
        layout=Lists(size, drop_short),
        resources=resources,
        runner=runner,
        on_progress=on_progress,
    )
