"""Measures a block of code: wall and CPU seconds, and the peak memory of the whole process tree."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psutil


@dataclass
class Meter:
    """Seconds and peak resident memory of this process and its children during `watch`.

    Pages that two processes share are counted twice.
    """

    wall_s: float = 0.0
    cpu_s: float = 0.0
    """Hardly affected by other load on the machine."""
    peak_gb: float = 0.0

    @contextmanager
    def watch(self) -> Iterator[None]:
        """Measure the block; processes that it starts must end before it does."""
        done = threading.Event()
        sampler = threading.Thread(target=self._sample, args=(done,))
        sampler.start()
        wall, cpu = time.perf_counter(), sum(os.times()[:4])
        try:
            yield
        finally:
            self.wall_s, self.cpu_s = time.perf_counter() - wall, sum(os.times()[:4]) - cpu
            done.set()
            sampler.join()

    def _sample(self, done: threading.Event) -> None:
        here = psutil.Process()
        while not done.wait(0.1):
            total = 0
            for process in [here, *here.children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    total += process.memory_info().rss
            self.peak_gb = max(self.peak_gb, total / 1e9)
