"""A training run's checkpoints where all machines find them: on a shared file system as they are, or kept in a store.

In a store the trainer writes to the worker's own disk, and each checkpoint that is complete there replaces the one in
the store. A run that goes on, on whatever machine, fetches that first.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.storage.location import AnyPath, StorePath
from pipeline.storage.published_sets import current_version, download, replace_directory
from pipeline.storage.workspace import Workspace


def stage_of(checkpoints: AnyPath) -> str:
    """The stage that a directory of checkpoints belongs to: who holds it next clears what a killed run leaves."""
    return f"train-{checkpoints.name.removeprefix('.training-')}"


@contextmanager
def on_disk(workspace: Workspace, place: AnyPath) -> Iterator[tuple[Path, Callable[[Path], None]]]:
    """The directory that the trainer writes to, and what is to be told of each checkpoint that stands in it."""
    if isinstance(place, Path):
        yield place, lambda checkpoint: None
        return
    with workspace.staging(stage_of(place.parent)) as staging:
        directory, now = staging / "trainer", current_version(place)
        if now != place:
            download(now, directory)
        yield directory, lambda checkpoint: _keep(checkpoint, place)


def _keep(checkpoint: Path, place: StorePath) -> None:
    """Put the trainer's directory into the store, from the first worker, with what each worker has of its own."""
    import torch

    from students.training.stream import Workers

    workers = Workers.here()
    if workers.count > 1:
        own = {path.name: path.read_bytes() for path in checkpoint.glob("rng_state_*.pth")}
        every: list[dict[str, bytes]] = [{}] * workers.count
        torch.distributed.all_gather_object(every, own)
        if workers.rank == 0:
            for name, content in (item for files in every for item in files.items()):
                (checkpoint / name).write_bytes(content)
    if workers.rank == 0:
        replace_directory(checkpoint.parent, place)
