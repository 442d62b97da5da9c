"""What a pool tells Ray's Prometheus exporter: how many tasks are done, left and failed, and what was reported of them.

Every metric has the tag `stage`. Sums of what tasks report (pairs, tokens, floating-point operations, seconds) are
counters: rates are for the reader of them to take, `rate(ray_prep_pairs[1m])`. Work that is done again counts again.
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
        """Add what a task reported: each field of it, where it has any."""
        for name, amount in getattr(done, "__dict__", {}).items():
            self.count(name, amount)

    def state(self, *, tasks_left: int, actors: int) -> None:
        """Set where the run is."""
        self._gauges["tasks_left"].set(tasks_left, self._stage)
        self._gauges["actors"].set(actors, self._stage)
