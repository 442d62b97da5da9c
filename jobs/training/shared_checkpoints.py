"""Checkpoints of a training run in a directory that all machines can read: on a shared file system or in a store.

On a file system the trainer writes to the directory itself. For a store it writes to the worker's local disk, and every
complete checkpoint replaces the previous one in the store; a resumed run, on any machine, first downloads that one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline.storage.location import AnyPath, StorePath
from pipeline.storage.published_sets import current_version, download, replace_directory
from pipeline.storage.workspace import Workspace


def stage_of(checkpoints: AnyPath) -> str:
    """Name of the stage that owns a directory of checkpoints; its next run removes what a killed run left behind."""
    return f"train-{checkpoints.name.removeprefix('.training-')}"


@contextmanager
def local_checkpoints(workspace: Workspace, place: AnyPath) -> Iterator[tuple[Path, Callable[[Path], None]]]:
    """The local directory that the trainer writes to, and a function to call with each complete checkpoint in it."""
    if isinstance(place, Path):
        yield place, lambda checkpoint: None
        return
    with workspace.staging(stage_of(place.parent)) as staging:
        directory, now = staging / "trainer", current_version(place)
        if now != place:
            download(now, directory)
        yield directory, lambda checkpoint: _upload(checkpoint, place)


def _upload(checkpoint: Path, place: StorePath) -> None:
    """Upload the trainer's directory from the first worker, with the random states of all workers."""
    import torch

    from students.training.step_inputs import Workers

    workers = Workers.here()
    if workers.count > 1:
        states = {path.name: path.read_bytes() for path in checkpoint.glob("rng_state_*.pth")}
        all_states: list[dict[str, bytes]] = [{}] * workers.count
        torch.distributed.all_gather_object(all_states, states)
        if workers.rank == 0:
            for name, content in (item for files in all_states for item in files.items()):
                (checkpoint / name).write_bytes(content)
    if workers.rank == 0:
        replace_directory(checkpoint.parent, place)
