"""A workspace: all tables of one collection, in a directory or in an object store.

Knows the paths of all tables, lists their files, and publishes new ones. Does not know what the tables mean. On a file
system, local or mounted, a file is written under a temporary name, synced and renamed.

An object store (`pipeline.storage.location`) has no rename, no lock and no memory mapping. There

- a file is written to local disk and then uploaded; it becomes visible when the upload is complete;
- a set that replaces another is uploaded to a new prefix `<set>/v-…/` and becomes current when the small object
  `<set>/.current` names it. Until then readers see the old set, and never one that is uploaded in part. Files that are
  only added (scores, retrieved parts, imports) are uploaded to the current prefix;
- a lease (`pipeline.storage.leases`) replaces the lock of a stage;
- staging, spilling and memory-mapped files stay on local disk, below `local`. Those that are expensive to make are also
  uploaded, under a name that identifies their content, for other machines (`share`, `fetch`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from filelock import FileLock, Timeout

from pipeline.errors import StaleError, WorkspaceError
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
from pipeline.storage.published_sets import current_version, download, replace_directory, restore_all, upload

log = logging.getLogger(__name__)
MANIFEST = "workspace.json"
DEFAULT_LOCATION = "workspace"

__all__ = ["MANIFEST", "Workspace", "atomic_write", "replace_directory"]

_SomePath = TypeVar("_SomePath", Path, StorePath, AnyPath)


class Workspace:
    """Paths of a workspace, and the rules for writing to it."""

    def __init__(self, root: AnyPath, *, stale_ok: bool = False, warn: bool = True) -> None:
        """A handle on an existing workspace; see `open` for `stale_ok`. Without `warn`, stale sets pass silently."""
        self.root, self.stale_ok, self._warn = root, stale_ok, warn
        self.accepted: dict[str, str] = {}
        """Stale sets that were used through this handle, and what has changed since they were made."""

    def take_stale(self, dataset: str, error: StaleError) -> None:
        """Accept a stale set, with a warning, if the workspace was opened with `stale_ok`.

        Raises:
            StaleError: `error`, if it was not.
        """
        if not self.stale_ok:
            raise error
        if self._warn and dataset not in self.accepted:
            log.warning("%s: %s; used all the same (--stale-ok)", error.what, error.found)
        self.accepted[dataset] = str(error.found)

    @classmethod
    def open(cls, location: str, *, create: bool = False, stale_ok: bool = False) -> Workspace:
        """Open a workspace by path or URI; with `create`, make an empty one if there is nothing at this location.

        With `stale_ok`, loaders of sets accept stale ones (see `pipeline.tables.staleness`).

        Raises:
            WorkspaceError: the location has no workspace, or one of a newer schema version.
            UsageError: the URI is malformed.
        """
        root = parse_location(location)
        if isinstance(root, Path) and root.is_dir():
            for folder in (root, *(path for path in root.iterdir() if path.is_dir())):
                restore_all(folder)
        workspace = cls(root, stale_ok=stale_ok)
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
        """Path or URI from which any process can `open` the workspace."""
        return self.root.uri if isinstance(self.root, StorePath) else str(self.root)

    @property
    def local(self) -> Path:
        """A local directory for files that cannot be in a store. A workspace on disk is its own local directory."""
        if isinstance(self.root, Path):
            return self.root
        directory = local_cache() / digest_json(self.location)
        directory.mkdir(parents=True, exist_ok=True)
        return directory

    def path(self, *parts: str) -> AnyPath:
        """Absolute path below the root. For the files of a set use `current_path`."""
        return self.root.joinpath(*parts)

    def current_path(self, *dataset: str) -> AnyPath:
        """Path of the current version of a set: its files are read here, and new ones added."""
        return current_version(self.path(*dataset))

    def names(self, dataset: str) -> list[str]:
        """Names of the sets under a dataset, sorted: retrievers, teachers, triple sets, students."""
        folder = self.path(dataset)
        if isinstance(folder, Path):
            restore_all(folder)
        if not folder.is_dir():
            return []
        return sorted(p.name for p in folder.iterdir() if not p.name.startswith(".") and _is_set(p))

    def parts(self, *dataset: str) -> list[AnyPath]:
        """The finished Parquet files of a dataset, sorted by name."""
        files = self.current_path(*dataset).glob("*.parquet")
        return sorted((p for p in files if not p.name.startswith(".")), key=lambda p: p.name)

    def read_json(self, *parts: str) -> dict[str, Any]:
        """Read a small JSON file.

        Raises:
            WorkspaceError: the file is missing, unreadable or not a JSON object.
        """
        path = self.current_path(*parts[:-1]) / parts[-1]
        try:
            value = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise WorkspaceError("unreadable", where=path, found=error) from error
        if not isinstance(value, dict):
            raise WorkspaceError("not a JSON object", where=path)
        return value

    def write_json(self, value: dict[str, Any], *parts: str) -> None:
        """Write a small JSON file atomically."""
        write_json(self.path(*parts), value)

    def remove_leftovers(self, *dataset: str) -> None:
        """Remove temporary files that killed runs left in a dataset, once they are a day old."""
        folder = self.path(*dataset)
        if isinstance(folder, Path):  # an interrupted upload leaves no object
            remove_leftovers(folder)

    @contextmanager
    def staging(self, name: str) -> Iterator[Path]:
        """A scratch directory below `local`; removed at the end."""
        with _scratch(self.local, name) as path:
            yield path

    @contextmanager
    def shared_staging(self, name: str) -> Iterator[AnyPath]:
        """A scratch directory below the root, which other machines see too; removed at the end."""
        with _scratch(self.root, name) as path:
            yield path

    @contextmanager
    def exclusive(self, stage: str) -> Iterator[None]:
        """Lock a stage for this process. Also removes temporary files that a killed run of the stage left.

        Raises:
            WorkspaceError: another process holds the stage.
        """
        with self._held(stage):
            for root in {self.root, self.local}:
                for left in root.glob(f"{TEMPORARY}*"):
                    if is_temporary_name(left.name, stage):
                        remove(left)
            yield

    @contextmanager
    def _held(self, stage: str) -> Iterator[None]:
        path = self.path(f".lock-{stage}")
        if isinstance(path, StorePath):
            with lease(path, stage):
                yield
            return
        lock = FileLock(path)
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
        """Download a directory below `local` if it is missing and another machine has shared it.

        Returns whether the directory exists now. Its name must identify its content. `marker` is the file that
        `share` uploaded last; without it the shared directory is incomplete and not downloaded.
        """
        if path.exists() or isinstance(self.root, Path):
            return path.exists()
        shared = self.root.joinpath(*path.relative_to(self.local).parts)
        if not (shared / marker).is_file():
            return False
        download(shared, path)
        return True

    def share(self, path: Path, marker: str) -> None:
        """Upload a directory below `local` for other machines to `fetch`, the file `marker` last."""
        if isinstance(self.root, Path):
            return
        shared = self.root.joinpath(*path.relative_to(self.local).parts)
        upload(path, shared, last=marker)


@contextmanager
def _scratch(root: _SomePath, name: str) -> Iterator[_SomePath]:
    path = root / temporary_name(name)
    path.mkdir(parents=True)
    try:
        yield path
    finally:
        remove(path)


def _is_set(path: AnyPath) -> bool:
    """Whether a path is a set: a directory, or a prefix with files directly below it (a partial upload has none)."""
    if isinstance(path, Path):
        return path.is_dir()
    return any(entry.is_file for entry in path.entries())
