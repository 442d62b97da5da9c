"""Single files that appear whole or not at all: written under a temporary name, synced, renamed.

In an object store one upload has the same effect. A failed or killed write leaves at most a file with a temporary name
(`temporary_name`), which readers ignore and `remove_leftovers` clears after a day. `pipeline.storage.published_sets`
does the same for directories.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from pipeline.storage.location import AnyPath, StorePath

CACHE_VARIABLE = "PREP_LOCAL_CACHE"
"""Environment variable that overrides ~/.cache/prep, the directory for local copies of objects and for spilling."""
TEMPORARY = ".tmp-"
LEFTOVER_SECONDS = 86_400


def local_cache() -> Path:
    """The directory in which this machine keeps copies of what is in object stores."""
    configured = os.environ.get(CACHE_VARIABLE)
    return Path(configured).expanduser().absolute() if configured else Path.home() / ".cache" / "prep"


@contextmanager
def atomic_write(path: AnyPath) -> Iterator[BinaryIO]:
    """Open a stream whose bytes appear at `path` when the block succeeds; an exception discards them.

    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as directory:
    ...     with atomic_write(Path(directory) / "file") as stream:
    ...         _ = stream.write(b"whole")
    ...     (Path(directory) / "file").read_bytes()
    b'whole'
    """
    if isinstance(path, StorePath):
        local_cache().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=local_cache()) as directory:
            file = Path(directory) / "file"
            with file.open("xb") as stream:
                yield stream
            path.upload(file)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(temporary_name(path.name))
    try:
        with staged.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        staged.replace(path)
        sync_directory(path.parent)
    finally:
        staged.unlink(missing_ok=True)


def write_json(path: AnyPath, value: dict[str, Any]) -> None:
    """Write a small JSON file atomically; keys keep their order, which is that of quantiles and measures."""
    with atomic_write(path) as stream:
        stream.write((json.dumps(value, indent=2, ensure_ascii=False) + "\n").encode())


def write_if_absent(path: AnyPath, content: bytes) -> None:
    """Write a small file unless it exists already.

    On a file system the first of several concurrent writers wins, in a store the last.
    """
    if isinstance(path, StorePath):
        if not path.is_file():
            path.write_bytes(content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(f".{path.name}-{uuid.uuid4().hex[:12]}")
    staged.write_bytes(content)
    try:
        os.link(staged, path)
    except FileExistsError:
        pass
    finally:
        staged.unlink()


def publish_file(staged: Path, final: AnyPath) -> None:
    """Move a complete local file to `final`, or upload it there."""
    if isinstance(final, StorePath):
        final.upload(staged)
        return
    final.parent.mkdir(parents=True, exist_ok=True)
    staged.replace(final)


def move_file(source: AnyPath, target: AnyPath) -> AnyPath:
    """Rename a file within one file system or one store. Returns the new path.

    Raises:
        FileNotFoundError: `source` does not exist any more.
    """
    if isinstance(source, StorePath) and isinstance(target, StorePath):
        return source.rename(target)
    assert isinstance(source, Path) and isinstance(target, Path)
    target.parent.mkdir(parents=True, exist_ok=True)
    return source.rename(target)


def remove(path: AnyPath) -> None:
    """Remove a file, or a directory with its contents, if it exists."""
    if isinstance(path, Path) and path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    elif isinstance(path, Path) or path.is_file():
        path.unlink(missing_ok=True)
    else:
        path.remove_below()


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Remove temporary files and directories, of `name` or of all names, that nobody changed for LEFTOVER_SECONDS."""
    for left in folder.glob(f"{TEMPORARY}*"):
        if name and not is_temporary_name(left.name, name):
            continue
        with suppress(OSError):  # another user's, or removed meanwhile: no reason to fail
            changed = max(path.stat().st_mtime for path in (left, *left.rglob("*")))
            if time.time() - changed > LEFTOVER_SECONDS:
                remove(left)


def temporary_name(name: str) -> str:
    """A new name for an unfinished file or directory, which is later renamed to `name`."""
    return f"{TEMPORARY}{name}-{uuid.uuid4().hex[:12]}"


def is_temporary_name(candidate: str, name: str) -> bool:
    """Whether `candidate` is a temporary name for `name`, or the name under which its old version was set aside.

    >>> is_temporary_name(temporary_name("pairs"), "pairs"), is_temporary_name(".tmp-pairs-old", "pairs")
    (True, False)
    """
    return re.fullmatch(rf"{re.escape(TEMPORARY + name)}-[0-9a-f]{{12}}(-old)?", candidate) is not None


def sync_directory(path: Path) -> None:
    """Flush a directory to disk: a rename inside it then survives a power cut."""
    _sync(path)


def sync_files(directory: Path) -> None:
    """Flush a directory and everything below it to disk."""
    for path in [directory, *directory.rglob("*")]:
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
