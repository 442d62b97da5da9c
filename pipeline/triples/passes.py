"""The two passes of a build as tasks for any worker, and the runner of this machine."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from pipeline.processes import map_in_order
from pipeline.storage.atomic_files import atomic_write
from pipeline.storage.location import AnyPath
from pipeline.tables.database import threads_for_memory
from pipeline.tables.parts import part_name, write_part
from pipeline.tables.provenance import Recipe
from pipeline.triples.funnel import Funnel, TripleStatistics
from pipeline.triples.layouts import keys
from pipeline.triples.shard import Plan, ShardWorker
from pipeline.triples.shuffle import in_key_order, read_part, write_by_bucket

WORTH_PROCESSES = 4_000_000
"""Below this number of pairs, starting processes takes longer than they save."""


@dataclass(frozen=True)
class FilterTask:
    """First pass: filter one shard."""

    shard: int

    @property
    def label(self) -> str:
        """Name of the task in messages."""
        return f"shard {self.shard}"

    def run(self, worker: ShardWorker) -> None:
        """Write the rows of the shard, grouped by the leading bits of their keys, then its counts."""
        worker.load(self.shard)
        worker.measure()
        funnel, statistics = worker.count()
        plan = worker.plan
        rows = plan.layout.rows(worker.kept())
        write_by_bucket(_rows_path(plan, self.shard), rows, keys(plan.layout, rows, plan.settings.seed))
        facts = {"funnel": funnel.as_dict(), "statistics": statistics.as_dict(), "rows": len(rows)}
        with atomic_write(_facts_path(plan, self.shard)) as stream:
            stream.write(json.dumps(facts).encode())


@dataclass(frozen=True)
class PartTask:
    """Second pass: gather one part from all shards."""

    part: int
    parts: int
    directory: AnyPath
    recipe: Recipe
    extra: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Name of the task in messages."""
        return f"part {self.part}"

    @property
    def file(self) -> str:
        """File name of the part."""
        return part_name(self.part)

    def run(self, worker: ShardWorker) -> None:
        """Read the rows of the part from all shards, sort them by key and write them."""
        plan = worker.plan
        paths = [_rows_path(plan, shard) for shard in range(len(plan.shards))]
        layout = plan.layout
        rows = read_part(paths, layout.kind, self.part, self.parts)
        rows = in_key_order(rows, keys(layout, rows, plan.settings.seed), layout.ids)
        write_part(
            self.directory / self.file,
            [layout.batch(rows)],
            layout.schema,
            self.recipe,
            part=self.part,
            parts=self.parts,
            extra=self.extra,
            plain=True,
        )


Task = FilterTask | PartTask
Runner = Callable[[Sequence[Task], Callable[[int], None]], None]
"""Runs all tasks, in any order, and calls the function with the number of finished ones."""


def local_runner(plan: Plan, processes: int | None, pairs: int) -> Runner:
    """A runner for this machine, in this process or in several.

    Args:
        plan: what workers need.
        processes: number of worker processes; None decides by the number of pairs.
        pairs: number of pairs in all shards.
    """
    cores = os.cpu_count() or 1
    count = processes or (cores if pairs >= WORTH_PROCESSES else 1)
    threads = plan.threads or threads_for_memory(max(1, cores // count), plan.memory_limit)
    shared = replace(plan, threads=threads)

    def run(tasks: Sequence[Task], on_done: Callable[[int], None]) -> None:
        if count == 1:
            with ShardWorker(shared) as worker:
                for done, task in enumerate(tasks, 1):
                    task.run(worker)
                    on_done(done)
            return
        for done, _ in enumerate(map_in_order(partial(run_task, shared), tasks, processes=count), 1):
            on_done(done)

    return run


def run_task(plan: Plan, task: Task) -> None:
    """Run a task in a worker process, which keeps its database between tasks."""
    task.run(_worker(plan))


@lru_cache(maxsize=1)
def _worker(plan: Plan) -> ShardWorker:
    return ShardWorker(plan)


def shard_facts(plan: Plan) -> tuple[Funnel, TripleStatistics, int]:
    """Funnel, statistics and number of rows of all shards, after the first pass."""
    funnel, statistics, rows = Funnel(), TripleStatistics(), 0
    for shard in range(len(plan.shards)):
        facts = json.loads(_facts_path(plan, shard).read_text(encoding="utf-8"))
        funnel += Funnel.from_dict(facts["funnel"])
        statistics += TripleStatistics.from_dict(facts["statistics"])
        rows += facts["rows"]
    return funnel, statistics, rows


def _rows_path(plan: Plan, shard: int) -> AnyPath:
    return plan.rows / f"shard-{shard:05d}.rows"


def _facts_path(plan: Plan, shard: int) -> AnyPath:
    return plan.staging / f"shard-{shard:05d}.json"
