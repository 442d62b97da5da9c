"""A pool of Ray actors that works off independent tasks: the one file that knows Ray.

An actor holds a worker made by a factory and runs one task at a time, reporting progress as it goes. An actor
that dies is replaced and its task tried again; actors that join late are used. A task that fails in all its
attempts is set aside and named. Tasks must be idempotent: what they make appears when complete.
"""

from __future__ import annotations

import logging
import os
import queue
import tempfile
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import ray
from ray.exceptions import RayActorError, RayError, RayTaskError

from pipeline.errors import PrepError, WorkspaceError

if TYPE_CHECKING:
    from jobs.scoring import ClusterSettings

log = logging.getLogger(__name__)
T = TypeVar("T")
REPORT_SECONDS = 1.0
START_ATTEMPTS = 5


@dataclass(frozen=True)
class Failure(Generic[T]):
    """A task that was set aside."""

    task: T
    reason: str


@dataclass
class _Slot(Generic[T]):
    """One actor and what it is doing."""

    actor: Any
    waiting_on: Any
    """What to wait for: the ref of its start, or the stream of its running task."""
    task: T | None = None
    reported: int = 0


@dataclass
class _Ledger(Generic[T]):
    """What is left to do, and what went wrong so far."""

    pending: deque[T]
    max_attempts: int
    attempts: dict[int, int] = field(default_factory=dict)
    failures: list[Failure[T]] = field(default_factory=list)

    def failed(self, task: T, reason: str) -> None:
        """Count an attempt; put the task back, or aside."""
        count = self.attempts[id(task)] = self.attempts.get(id(task), 0) + 1
        log.warning("attempt %d of %d failed: %s", count, self.max_attempts, reason)
        if count < self.max_attempts:
            self.pending.append(task)
        else:
            self.failures.append(Failure(task, reason))


class _Worker:
    """The actor: makes the worker at its first task, so that a bad start is that task's error."""

    def __init__(self, make: Callable[[str], Any], location: str) -> None:
        self._make, self._location, self._worker = make, location, None

    def ready(self) -> bool:
        """Answers once the actor runs."""
        return True

    def run(self, method: Callable[..., None], task: Any) -> Iterator[int]:
        """Run a task; yields the progress since the last report, about once a second."""
        reports: queue.SimpleQueue[int | BaseException | None] = queue.SimpleQueue()

        def work() -> None:
            try:
                _stand_somewhere()
                if self._worker is None:
                    self._worker = self._make(self._location)
                method(self._worker, task, reports.put)
                reports.put(None)
            except BaseException as error:  # carried to the reader, which raises it
                reports.put(error)

        threading.Thread(target=work, daemon=True).start()
        while True:
            done, end = _drain(reports)
            if isinstance(end, BaseException):
                raise end
            yield done
            if end is None:
                return


def _stand_somewhere() -> None:
    """Leave a working directory that is gone: nodes that share a machine replace each other's copy of it."""
    try:
        os.getcwd()  # noqa: PTH109 — Path.cwd is the same call
    except FileNotFoundError:
        os.chdir(tempfile.gettempdir())


def _drain(reports: queue.SimpleQueue[Any]) -> tuple[int, BaseException | bool | None]:
    """Sum reports for a second; the second value is the end (None), an error, or True to go on."""
    done, deadline = 0, time.monotonic() + REPORT_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        try:
            report = reports.get(timeout=left)
        except queue.Empty:
            break
        if report is None or isinstance(report, BaseException):
            return done, report
        done += report
    return done, True


def run_on_actors(
    location: str,
    make: Callable[[str], Any],
    method: Callable[..., None],
    tasks: Sequence[T],
    cluster: ClusterSettings,
    on_progress: Callable[[int], None],
) -> list[Failure[T]]:
    """Run `method(worker, task, report)` for every task on workers made by `make(location)`.

    Raises:
        PrepError: one that a task raised; it would fail the same way again.
    """
    with _connected(cluster.address):
        options, count = _layout(cluster, len(tasks))
        ledger = _Ledger(deque(tasks), cluster.max_attempts)
        pool = _Pool(ray.remote(_Worker).options(**options), make, location, method, ledger, on_progress)
        try:
            pool.run(count)
        finally:
            pool.stop()
        return ledger.failures


@contextmanager
def _connected(address: str | None) -> Iterator[None]:
    """A connection to the cluster; a cluster of this process's own where none is named."""
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


def _layout(cluster: ClusterSettings, tasks: int) -> tuple[dict[str, Any], int]:
    """Actor options and how many actors."""
    total = ray.cluster_resources()  # type: ignore[no-untyped-call]
    gpus = cluster.gpus_per_actor if cluster.gpus_per_actor is not None else float(total.get("GPU", 0) > 0)
    fits = total.get("GPU", 0) / gpus if gpus else total.get("CPU", 0) / cluster.cpus_per_actor
    count = cluster.num_actors or max(1, int(fits))
    if fits < 1:
        log.warning(
            "no room for an actor (%s CPUs, %s GPUs each) in %s yet; waiting",
            cluster.cpus_per_actor,
            gpus,
            total,
        )
    options = {
        "num_cpus": cluster.cpus_per_actor,
        "num_gpus": gpus,
        "max_restarts": 0,  # the pool replaces actors itself, with the task
        "max_task_retries": 0,
        "scheduling_strategy": "SPREAD",
    }
    return options, min(count, tasks)


class _Pool(Generic[T]):
    """The loop that keeps actors busy."""

    def __init__(
        self,
        remote: Any,
        make: Callable[[str], Any],
        location: str,
        method: Callable[..., None],
        ledger: _Ledger[T],
        on_progress: Callable[[int], None],
    ) -> None:
        self._remote, self._make, self._location, self._method = remote, make, location, method
        self._ledger, self._on_progress = ledger, on_progress
        self._slots: dict[Any, _Slot[T]] = {}
        self._failed_starts = 0

    def run(self, count: int) -> None:
        """Work until nothing is pending or running."""
        for _ in range(count):
            self._start()
        while self._ledger.pending or any(slot.task is not None for slot in self._slots.values()):
            ready, _ = ray.wait(list(self._slots), num_returns=1, fetch_local=False)
            for waitable in ready:
                slot = self._slots.pop(waitable)
                self._advance(slot)

    def stop(self) -> None:
        """End all actors."""
        for slot in self._slots.values():
            ray.kill(slot.actor)

    def _start(self) -> None:
        actor = self._remote.remote(self._make, self._location)
        started = actor.ready.remote()
        self._slots[started] = _Slot(actor, started)

    def _advance(self, slot: _Slot[T]) -> None:
        """Take what the slot's actor has to say, and give it work if it has none."""
        try:
            if slot.task is None:
                ray.get(slot.waiting_on)
                self._failed_starts = 0
            else:
                done = ray.get(next(slot.waiting_on))
                slot.reported += done
                self._on_progress(done)
                self._slots[slot.waiting_on] = slot
                return
        except StopIteration:
            pass
        except RayTaskError as error:
            cause = error.cause
            if isinstance(cause, PrepError):
                raise cause from error
            self._give_up(slot, f"{type(cause).__name__}: {cause}")
        except (RayActorError, RayError) as error:
            self._replace(slot, error)
            return
        self._assign(slot)

    def _assign(self, slot: _Slot[T]) -> None:
        if not self._ledger.pending:
            ray.kill(slot.actor)
            return
        slot.task, slot.reported = self._ledger.pending.popleft(), 0
        slot.waiting_on = slot.actor.run.options(num_returns="streaming").remote(self._method, slot.task)
        self._slots[slot.waiting_on] = slot

    def _give_up(self, slot: _Slot[T], reason: str) -> None:
        """Count the slot's task as failed once, and take its progress back."""
        assert slot.task is not None
        self._on_progress(-slot.reported)
        self._ledger.failed(slot.task, reason)
        slot.task = None

    def _replace(self, slot: _Slot[T], error: Exception) -> None:
        """The actor is gone: its task goes back, and another actor comes."""
        reason = f"actor lost: {str(error).strip().splitlines()[0]}"
        if slot.task is not None:
            self._give_up(slot, reason)
        else:
            self._failed_starts += 1
            if self._failed_starts >= START_ATTEMPTS:
                raise WorkspaceError(f"actors do not start: {reason}", todo="look at the cluster's logs")
        if self._ledger.pending:
            self._start()
