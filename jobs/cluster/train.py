"""Training on Ray workers, through Ray Train: the same run in each, which takes its share of every batch.

In: what each worker does, and a number of workers. Out: nothing; the first worker leaves the result where the run says.
Workers find the workspace by its path or URI. A run that fails is not tried again here: run the command again, and it
goes on from its last checkpoint.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any, TypeVar

import ray
from ray.train import RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer

from jobs.cluster.settings import TrainCluster
from pipeline.errors import PrepError
from pipeline.storage.location import AnyPath, StorePath

T = TypeVar("T")


def work_on_cluster(work: Callable[[T], None], run: T, notes: AnyPath, cluster: TrainCluster) -> None:
    """Call `work(run)` in each of `cluster.workers` workers, each with a GPU where there are any.

    `notes` is where Ray Train keeps its own files; it may be removed when training is complete.

    Raises:
        PrepError: what a worker raised; the run's checkpoints stay.
    """
    connected = ray.is_initialized()
    if not connected:
        address = cluster.address or os.environ.get("RAY_ADDRESS")
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        local: dict[str, Any] = {} if address else {"include_dashboard": False, "_node_ip_address": "127.0.0.1"}
        ray.init(address=address or "local", log_to_driver=False, logging_level=logging.ERROR, **local)
    try:
        use_gpu = ray.cluster_resources().get("GPU", 0) >= cluster.workers  # type: ignore[no-untyped-call]
        trainer = TorchTrainer(
            _loop,
            train_loop_config={"work": work, "run": run},
            scaling_config=ScalingConfig(
                num_workers=cluster.workers,
                use_gpu=use_gpu,
                resources_per_worker={"CPU": cluster.cpus_per_worker, **({"GPU": 1} if use_gpu else {})},
            ),
            run_config=_storage(notes),
        )
        trainer.fit()
    except TrainingFailedError as error:
        raise _cause(error) from error
    finally:
        if not connected:
            ray.shutdown()


def _storage(place: AnyPath) -> RunConfig:
    """Where Ray Train keeps its own notes."""
    if isinstance(place, StorePath):
        return RunConfig(storage_path=place.full, storage_filesystem=place.filesystem)
    return RunConfig(storage_path=str(place))


def _loop(config: dict[str, Any]) -> None:
    config["work"](config["run"])


def _cause(error: BaseException) -> PrepError:
    """What a worker raised, if it was one of ours; else the first line of the failure."""
    seen: list[BaseException] = [error]
    for found in seen:
        if isinstance(found, PrepError):
            return found
        # Ray Train wraps what a worker raises, and keeps it under a private name.
        inner = [getattr(found, "_base_exc", None), *getattr(found, "worker_failures", {}).values()]
        seen += [one for one in inner if isinstance(one, BaseException)]
    return PrepError("training failed on a worker", found=str(error).strip().splitlines()[0], todo="run it again")
