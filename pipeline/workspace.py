"""A workspace: one directory that holds all tables of one collection.

Knows where things stand, which files are there, and how a file becomes visible: written beside its place,
synced, renamed. Reached through `pyarrow.fs`; local and mounted file systems are supported. Does not know
what the tables mean.
"""

from __future__ import annotations

import json
import os
import shutil
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from pipeline.errors import UsageError, WorkspaceError
from pipeline.schemas import SCHEMA_VERSION

MANIFEST = "workspace.json"
DEFAULT_LOCATION = "workspace"
_TEMPORARY = ".tmp-"
LEFTOVER_SECONDS = 86_400


class Workspace:
    """The directory and the rules of writing into it."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @classmethod
    def open(cls, location: str, *, create: bool = False) -> Workspace:
        """Open a workspace by path or `file://` URI; `create` makes an empty one if nothing stands there.

        Raises:
            WorkspaceError: nothing there, not a workspace, or one of a newer schema version.
        """
        root = _local_path(location)
        workspace = cls(root)
        manifest = root / MANIFEST
        if not manifest.exists():
            if not create:
                raise WorkspaceError(
                    "not a workspace", where=root, todo="import a collection: prep import msmarco --help"
                )
            if root.exists() and (not root.is_dir() or any(p for p in root.iterdir() if not p.name.startswith("."))):
                raise WorkspaceError("not a workspace, and not empty", where=root, todo="name a new directory")
            root.mkdir(parents=True, exist_ok=True)
            workspace.write_json({"schema_version": SCHEMA_VERSION}, MANIFEST)
        version = workspace.read_json(MANIFEST).get("schema_version")
        if not isinstance(version, int) or version > SCHEMA_VERSION:
            raise WorkspaceError(
                "a workspace of a newer version",
                where=manifest,
                expected=f"schema version {SCHEMA_VERSION} or lower",
                found=version,
                todo="upgrade prep, or use another workspace",
            )
        return workspace

    def path(self, *parts: str) -> Path:
        """Absolute path of something inside."""
        return self.root.joinpath(*parts)

    def names(self, dataset: str) -> list[str]:
        """Names of the sets under a dataset, sorted: retrievers, teachers, triple sets, students."""
        folder = self.path(dataset)
        if not folder.is_dir():
            return []
        return sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith("."))

    def parts(self, *dataset: str) -> list[Path]:
        """The finished Parquet files of a dataset, by name."""
        return sorted(p for p in self.path(*dataset).glob("*.parquet") if not p.name.startswith("."))

    def read_json(self, *parts: str) -> dict[str, Any]:
        """A small JSON file.

        Raises:
            WorkspaceError: unreadable or not a JSON object.
        """
        path = self.path(*parts)
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WorkspaceError("unreadable", where=path, found=error) from error
        if not isinstance(value, dict):
            raise WorkspaceError("not a JSON object", where=path)
        return value

    def write_json(self, value: dict[str, Any], *parts: str) -> None:
        """Write a small JSON file whole."""
        with atomic_write(self.path(*parts)) as stream:
            stream.write((json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())

    def remove_leftovers(self, *dataset: str) -> None:
        """Remove what killed runs left half-written in a dataset, once it is old enough to be nobody's."""
        for path in self.path(*dataset).glob(f"{_TEMPORARY}*"):
            with suppress(FileNotFoundError):
                if time.time() - path.stat().st_mtime > LEFTOVER_SECONDS:
                    path.unlink()

    @contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """A scratch directory inside the workspace, on the same file system; removed at the end."""
        path = self.path(f"{_TEMPORARY}{name}-{uuid.uuid4().hex[:12]}")
        path.mkdir(parents=True)
        try:
            yield path
        finally:
            shutil.rmtree(path, ignore_errors=True)

    @contextmanager
    def exclusive(self, stage: str) -> Iterator[None]:
        """Hold the stage for this process; a second one is told so at once.

        Also clears what a killed run of the same stage left behind.
        """
        lock = FileLock(self.path(f".lock-{stage}"))
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise WorkspaceError(
                f"another run holds the stage {stage!r}", where=self.root, todo="wait until it ends"
            ) from None
        try:
            for left in self.root.glob(f"{_TEMPORARY}{stage}-*"):
                shutil.rmtree(left, ignore_errors=True)
            yield
        finally:
            lock.release()


def replace_directory(staged: Path, final: Path) -> None:
    """Put a complete staged directory in the place of `final`; the old one is kept until then."""
    final.parent.mkdir(parents=True, exist_ok=True)
    old = staged.with_name(staged.name + "-old")
    if final.exists():
        final.rename(old)
    staged.rename(final)
    sync_directory(final.parent)
    shutil.rmtree(old, ignore_errors=True)


@contextmanager
def atomic_write(path: Path) -> Iterator[BinaryIO]:
    """A stream whose bytes appear at `path` when the block ends well, and nowhere otherwise."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f"{_TEMPORARY}{path.name}-{uuid.uuid4().hex[:12]}")
    try:
        with temporary.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
        sync_directory(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Make a rename inside the directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _local_path(location: str) -> Path:
    if location.startswith("file://"):
        location = location.removeprefix("file://")
    elif "://" in location:
        raise UsageError(
            "this version reads and writes local and mounted file systems only",
            where=location,
            todo="mount the store, or copy the workspace",
        )
    return Path(location).expanduser().absolute()
