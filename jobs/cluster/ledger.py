"""What is left of some independent tasks, and what went wrong: each is tried a few times, then set aside."""

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
    """A task that was set aside."""

    task: T
    reason: str
    """Of its last attempt."""


class Ledger(Generic[T]):
    """Tasks in order; one that failed comes again after the others."""

    def __init__(self, tasks: Iterable[T], max_attempts: int) -> None:
        self._pending = deque((task, 1) for task in tasks)
        self._max_attempts = max_attempts
        self._attempt: dict[int, int] = {}
        self.failures: list[Failure[T]] = []

    def __len__(self) -> int:
        """Tasks that wait."""
        return len(self._pending)

    def take(self) -> T:
        """The next task; it must end in `done` or `failed`."""
        task, attempt = self._pending.popleft()
        self._attempt[id(task)] = attempt
        return task

    def done(self, task: T) -> None:
        """The task is finished."""
        del self._attempt[id(task)]

    def failed(self, task: T, reason: str) -> None:
        """Count an attempt; put the task back, or aside."""
        attempt = self._attempt.pop(id(task))
        log.warning("attempt %d of %d failed: %s", attempt, self._max_attempts, reason)
        if attempt < self._max_attempts:
            self._pending.append((task, attempt + 1))
        else:
            self.failures.append(Failure(task, reason))
