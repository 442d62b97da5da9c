"""Settings of the Ray cluster: how many actors or workers run, and what each gets. Imports no Ray."""

from __future__ import annotations

import os
from dataclasses import dataclass

from pipeline.settings import check_settings, setting

CLUSTER = "Cluster"


@dataclass(frozen=True)
class ClusterSettings:
    """Ray actors that share the work of a stage."""

    address: str | None = setting(
        None,
        panel=CLUSTER,
        metavar="ADDRESS",
        unset="$RAY_ADDRESS, which `ray job submit` sets",
        help="Ray cluster to run on; without it and without --num-actors the work runs in this process.",
    )
    num_actors: int | None = setting(
        None,
        panel=CLUSTER,
        minimum=1,
        unset="on a cluster: one per GPU, else as many as the CPUs allow",
        help="Run on Ray, in this many actors.",
    )
    cpus_per_actor: float = setting(1.0, panel=CLUSTER, minimum=0.1, help="CPUs that Ray reserves for an actor.")
    gpus_per_actor: float | None = setting(
        None,
        panel=CLUSTER,
        minimum=0,
        unset="1 if the cluster has GPUs, else 0",
        help="GPUs that Ray reserves for an actor.",
    )
    max_attempts: int = setting(3, panel=CLUSTER, minimum=1, help="Set a shard aside after this many failed attempts.")
    hang_seconds: float = setting(
        900.0,
        panel=CLUSTER,
        minimum=1,
        help="Replace an actor that makes no progress for this many seconds, or for four times as many before its "
        "first batch: it may have to download, load, compile and tune a model.",
    )

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def uses_ray(self) -> bool:
        """Whether the work runs on Ray: if an address or a number of actors is set, or under `ray job submit`."""
        return bool(self.address or self.num_actors or os.environ.get("RAY_ADDRESS"))


@dataclass(frozen=True)
class TrainCluster:
    """Ray workers that train one student together."""

    num_workers: int | None = setting(
        None,
        panel=CLUSTER,
        minimum=1,
        unset="train in this process; with --address: 1",
        help="Train on Ray, in this many workers.",
    )
    address: str | None = setting(
        None,
        panel=CLUSTER,
        metavar="ADDRESS",
        unset="with --num-workers: $RAY_ADDRESS, else a cluster that this command starts",
        help="Ray cluster to train on.",
    )
    cpus_per_worker: float = setting(1.0, panel=CLUSTER, minimum=0.1, help="CPUs that Ray reserves for a worker.")

    def __post_init__(self) -> None:
        check_settings(self)

    @property
    def uses_ray(self) -> bool:
        """Whether training runs on Ray: if an address or a number of workers is set."""
        return bool(self.address or self.num_workers)

    @property
    def workers(self) -> int:
        """Number of Ray workers."""
        return self.num_workers or 1
