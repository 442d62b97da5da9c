"""Shows progress on standard error: a bar on a terminal, else a log line every ten seconds, as in a cluster job."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    Task,
    TextColumn,
    TimeRemainingColumn,
)
from rich.text import Text

from jobs.terminal.logs import as_objects

log = logging.getLogger(__name__)
SECONDS_BETWEEN_LINES = 10.0


class Meter:
    """Counts the finished work of a stage, and derives rate and remaining time."""

    def __init__(self, label: str, unit: str) -> None:
        self.label, self.unit = label, unit
        self.detail = ""
        """Text shown after the rate."""
        self.done, self.total = 0, 0
        self.started = time.monotonic()

    def plan(self, total: int) -> None:
        """Sets the total amount of work and starts the clock."""
        self.total, self.started = total, time.monotonic()
        self._show()

    def advance(self, count: int) -> None:
        """Adds finished work; a negative count retracts lost work."""
        self.done += count
        self._show()

    def set(self, done: int, total: int) -> None:
        """Sets the finished and the total amount of work."""
        self.done, self.total = done, total
        self._show()

    def _show(self) -> None:
        """Displays the current state; a plain meter displays nothing."""

    @property
    def rate(self) -> float:
        """Units per second since the start."""
        return self.done / max(time.monotonic() - self.started, 1e-9)

    def line(self) -> str:
        """The state as text, for example "score: 2 of 4 shards, 1.0 shards/s, 0:00:02 left"."""
        left = timedelta(seconds=round((self.total - self.done) / self.rate)) if self.done > 0 else "?"
        rate = ", ".join(filter(None, [f"{self.rate:,.1f} {self.unit}/s", self.detail]))
        return f"{self.label}: {self.done:,} of {self.total:,} {self.unit}, {rate}, {left} left"


class _Rate(ProgressColumn):
    def __init__(self, meter: Meter) -> None:
        super().__init__()
        self._meter = meter

    def render(self, task: Task) -> Text:  # noqa: ARG002 — one meter, one task
        return Text(", ".join(filter(None, [f"{self._meter.rate:,.1f} {self._meter.unit}/s", self._meter.detail])))


class _BarMeter(Meter):
    def __init__(self, label: str, unit: str) -> None:
        super().__init__(label, unit)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            _Rate(self),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            transient=True,
        )
        self._task = self.progress.add_task(label, total=None)

    def _show(self) -> None:
        self.progress.update(self._task, completed=self.done, total=self.total, description=self.label)


class _LineMeter(Meter):
    def __init__(self, label: str, unit: str) -> None:
        super().__init__(label, unit)
        self._shown = time.monotonic()

    def _show(self) -> None:
        if time.monotonic() - self._shown >= SECONDS_BETWEEN_LINES:
            self._shown = time.monotonic()
            fields = {"stage": self.label, "done": self.done, "total": self.total, "unit": self.unit}
            log.info(self.line(), extra={"fields": {**fields, "per_second": round(self.rate, 3)}})


@contextmanager
def progress(label: str, unit: str) -> Iterator[Meter]:
    """Shows progress while the block runs."""
    if sys.stderr.isatty() and not as_objects():
        bar = _BarMeter(label, unit)
        with bar.progress:
            yield bar
    else:
        yield _LineMeter(label, unit)
