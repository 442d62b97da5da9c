"""How fast scoring goes, over all devices at work: for the progress line and the summary."""

from __future__ import annotations

import time
from typing import Any

from teachers.scorer import Work


class Throughput:
    """Rates since the first report."""

    def __init__(self) -> None:
        self._done, self._begun = Work(), time.monotonic()

    def add(self, work: Work) -> None:
        """Count what was done, or taken back."""
        self._done += work

    def rates(self) -> dict[str, float]:
        """Tokens and operations a second of all devices; what share of their peak and of their time was used."""
        passed = max(time.monotonic() - self._begun, 1e-9)
        own = max(self._done.seconds, 1e-9)
        return {
            "tokens_per_second": self._done.tokens / passed,
            "tflops": self._done.flop / passed / 1e12,
            "share_of_peak": self._done.peak_seconds / own,
            "utilisation": self._done.busy_seconds / own,
        }

    def line(self) -> str:
        """The rates in words."""
        rates: dict[str, Any] = self.rates()
        counted = f"{rates['tflops']:.2f} TFLOP/s ({rates['share_of_peak']:.0%} of peak), " if self._done.flop else ""
        return f"{rates['tokens_per_second']:,.0f} tokens/s, {counted}devices {rates['utilisation']:.0%} busy"
