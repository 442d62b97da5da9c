"""Run the actor pool with simulated actors in simulated time, and compare it with the ideal when machines disappear.

    python benchmarks/simulated_cluster.py --shards 10000 --actors 256

The loop of the pool is the real one; Ray and the clock are replaced. Actors start late, some are slow, some die, and
shards fail. The ideal time is the finished work over the speed of all actors without a break. Prints the time beyond
the ideal, the messages per simulated second, and the real time that the driver needs for a message.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
from ray.exceptions import ActorDiedError, RayTaskError

from jobs.cluster import pool as ray_pool
from jobs.cluster.settings import ClusterSettings

REPORT_SECONDS = 1.0
START_SECONDS = 30.0


@dataclass(frozen=True)
class Shard:
    """A task, with its seconds on an actor of speed 1."""

    number: int
    seconds: float


@dataclass(eq=False)
class Waitable:
    """A handle that Ray's `wait` takes: a call is ready once, the stream of a running shard again and again."""

    actor: Actor
    shard: Shard | None = None
    ready_at: float = 0.0
    left: float = 0.0
    outcome: Callable[[], Any] = field(default=lambda: None)

    def __next__(self) -> Waitable:
        if self.shard is not None and self.left <= 0 and self.outcome is _end:
            raise StopIteration
        return self


def _end() -> None:
    """Marks a stream that ends without an error."""


@dataclass(eq=False)
class Actor:
    """A simulated actor; `ready` and `run` are its remote methods."""

    world: World
    speed: float
    dies_at: float
    dead: bool = False

    @property
    def ready(self) -> Remote:
        return Remote(lambda: self.world.start(self))

    @property
    def run(self) -> Remote:
        return Remote(lambda _, shard: self.world.begin(self, shard))


@dataclass(frozen=True)
class Remote:
    """A remote method; its options are ignored."""

    call: Callable[..., Any]

    def options(self, **_: Any) -> Remote:
        return self

    def remote(self, *arguments: Any) -> Any:
        return self.call(*arguments)


class World:
    """Replaces the modules `ray` and `time` in the pool."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.rng, self.now, self.messages, self.lost = random.Random(options.seed), 0.0, 0, 0
        self.options, self.events, self.order = options, [], 0

    # The clock of the pool.
    def monotonic(self) -> float:
        return self.now

    # The functions of Ray that the pool calls.
    def remote(self, _: type) -> Remote:
        return Remote(lambda *_: self.new_actor())

    def cluster_resources(self) -> dict[str, float]:
        return {"GPU": float(self.options.actors), "CPU": 16.0 * self.options.actors}

    def is_initialized(self) -> bool:
        return True

    def kill(self, actor: Actor) -> None:
        actor.dead = True

    def wait(self, waitables: list[Waitable], timeout: float, **_: Any) -> tuple[list[Waitable], list[Waitable]]:
        waiting = set(waitables)
        limit = self.now + timeout
        while self.events:
            at, order, waitable = heapq.heappop(self.events)
            if waitable not in waiting or waitable.ready_at != at:
                continue
            if at > limit:
                heapq.heappush(self.events, (at, order, waitable))
                break
            self.now = max(self.now, at)
            return [waitable], []
        self.now = limit
        return [], waitables

    def get(self, waitable: Waitable) -> Any:
        self.messages += 1
        if waitable.shard is None:
            return True
        if waitable.outcome is not _end:
            return waitable.outcome()
        report = min(REPORT_SECONDS, waitable.left)
        waitable.left -= report
        self._schedule(waitable, report)
        return report

    # Events of the simulation.
    def new_actor(self) -> Actor:
        slow = self.rng.random() < self.options.slow_share
        lifetime = self.rng.expovariate(1 / (3600 * self.options.hours_between_deaths))
        return Actor(self, 0.5 if slow else self.rng.uniform(0.95, 1.05), self.now + START_SECONDS + lifetime)

    def start(self, actor: Actor) -> Waitable:
        waitable = Waitable(actor)
        self._schedule(waitable, START_SECONDS * self.rng.uniform(0.5, 1.5) if self.now else 0.0)
        return waitable

    def begin(self, actor: Actor, shard: Shard) -> Waitable:
        waitable = Waitable(actor, shard, left=shard.seconds / actor.speed, outcome=_end)
        self._schedule(waitable, REPORT_SECONDS)
        return waitable

    def _schedule(self, waitable: Waitable, delay: float) -> None:
        at = self.now + min(delay, REPORT_SECONDS if waitable.shard else delay)
        if at > waitable.actor.dies_at:
            waitable.outcome = self._die
        elif waitable.shard is not None and self.rng.random() < self.options.failures / max(waitable.shard.seconds, 1):
            waitable.outcome = self._fail
        waitable.ready_at = at
        self.order += 1
        heapq.heappush(self.events, (at, self.order, waitable))

    def _die(self) -> None:
        self.lost += 1
        raise ActorDiedError()

    def _fail(self) -> None:
        self.lost += 1
        raise RayTaskError("run", "simulated", RuntimeError("simulated"))


def simulate(options: argparse.Namespace) -> dict[str, float]:
    world = World(options)
    rng = random.Random(options.seed)
    shards = [Shard(number, options.shard_seconds * rng.uniform(0.8, 1.2)) for number in range(options.shards)]
    shards.sort(key=lambda shard: -shard.seconds)
    done = [0.0]

    def on_progress(seconds: float) -> None:
        done[0] += seconds

    before = psutil.Process().memory_info().rss
    begun, ray_pool.ray, ray_pool.time = time.perf_counter(), world, world  # type: ignore[assignment]
    cluster = ClusterSettings(max_attempts=10)
    failures = ray_pool.run_on_actors("", object, lambda: None, shards, cluster, on_progress)  # type: ignore[arg-type]
    real = time.perf_counter() - begun
    slow = options.slow_share * 0.5 + (1 - options.slow_share)
    ideal = sum(shard.seconds for shard in shards) / (options.actors * slow)
    return {
        "makespan_s": world.now,
        "ideal_s": ideal,
        "beyond_ideal": world.now / ideal - 1,
        "attempts_lost": world.lost,
        "set_aside": len(failures),
        "messages": world.messages,
        "messages_per_s": world.messages / world.now,
        "driver_us_per_message": 1e6 * real / world.messages,
        "driver_grew_mb": (psutil.Process().memory_info().rss - before) / 1e6,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shards", type=int, default=10_000)
    parser.add_argument("--actors", type=int, default=256)
    parser.add_argument("--shard-seconds", type=float, default=60.0, help="on an actor of speed 1")
    parser.add_argument("--slow-share", type=float, default=0.05, help="fraction of actors at half speed")
    parser.add_argument("--failures", type=float, default=0.002, help="fraction of attempts that raise")
    parser.add_argument("--hours-between-deaths", type=float, default=8.0, help="average lifetime of an actor")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    options = parser.parse_args()
    facts = simulate(options)
    for name, value in facts.items():
        print(f"{name:24}{value:14,.{0 if math.isclose(value, round(value)) else 3}f}")
    if options.json:
        options.json.write_text(json.dumps(facts, indent=2) + "\n")


if __name__ == "__main__":
    main()
