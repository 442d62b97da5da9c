"""Keeps account of independent tasks: which are pending, running, done or failed.

A failed task is tried again after the others, up to a number of attempts, and then reported as a failure."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

log = logging.getLogger(__name__)
T = TypeVar("T")


@dataclass(frozen=True)
class Failure(Generic[T]):
    """A task that failed in all its attempts."""

    task: T
    reason: str
    """Error of its last attempt."""


class Ledger(Generic[T]):
    """Tasks in order; a failed task goes to the end of the queue."""

    def __init__(self, tasks: Iterable[T], max_attempts: int) -> None:
        self._pending = deque((task, 1) for task in tasks)
        self._max_attempts = max_attempts
        self._attempt: dict[int, int] = {}
        self.failures: list[Failure[T]] = []

    def __len__(self) -> int:
        """Number of pending tasks."""
        return len(self._pending)

    def take(self) -> T:
        """The next task. The caller must end it with `done` or `failed`."""
        task, attempt = self._pending.popleft()
        self._attempt[id(task)] = attempt
        return task

    def done(self, task: T) -> None:
        """Record a task as finished."""
        del self._attempt[id(task)]

    def failed(self, task: T, reason: str) -> None:
        """Record a failed attempt: the task is queued again, or becomes a failure."""
        attempt = self._attempt.pop(id(task))
        log.warning("attempt %d of %d failed: %s", attempt, self._max_attempts, reason)
        if attempt < self._max_attempts:
            self._pending.append((task, attempt + 1))
        else:
            self.failures.append(Failure(task, reason))
