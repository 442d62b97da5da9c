"""A pool of Ray actors that runs independent tasks.

Each actor holds a worker made by a factory, runs one task at a time and reports its progress. An actor that dies,
raises, or makes no progress for too long is replaced and its task is tried again. Nodes that join during a run get
actors too. A task that fails in all its attempts is set aside and named. Tasks must be idempotent: their output
appears only once it is complete.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from jobs.cluster.ledger import Failure, Ledger
from jobs.cluster.metrics import PoolMetrics
from jobs.cluster.settings import ClusterSettings
from jobs.cluster.worker import PoolWorker
from pipeline.errors import PrepError, WorkspaceError

log = logging.getLogger(__name__)
T = TypeVar("T")
START_ATTEMPTS = 5
START_FACTOR = 4.0
"""An actor may take this many times the limit for its first report of a task: it may have to download, load, compile
and tune a model, and to tokenise the texts, which report nothing."""
COPY_GAIN = 1.1
"""An idle actor starts a copy of a running task if the task needs this many times the actor's usual time."""
LOOK_SECONDS = 10.0
"""How often the pool looks for actors that hang and for nodes that have joined."""


@dataclass
class _Slot(Generic[T]):
    """One actor and what it is doing."""

    actor: Any
    waiting_on: Any
    """The ref of its start, or the stream of its running task."""
    task: T | None = None
    reported: Any = None
    """Progress of the task, summed."""
    began: float = 0.0
    """When the task began."""
    moved: float = 0.0
    """When it last reported."""
    usual: float | None = None
    """Seconds that this actor's last task took."""


def run_on_actors(
    location: str,
    make: Callable[[str], Any],
    method: Callable[..., None],
    tasks: Sequence[T],
    cluster: ClusterSettings,
    on_progress: Callable[[Any], None],
    *,
    stage: str = "work",
) -> list[Failure[T]]:
    """Run `method(worker, task, report)` for every task, on workers made by `make(location)`.

    Reports must support `+` and unary `-`: `on_progress` receives each one, and its negative where a task has to run
    again. A report of nothing is a sign of life: without one, an actor counts as hanging after `hang_seconds`, and
    before the first one of a task after `START_FACTOR` times as long. `stage` is the tag of the run's metrics.

    Returns:
        The tasks that failed in all attempts.

    Raises:
        PrepError: raised by a task; it would fail the same way again.
    """
    with connected(cluster.address):
        ledger = Ledger(tasks, cluster.max_attempts)
        pool = _Pool(make, location, method, ledger, cluster, on_progress, PoolMetrics(stage))
        try:
            pool.run()
        finally:
            pool.stop()
        return ledger.failures


def actors_that_fit(cluster: ClusterSettings) -> int:
    """The number of actors that a run would start now."""
    with connected(cluster.address):
        return _Capacity(cluster).actors()


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """A connection to a Ray cluster, closed at the end unless it was open before.

    Connects to `address`, else to RAY_ADDRESS, else starts a local cluster that listens on 127.0.0.1 only.
    """
    if ray.is_initialized():
        yield
        return
    address = address or os.environ.get("RAY_ADDRESS")
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    local: dict[str, Any] = {} if address else {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
    ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
    try:
        yield
    finally:
        ray.shutdown()


class _Capacity:
    """How many actors the cluster can hold, looked up each time: nodes come and go."""

    def __init__(self, cluster: ClusterSettings) -> None:
        self._cluster, self._warned = cluster, False

    def options(self) -> dict[str, Any]:
        """Options of an actor."""
        return {
            "num_cpus": self._cluster.cpus_per_actor,
            "num_gpus": self._gpus(ray.cluster_resources()),  # type: ignore[no-untyped-call]
            "max_restarts": 0,  # the pool replaces actors itself, with the task
            "max_task_retries": 0,
            "scheduling_strategy": "SPREAD",
        }

    def actors(self) -> int:
        """The number of actors to keep: as configured, else as many as fit, else one that waits for room."""
        total = ray.cluster_resources()  # type: ignore[no-untyped-call]
        gpus = self._gpus(total)
        fits = total.get("GPU", 0) / gpus if gpus else total.get("CPU", 0) / self._cluster.cpus_per_actor
        if fits < 1 and not self._warned:
            self._warned = True
            log.warning(
                "no room for an actor (%s CPUs, %s GPUs each) in %s yet; waiting",
                self._cluster.cpus_per_actor,
                gpus,
                total,
            )
        return self._cluster.num_actors or max(1, int(fits))

    def _gpus(self, total: dict[str, float]) -> float:
        configured = self._cluster.gpus_per_actor
        return float(total.get("GPU", 0) > 0) if configured is None else configured


class _Pool(Generic[T]):
    """The loop that keeps actors busy."""

    def __init__(
        self,
        make: Callable[[str], Any],
        location: str,
        method: Callable[..., None],
        ledger: Ledger[T],
        cluster: ClusterSettings,
        on_progress: Callable[[Any], None],
        metrics: PoolMetrics,
    ) -> None:
        self._make, self._location, self._method = make, location, method
        self._ledger, self._capacity, self._on_progress = ledger, _Capacity(cluster), on_progress
        self._metrics = metrics
        self._remote: Any = ray.remote(PoolWorker)
        self._hang_seconds = cluster.hang_seconds
        self._slots: dict[Any, _Slot[T]] = {}
        self._idle: list[_Slot[T]] = []
        """Actors without work: another's task may fail, or turn out to be slow."""
        self._usual: float | None = None
        """Seconds that the last task took, on whatever actor."""
        self._failed_starts = 0

    def run(self) -> None:
        """Work until nothing is pending or running."""
        looked = time.monotonic()
        self._grow()
        while self._ledger or self._running():
            ready, _ = ray.wait(list(self._slots), num_returns=1, timeout=LOOK_SECONDS, fetch_local=False)
            for waitable in ready:
                self._advance(self._slots.pop(waitable))
            running = self._running()
            self._metrics.state(tasks_left=len(self._ledger) + running, actors=len(self._slots) + len(self._idle))
            if time.monotonic() - looked >= LOOK_SECONDS:
                looked = time.monotonic()
                self._end_hanging(looked)
                self._wake(len(self._idle))
                self._grow()

    def stop(self) -> None:
        """End all actors."""
        for slot in [*self._slots.values(), *self._idle]:
            ray.kill(slot.actor)

    def _running(self) -> int:
        return sum(slot.task is not None for slot in self._slots.values())

    def _grow(self) -> None:
        """Start actors up to the number that there is room and work for."""
        wanted = min(self._capacity.actors(), len(self._ledger) + self._running())
        for _ in range(wanted - len(self._slots) - len(self._idle)):
            actor = self._remote.options(**self._capacity.options()).remote(self._make, self._location)
            started = actor.ready.remote()
            self._slots[started] = _Slot(actor, started)

    def _advance(self, slot: _Slot[T]) -> None:
        """Handle the actor's start or its next report, and give it a task if it has none."""
        try:
            if slot.task is None:
                ray.get(slot.waiting_on)
                self._failed_starts = 0
            else:
                self._take(slot, ray.get(next(slot.waiting_on)))
                return
        except StopIteration:
            self._finish(slot)
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, PrepError):
                raise cause from error
            self._lose(slot, f"{type(cause).__name__}: {cause}")
            return
        except (RayActorError, RayError) as error:
            self._lose(slot, f"actor lost: {str(error).strip().splitlines()[0]}")
            return
        self._assign(slot)

    def _take(self, slot: _Slot[T], done: Any) -> None:
        """Pass on a report of a running task."""
        if done is not None:
            slot.reported = done if slot.reported is None else slot.reported + done
            slot.moved = time.monotonic()
            self._on_progress(done)
            self._metrics.report(done)
        self._slots[slot.waiting_on] = slot

    def _finish(self, slot: _Slot[T]) -> None:
        """Record the slot's task as done, and end other actors that run a copy of it."""
        assert slot.task is not None
        self._ledger.done(slot.task)
        self._metrics.count("tasks_done")
        slot.usual = self._usual = time.monotonic() - slot.began
        for other in self._others(slot):
            del self._slots[other.waiting_on]
            self._end(other)

    def _wake(self, count: int) -> None:
        """Let idle actors look for work again."""
        woken, self._idle = self._idle[:count], self._idle[count:]
        for slot in woken:
            self._assign(slot)

    def _others(self, slot: _Slot[T]) -> list[_Slot[T]]:
        """Slots that run the same task."""
        return [other for other in self._slots.values() if other is not slot and other.task is slot.task]

    def _assign(self, slot: _Slot[T]) -> None:
        slot.task = self._ledger.take() if self._ledger else self._slowest(slot)
        if slot.task is None:
            self._idle.append(slot)
            return
        slot.reported, slot.began = None, time.monotonic()
        slot.moved = slot.began
        slot.waiting_on = slot.actor.run.options(num_returns="streaming").remote(self._method, slot.task)
        self._slots[slot.waiting_on] = slot

    def _slowest(self, slot: _Slot[T]) -> T | None:
        """A running task that the slot's idle actor would likely finish first, if there is one.

        At the end of a run, when no more are pending: both work on it, and the one that is done first ends the other.
        """
        running = [other for other in self._slots.values() if other.task is not None]
        alone = [other for other in running if not self._others(other)]
        slowest = max(alone, key=self._remaining, default=None)
        usual = slot.usual or self._usual
        if slowest is None or usual is None or self._remaining(slowest) < COPY_GAIN * usual:
            return None
        return slowest.task

    def _remaining(self, slot: _Slot[T]) -> float:
        """Seconds that the slot's task will still take, as long as the one before; overdue, as long again."""
        usual, passed = slot.usual or self._usual or 0.0, time.monotonic() - slot.began
        return usual - passed if passed < usual else passed

    def _end_hanging(self, now: float) -> None:
        """Replace actors whose task makes no progress."""
        for waitable, slot in list(self._slots.items()):
            limit = self._hang_seconds * (START_FACTOR if slot.reported is None else 1)
            if slot.task is not None and now - slot.moved > limit:
                del self._slots[waitable]
                self._lose(slot, f"no progress for {limit:,.0f} s")

    def _lose(self, slot: _Slot[T], reason: str) -> None:
        """Replace the slot's actor; its task counts as failed once."""
        self._end(slot)
        if slot.task is not None:
            if not self._others(slot):
                self._ledger.failed(slot.task, reason)
                self._metrics.count("attempts_failed")
                self._wake(1)
        else:
            self._failed_starts += 1
            if self._failed_starts >= START_ATTEMPTS:
                raise WorkspaceError(f"actors do not start: {reason}", todo="look at the cluster's logs")
        self._grow()

    def _end(self, slot: _Slot[T]) -> None:
        """End the slot's actor, and retract the progress of its task."""
        ray.kill(slot.actor)
        if slot.reported is not None:
            self._on_progress(-slot.reported)
