"""A workspace: all tables of one collection, in a directory or in an object store.

Knows where things stand, which files are there, and how a file or a set of files becomes visible. Does not know what
the tables mean. On a file system, local or mounted: written beside its place, synced, renamed.

In a store (`pipeline.storage.location`), which has neither rename nor lock nor memory mapping:

- a file is written on local disk and put in one upload, so that it appears whole;
- a set that replaces another goes under a new name below the set's place, `<set>/v-…/`, and becomes the set when the
  small object `<set>/.current` names it; until then readers have the old one, and a set that was uploaded in part is
  never seen. Files that are only added (scores, retrieved parts, imports) stand beside each other as on disk;
- stages are held by leases (`pipeline.storage.leases`);
- staging, spilling and what is mapped into memory stay on local disk, below `local`; what took work to make is kept in
  the store as well, by its content, for other machines (`share`, `fetch`).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from pipeline.errors import WorkspaceError
from pipeline.fingerprint import digest_json
from pipeline.schemas import SCHEMA_VERSION
from pipeline.storage.atomic_files import (
    TEMPORARY,
    atomic_write,
    is_temporary_name,
    local_cache,
    remove,
    remove_leftovers,
    temporary_name,
    write_json,
)
from pipeline.storage.leases import lease
from pipeline.storage.location import AnyPath, StorePath, parse_location
from pipeline.storage.published_sets import current_version, download, replace_directory, upload

MANIFEST = "workspace.json"
DEFAULT_LOCATION = "workspace"

__all__ = ["MANIFEST", "Workspace", "atomic_write", "replace_directory"]

_Place = TypeVar("_Place", Path, StorePath, AnyPath)


class Workspace:
    """The place and the rules of writing into it."""

    def __init__(self, root: AnyPath) -> None:
        self.root = root

    @classmethod
    def open(cls, location: str, *, create: bool = False) -> Workspace:
        """Open a workspace by path or URI; `create` makes an empty one if nothing stands there.

        Raises:
            WorkspaceError: nothing there, not a workspace, or one of a newer schema version.
            UsageError: a URI that is none.
        """
        root = parse_location(location)
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

    @property
    def location(self) -> str:
        """What `open` takes, in any process of any machine that sees it."""
        return self.root.uri if isinstance(self.root, StorePath) else str(self.root)

    @property
    def local(self) -> Path:
        """A directory on this machine for what cannot stand in a store: the workspace itself, where it is one."""
        if isinstance(self.root, Path):
            return self.root
        place = local_cache() / digest_json(self.location)
        place.mkdir(parents=True, exist_ok=True)
        return place

    def path(self, *parts: str) -> AnyPath:
        """Absolute path of something inside; for a set and what is in it, `place`."""
        return self.root.joinpath(*parts)

    def place(self, *dataset: str) -> AnyPath:
        """Where the files of a set stand now, and new ones are added."""
        return current_version(self.path(*dataset))

    def names(self, dataset: str) -> list[str]:
        """Names of the sets under a dataset, sorted: retrievers, teachers, triple sets, students."""
        folder = self.path(dataset)
        if not folder.is_dir():
            return []
        found = [p for p in folder.iterdir() if not p.name.startswith(".") and _is_set(p)]
        return sorted(p.name for p in found)

    def parts(self, *dataset: str) -> list[AnyPath]:
        """The finished Parquet files of a dataset, by name."""
        found = self.place(*dataset).glob("*.parquet")
        return sorted((p for p in found if not p.name.startswith(".")), key=lambda p: p.name)

    def read_json(self, *parts: str) -> dict[str, Any]:
        """A small JSON file.

        Raises:
            WorkspaceError: unreadable or not a JSON object.
        """
        path = self.place(*parts[:-1]) / parts[-1]
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WorkspaceError("unreadable", where=path, found=error) from error
        if not isinstance(value, dict):
            raise WorkspaceError("not a JSON object", where=path)
        return value

    def write_json(self, value: dict[str, Any], *parts: str) -> None:
        """Write a small JSON file whole."""
        write_json(self.path(*parts), value)

    def remove_leftovers(self, *dataset: str) -> None:
        """Remove what killed runs left half-written in a dataset, once it is old enough to be nobody's."""
        folder = self.path(*dataset)
        if isinstance(folder, Path):  # what an upload left in part is no object
            remove_leftovers(folder)

    @contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """A scratch directory on the file system of `local`; removed at the end."""
        with _scratch(self.local, name) as path:
            yield path

    @contextmanager
    def shared_staging(self, name: str) -> Iterator[AnyPath]:
        """A scratch directory that other machines see; removed at the end."""
        with _scratch(self.root, name) as path:
            yield path

    @contextmanager
    def exclusive(self, stage: str) -> Iterator[None]:
        """Hold the stage for this process; a second one is told so.

        Also clears what a killed run of the same stage left behind.
        """
        with self._held(stage):
            for root in {self.root, self.local}:
                for left in root.glob(f"{TEMPORARY}*"):
                    if is_temporary_name(left.name, stage):
                        remove(left)
            yield

    @contextmanager
    def _held(self, stage: str) -> Iterator[None]:
        place = self.path(f".lock-{stage}")
        if isinstance(place, StorePath):
            with lease(place, stage):
                yield
            return
        lock = FileLock(place)
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise WorkspaceError(
                f"another run holds the stage {stage!r}", where=self.root, todo="wait until it ends"
            ) from None
        try:
            yield
        finally:
            lock.release()

    def fetch(self, path: Path, marker: str) -> bool:
        """Whether a directory below `local` is there, fetched from the store where another machine shared it.

        Its name says what is in it. `marker` is one of its files, without which it is not complete.
        """
        if path.exists() or isinstance(self.root, Path):
            return path.exists()
        shared = self.root.joinpath(*path.relative_to(self.local).parts)
        if not (shared / marker).is_file():
            return False
        download(shared, path)
        return True

    def share(self, path: Path, marker: str) -> None:
        """Put a directory below `local` into the store, for others to fetch; the marker last."""
        if isinstance(self.root, Path):
            return
        shared = self.root.joinpath(*path.relative_to(self.local).parts)
        upload(path, shared, last=marker)


@contextmanager
def _scratch(root: _Place, name: str) -> Iterator[_Place]:
    path = root / temporary_name(name)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        remove(path)


def _is_set(path: AnyPath) -> bool:
    """Whether there is something of it: in a store, more than what an upload that was cut short left."""
    if isinstance(path, Path):
        return path.is_dir()
    return any(entry.is_file for entry in path.entries())
