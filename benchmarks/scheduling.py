"""Measure the overhead of the actor pool with empty tasks, on a Ray cluster of this machine.

    python benchmarks/scheduling.py --tasks 10 --tasks 1000 --tasks 10000

Prints the milliseconds per task, which are pure overhead, and the memory of the driver.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import ray

from jobs.cluster.pool import run_on_actors
from jobs.cluster.settings import ClusterSettings


@dataclass(frozen=True)
class Task:
    """A task of the same size as that of a shard."""

    number: int
    words: str = "x" * 500


class Worker:
    """Does nothing."""

    def __init__(self, location: str) -> None:
        self.location = location

    def run(self, task: Task, report: Callable[[int], None]) -> None:
        """Report at once."""
        report(task.number % 2)


def measure(tasks: int, actors: int) -> dict[str, float]:
    cluster = ClusterSettings(num_actors=actors, cpus_per_actor=0.1)
    done: list[float] = []
    begun = time.perf_counter()
    failures = run_on_actors(
        ".",
        Worker,
        Worker.run,
        [Task(number) for number in range(tasks)],
        cluster,
        lambda _: done.append(time.perf_counter()) if not done else None,
    )
    assert not failures
    # Measured from the first report: actors take seconds to start.
    seconds = time.perf_counter() - (done[0] if done else begun)
    return {
        "tasks": tasks,
        "ms_per_task": 1000 * seconds / tasks,
        "driver_mb": psutil.Process(os.getpid()).memory_info().rss / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tasks", type=int, action="append", help="number of tasks; repeatable [10, 1000, 10000]")
    parser.add_argument("--actors", type=int, default=2)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    local = {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    ray.init(address="local", num_cpus=2, log_to_driver=False, logging_level=logging.ERROR, **local)
    try:
        rows = [measure(tasks, options.actors) for tasks in options.tasks or [10, 1_000, 10_000]]
    finally:
        ray.shutdown()
    for row in rows:
        print(f"{row['tasks']:>7,} tasks {row['ms_per_task']:8.2f} ms each, driver {row['driver_mb']:.0f} MB")
    if options.json:
        options.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
