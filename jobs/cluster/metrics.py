"""Metrics of a pool for Ray's Prometheus exporter: tasks done, left and failed, and the work that tasks report.

Every metric has the tag `stage`. Reported work (pairs, tokens, floating-point operations, seconds) is summed in
counters; take rates in the query, as in `rate(ray_prep_pairs[1m])`. Repeated work is counted again.
"""

from __future__ import annotations

from typing import Any

from ray.util.metrics import Counter, Gauge


class PoolMetrics:
    """The metrics of one run."""

    def __init__(self, stage: str) -> None:
        self._stage = {"stage": stage}
        self._counters: dict[str, Counter] = {}
        self._gauges = {name: Gauge(f"prep_{name}", tag_keys=("stage",)) for name in ("tasks_left", "actors")}

    def count(self, name: str, amount: float = 1.0) -> None:
        """Add to a counter."""
        if name not in self._counters:
            self._counters[name] = Counter(f"prep_{name}", tag_keys=("stage",))
        if amount > 0:
            self._counters[name].inc(amount, self._stage)

    def report(self, done: Any) -> None:
        """Add each field of a task's report to its counter."""
        for name, amount in getattr(done, "__dict__", {}).items():
            self.count(name, amount)

    def state(self, *, tasks_left: int, actors: int) -> None:
        """Set the gauges of the run."""
        self._gauges["tasks_left"].set(tasks_left, self._stage)
        self._gauges["actors"].set(actors, self._stage)
