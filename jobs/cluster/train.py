"""Training on Ray workers through Ray Train: every worker runs the same code on its share of each batch.

In: the function that each worker calls, and the number of workers. Out: nothing; the first worker writes the result to
the location in the run. Workers open the workspace by its path or URI. A failed run is not repeated here: the same
command resumes it from its last checkpoint.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import ray
from ray.train import RunConfig, ScalingConfig, TrainingFailedError
from ray.train.torch import TorchTrainer

from jobs.cluster.pool import connected
from jobs.cluster.settings import TrainCluster
from pipeline.errors import PrepError
from pipeline.storage.location import AnyPath, StorePath

T = TypeVar("T")


def work_on_cluster(work: Callable[[T], None], run: T, notes: AnyPath, cluster: TrainCluster) -> None:
    """Call `work(run)` in each of `cluster.workers` workers, each with a GPU where there are any.

    `notes` is the directory of Ray Train's state; it may be removed when training is complete.

    Raises:
        PrepError: raised by a worker; the run's checkpoints stay.
    """
    with connected(cluster.address):
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
        try:
            trainer.fit()
        except TrainingFailedError as error:
            raise _cause(error) from error


def _storage(notes: AnyPath) -> RunConfig:
    if isinstance(notes, StorePath):
        return RunConfig(storage_path=notes.full, storage_filesystem=notes.filesystem)
    return RunConfig(storage_path=str(notes))


def _loop(config: dict[str, Any]) -> None:
    config["work"](config["run"])


def _cause(error: BaseException) -> PrepError:
    """The PrepError that a worker raised, else a new one with the first line of the failure."""
    chain: list[BaseException] = [error]
    for link in chain:
        if isinstance(link, PrepError):
            return link
        # Ray Train wraps a worker's error, and keeps it under a private name.
        inner = [getattr(link, "_base_exc", None), *getattr(link, "worker_failures", {}).values()]
        chain += [cause for cause in inner if isinstance(cause, BaseException)]
    return PrepError("training failed on a worker", found=str(error).strip().splitlines()[0], todo="run it again")
