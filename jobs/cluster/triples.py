"""The two passes of build-triples in Ray actors: tasks that name their shard or part, results that are files.

The workspace must be on a file system that all nodes see, and `--temp-directory` where one is named; or in a store,
through which rows then go from pass to pass, while databases spill on each node's own disk.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from jobs.cluster.settings import ClusterSettings
from pipeline.errors import IncompleteError
from pipeline.triples.passes import Runner, Task, run_task
from pipeline.triples.shard import Plan


@dataclass(frozen=True)
class ActorTask:
    """A task with the plan it belongs to."""

    plan: Plan
    task: Task


class TripleWorker:
    """What an actor holds; its database is kept from task to task."""

    def __init__(self, location: str) -> None:
        self.location = location

    def run(self, task: ActorTask, report: Callable[[int], None]) -> None:
        """Do one task."""
        run_task(task.plan, task.task)
        report(1)


def actor_runner(cluster: ClusterSettings) -> Callable[[Plan], Runner]:
    """A runner in the actors of a cluster, for a plan."""

    def of_plan(plan: Plan) -> Runner:
        shared = replace(plan, threads=plan.threads or 1)

        def run(tasks: Sequence[Task], on_done: Callable[[int], None]) -> None:
            from jobs.cluster.pool import run_on_actors

            done = 0

            def count(more: int) -> None:
                nonlocal done
                done += more
                on_done(done)

            actor_tasks = [ActorTask(shared, task) for task in tasks]
            failures = run_on_actors(
                str(plan.staging), TripleWorker, TripleWorker.run, actor_tasks, cluster, count, stage="build"
            )
            if failures:
                listed = "\n".join(f"  {failure.task.task.label}: {failure.reason}" for failure in failures)
                raise IncompleteError(
                    f"{len(failures)} of {len(tasks)} tasks failed in all {cluster.max_attempts} attempts:\n{listed}",
                    todo="look at the reasons, then run the same command again",
                )

        return run

    return of_plan
