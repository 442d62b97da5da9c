"""Where work runs: how many actors or workers, and what each is given. Imports no Ray."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pipeline.errors import UsageError


@dataclass(frozen=True)
class ClusterSettings:
    """Where scoring runs."""

    address: str | None = None
    """Ray cluster to connect to; None takes RAY_ADDRESS, which `ray job submit` sets."""
    num_actors: int | None = None
    """Actors to keep running; None: one for each GPU of the cluster, else as many as its CPUs allow."""
    cpus_per_actor: float = 1.0
    gpus_per_actor: float | None = None
    """None: 1 where the cluster has GPUs, else 0."""
    max_attempts: int = 3
    """How often a shard is tried before it is set aside."""
    hang_seconds: float = 900.0
    """How long an actor may make no progress before it is replaced; it has its model to load, too."""

    @property
    def uses_ray(self) -> bool:
        """One machine needs no Ray: it is used when asked for, and under `ray job submit`."""
        return bool(self.address or self.num_actors or os.environ.get("RAY_ADDRESS"))


@dataclass(frozen=True)
class TrainCluster:
    """Workers on Ray."""

    num_workers: int
    address: str | None = None
    """Cluster; None is a cluster of this process's own, unless one is connected."""
    cpus_per_worker: float = 1.0

    def __post_init__(self) -> None:
        if self.num_workers < 1 or not self.cpus_per_worker > 0:
            raise UsageError("workers and their CPUs must be positive", found=(self.num_workers, self.cpus_per_worker))
