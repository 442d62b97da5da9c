"""Directories of files that become visible, or replace an older version, as one.

On a file system a complete directory is renamed. To replace one takes two renames: the old version goes to
`.old-<name>` beside it, then the new version takes its name. A run that is killed in between leaves no directory of
that name; `restore` gives the old version its name back, and every reader of a set calls it.

In an object store, which cannot rename one, the files of a set go
below a new prefix, `<set>/v-…/`, and the small object `<set>/.current` then names that prefix; see
`pipeline.storage.workspace`. Readers ask `current_version` for the path of the files.
"""

from __future__ import annotations

import json
import re
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TypeVar

from filelock import FileLock

from pipeline.errors import WorkspaceError
from pipeline.storage.atomic_files import (
    remove,
    remove_leftovers,
    sync_directory,
    sync_files,
    temporary_name,
)
from pipeline.storage.location import AnyPath, StorePath

_CURRENT = ".current"
OLD = ".old-"
"""Prefix of the name of an old version while the new one takes its place."""
_ATTEMPTS = 20
_SomePath = TypeVar("_SomePath", Path, StorePath, AnyPath)


def current_version(path: _SomePath) -> _SomePath:
    """The path of a set's current files: `path`, or in a store the version that `.current` names.

    On a file system, an old version that a killed run has set aside gets its name back first.

    Raises:
        WorkspaceError: `.current` does not name a version.
    """
    if not isinstance(path, StorePath):
        restore(path)
        return path
    try:
        pointer = (path / _CURRENT).read_bytes()
    except FileNotFoundError:
        return path
    match = re.fullmatch(rb'\s*\{\s*"version":\s*"(v-[0-9a-f]{12})"\s*\}\s*', pointer)
    if not match:
        raise WorkspaceError(
            "does not name a version of the set",
            where=path / _CURRENT,
            expected='{"version": "v-…"}',
            found=pointer[:60],
            todo="remove the set and run its stage again",
        )
    return path / match[1].decode()


def replace_directory(staged: AnyPath, final: AnyPath) -> None:
    """Publish a complete staged directory as `final`; readers see the old version until then."""
    if isinstance(final, StorePath):
        _replace_version(staged, final)
        return
    assert isinstance(staged, Path)
    final.parent.mkdir(parents=True, exist_ok=True)
    restore(final)
    remove_leftovers(final.parent, final.name)
    old = final.with_name(OLD + final.name)
    _discard(old)
    try:
        _take_place(staged, final, old)
    except BaseException:
        restore(final)
        raise
    sync_directory(final.parent)
    _discard(old)


def _take_place(staged: Path, final: Path, old: Path) -> None:
    """Rename `final` to `old`, then `staged` to `final`; again if a reader has restored `final` in between."""
    for attempt in range(_ATTEMPTS):
        if final.exists():
            final.rename(old)
        try:
            staged.rename(final)
            return
        except OSError:
            if attempt == _ATTEMPTS - 1 or not final.exists():
                raise


def restore(final: Path) -> None:
    """Give the old version of a directory its name back, if a killed run set it aside and published no new one.

    Safe beside a run that is replacing the directory: that run sets the old version aside once more.
    """
    if not final.exists():
        with suppress(OSError):  # there is none, or another process was faster
            final.with_name(OLD + final.name).rename(final)


def restore_all(folder: Path) -> None:
    """As `restore`, for every directory below `folder`."""
    for old in folder.glob(f"{OLD}*"):
        restore(folder / old.name.removeprefix(OLD))


def _discard(old: Path) -> None:
    """Remove an old version. It is renamed first, so a killed run leaves nothing that could be restored."""
    if old.exists():
        waste = old.with_name(temporary_name(old.name.removeprefix(OLD)))
        old.rename(waste)
        shutil.rmtree(waste, ignore_errors=True)


def _replace_version(staged: AnyPath, final: StorePath) -> None:
    version = f"v-{uuid.uuid4().hex[:12]}"
    if isinstance(staged, StorePath):
        for path in staged.iterdir():
            path.copy_to(final / version / path.name)
    else:
        upload(staged, final / version)
    (final / _CURRENT).write_text(json.dumps({"version": version}))
    for other in final.iterdir():
        if other.name not in (version, _CURRENT):
            remove(other)


@contextmanager
def staged_directory(final: Path, *, replace: bool = False) -> Iterator[Path]:
    """A directory that is renamed to `final` when the block succeeds, and removed otherwise.

    If `final` exists by then, another process has made the same content: it is kept, unless `replace` is set.
    """
    final.parent.mkdir(parents=True, exist_ok=True)
    restore(final)
    remove_leftovers(final.parent, final.name)
    staged = final.with_name(temporary_name(final.name))
    staged.mkdir()
    try:
        yield staged
        sync_files(staged)
        if replace:
            replace_directory(staged, final)
        else:
            try:
                staged.rename(final)
            except OSError:
                if not final.is_dir():
                    raise
            sync_directory(final.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def upload(directory: Path, target: StorePath, last: str | None = None) -> None:
    """Upload all files of a directory; the file named `last` goes last, as a sign that the others are complete."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda path: path.name == last):
        target.joinpath(*path.relative_to(directory).parts).upload(path)


def download(source: StorePath, directory: Path) -> None:
    """Download all objects below `source`; `directory` appears when it is complete.

    A directory that exists is left as it is. Of several processes that call this at once, one downloads.

    Raises:
        WorkspaceError: an object's name cannot be a path below `directory`.
    """
    directory.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(directory.with_name(f".lock-{directory.name}")):
        if directory.is_dir():
            return
        with staged_directory(directory) as staged:
            for entry in source.entries(recursive=True):
                if entry.is_file:
                    inside = entry.path.removeprefix(source.full + "/")
                    if {"", ".", ".."} & set(inside.split("/")):
                        raise WorkspaceError("an object's name is not a valid file path", where=source, found=inside)
                    (staged / inside).parent.mkdir(parents=True, exist_ok=True)
                    (source / inside).download(staged / inside)
