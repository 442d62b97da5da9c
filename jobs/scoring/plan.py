"""Plans a scoring run from counts alone: hours, cost and storage on given machines.

Floating-point operations follow from the teachers' shapes, speed from the devices' peaks and the fraction of peak that
a measured run reached. As in the pool, each shard goes to the device that is free first, so the plan accounts for
different machines and for devices that idle at the end.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from jobs.scoring.estimate import BYTES_PER_PAIR
from pipeline.errors import UsageError
from pipeline.scores.settings import PairSettings
from teachers.engine.cost import flop_of

TOKEN_BYTES: Final = 2
"""Size of an id in the token store for a vocabulary of at most 65,536."""
START_SECONDS: Final = 60.0
"""Time until an actor scores: it starts Python, imports libraries and loads the model."""
SHAPES: Final[dict[str, dict[str, int]]] = {
    "minilm-l6": {"hidden_size": 384, "num_hidden_layers": 6, "intermediate_size": 1536},
    "distilbert": {"hidden_size": 768, "num_hidden_layers": 6, "intermediate_size": 3072},
    "bert-base": {"hidden_size": 768, "num_hidden_layers": 12, "intermediate_size": 3072},
    "bert-large": {"hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096},
    "albert-large": {"hidden_size": 1024, "num_hidden_layers": 24, "intermediate_size": 4096},
}
"""Shapes of common encoders; the config.json of a checkpoint has the same keys."""


@dataclass(frozen=True)
class Machines:
    """Devices of the same type."""

    name: str
    devices: int
    peak_tflops: float
    """Peak TFLOP/s of a large matrix product in the precision used."""
    price: float
    """Price of one device for an hour, in any currency."""


@dataclass(frozen=True)
class Plan:
    """The result of a plan."""

    pflop: dict[str, float]
    """PFLOP of each teacher."""
    hours: float
    """From the first actor's start to the last shard's end."""
    device_hours: float
    cost: float
    score_gb: float


def plan(
    teachers: Mapping[str, Mapping[str, Any]],
    machines: Sequence[Machines],
    *,
    pairs: int,
    mean_tokens: float,
    share_of_peak: float,
    pairs_per_shard: int = PairSettings.pairs_per_shard,
) -> Plan:
    """Hours, cost and storage of scoring all pairs with all teachers.

    Args:
        teachers: name and shape (width, inner width and layers, with the keys of a config.json).
        machines: the available devices.
        pairs: number of pairs that each teacher scores.
        mean_tokens: mean length of a pair, special tokens included.
        share_of_peak: fraction of a device's peak that a run reaches, from 0 to 1; take it from a measured run.
        pairs_per_shard: size of the shards, the unit of work of a device.

    Raises:
        UsageError: no machines, or a fraction outside (0, 1].
    """
    if not machines or any(kind.devices < 1 or kind.peak_tflops <= 0 for kind in machines):
        raise UsageError("no machine to plan for", expected="--machine NAME=DEVICES:TFLOPS:PRICE, positive numbers")
    if not 0 < share_of_peak <= 1:
        raise UsageError("--share-of-peak is a share", expected="above 0, at most 1", found=share_of_peak)
    each = {name: flop_of(shape, np.array([mean_tokens]), first_token=True) for name, shape in teachers.items()}
    counts = [min(pairs_per_shard, pairs - start) for start in range(0, pairs, pairs_per_shard)]
    work = [count * flop for flop in each.values() for count in counts]
    free = [(START_SECONDS, number, kind) for number, kind in enumerate(_devices(machines))]
    heapq.heapify(free)
    end = 0.0
    for flop in sorted(work, reverse=True):
        at, number, kind = heapq.heappop(free)
        at += flop / (kind.peak_tflops * 1e12 * share_of_peak)
        end = max(end, at)
        heapq.heappush(free, (at, number, kind))
    hours = end / 3600
    return Plan(
        {name: pairs * flop / 1e15 for name, flop in each.items()},
        hours,
        hours * sum(kind.devices for kind in machines),
        hours * sum(kind.devices * kind.price for kind in machines),
        pairs * len(teachers) * BYTES_PER_PAIR / 1e9,
    )


def _devices(machines: Sequence[Machines]) -> list[Machines]:
    return [kind for kind in machines for _ in range(kind.devices)]


def parse_machines(text: str) -> Machines:
    """Read NAME=DEVICES:TFLOPS:PRICE.

    Raises:
        UsageError: not of that form.
    """
    name, _, rest = text.partition("=")
    try:
        devices, peak, price = rest.split(":")
        return Machines(name, int(devices), float(peak), float(price))
    except ValueError:
        raise UsageError("malformed --machine", expected="NAME=DEVICES:TFLOPS:PRICE", found=repr(text)) from None
