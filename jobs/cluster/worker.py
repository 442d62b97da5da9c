"""The actor's side of the pool: runs one task at a time and reports its progress about once a second.

Imports no Ray; the pool turns the class into an actor.
"""

from __future__ import annotations

import os
import queue
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

REPORT_SECONDS = 1.0


class PoolWorker:
    """The actor: makes the worker at its first task, so that a bad start is that task's error."""

    def __init__(self, make: Callable[[str], Any], location: str) -> None:
        self._make, self._location, self._worker = make, location, None

    def ready(self) -> bool:
        """Answers once the actor runs."""
        return True

    def run(self, method: Callable[..., None], task: Any) -> Iterator[Any]:
        """Run a task; yields the progress since the last report, or None, about once a second."""
        reports: queue.SimpleQueue[Any] = queue.SimpleQueue()

        def work() -> None:
            try:
                leave_missing_directory()
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


def leave_missing_directory() -> None:
    """Change to a directory that exists: nodes on one machine replace each other's copy of the working directory."""
    try:
        os.getcwd()  # noqa: PTH109 — Path.cwd is the same call
    except FileNotFoundError:
        os.chdir(tempfile.gettempdir())


def _drain(reports: queue.SimpleQueue[Any]) -> tuple[Any, BaseException | bool | None]:
    """Sum reports for a second; the second value is the end (None), an error, or True to go on."""
    done, deadline = None, time.monotonic() + REPORT_SECONDS
    while (left := deadline - time.monotonic()) > 0:
        try:
            report = reports.get(timeout=left)
        except queue.Empty:
            break
        if report is None or isinstance(report, BaseException):
            return done, report
        done = report if done is None else done + report
    return done, True
