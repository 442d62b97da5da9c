"""How a file or a set of files becomes visible: whole or not at all; see `pipeline.storage.workspace`."""

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

from filelock import FileLock

from pipeline.errors import WorkspaceError
from pipeline.storage.location import AnyPath, StorePath

LOCAL_VARIABLE = "PREP_LOCAL_CACHE"
"""Where machines keep their copies of what stands in stores, and spill; else ~/.cache/prep."""
TEMPORARY = ".tmp-"
LEFTOVER_SECONDS = 86_400
_CURRENT = ".current"


def local_copies() -> Path:
    """Where this machine keeps its copies of what stands in stores."""
    given = os.environ.get(LOCAL_VARIABLE)
    return Path(given).expanduser().absolute() if given else Path.home() / ".cache" / "prep"


def current(place: AnyPath) -> AnyPath:
    """Where the files of a set stand now."""
    if isinstance(place, StorePath):
        try:
            found = (place / _CURRENT).read_bytes()
        except FileNotFoundError:
            return place
        named = re.fullmatch(rb'\s*\{\s*"version":\s*"(v-[0-9a-f]{12})"\s*\}\s*', found)
        if not named:
            raise WorkspaceError(
                "does not name a version of the set",
                where=place / _CURRENT,
                expected='{"version": "v-…"}',
                found=found[:60],
                todo="remove the set, run its stage again",
            )
        return place / named[1].decode()
    return place


def at_now(place: StorePath) -> StorePath:
    """As `current`, in a store."""
    now = current(place)
    assert isinstance(now, StorePath)
    return now


def replace_directory(staged: AnyPath, final: AnyPath) -> None:
    """Put a complete staged directory in the place of `final`; the old one is kept until then."""
    if isinstance(final, StorePath):
        _replace_set(staged, final)
        return
    assert isinstance(staged, Path)
    final.parent.mkdir(parents=True, exist_ok=True)
    old = staged.with_name(staged.name + "-old")
    if final.exists():
        final.rename(old)
    staged.rename(final)
    sync_directory(final.parent)
    shutil.rmtree(old, ignore_errors=True)


def _replace_set(staged: AnyPath, final: StorePath) -> None:
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
def staged_directory(place: Path, *, replace: bool = False) -> Iterator[Path]:
    """A directory that becomes `place` when the block ends well, and is removed otherwise.

    Where there is a `place` by then, it stays, since another process has made the same; or, if asked, is replaced.
    """
    place.parent.mkdir(parents=True, exist_ok=True)
    remove_leftovers(place.parent, place.name)
    staged = place.with_name(temporary(place.name))
    staged.mkdir()
    try:
        yield staged
        sync_files(staged)
        if replace:
            replace_directory(staged, place)
        else:
            try:
                staged.rename(place)
            except OSError:
                if not place.is_dir():
                    raise
            sync_directory(place.parent)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def move_file(staged: Path, final: AnyPath) -> None:
    """Put a complete staged file into its place."""
    if isinstance(final, StorePath):
        final.upload(staged)
        return
    final.parent.mkdir(parents=True, exist_ok=True)
    staged.replace(final)


def upload(directory: Path, place: StorePath, last: str | None = None) -> None:
    """Put all files of a directory below `place`, the one named `last` last."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    for path in sorted(files, key=lambda path: path.name == last):
        place.joinpath(*path.relative_to(directory).parts).upload(path)


def download(place: StorePath, directory: Path) -> None:
    """Copy all objects below to a directory, which appears when it is complete; once for all processes that want it."""
    directory.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(directory.with_name(f".lock-{directory.name}")):
        if directory.is_dir():
            return
        with staged_directory(directory) as staged:
            for entry in place.entries(recursive=True):
                if entry.is_file:
                    inside = entry.path.removeprefix(place.full + "/")
                    if {"", ".", ".."} & set(inside.split("/")):
                        raise WorkspaceError("an object whose name is no file's", where=place, found=inside)
                    (staged / inside).parent.mkdir(parents=True, exist_ok=True)
                    (place / inside).download(staged / inside)


def remove(path: AnyPath) -> None:
    """Remove a file or a directory with all that is in it."""
    if isinstance(path, Path) and path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    elif isinstance(path, Path) or path.is_file():
        path.unlink(missing_ok=True)
    else:
        path.remove_below()


def remove_leftovers(folder: Path, name: str = "") -> None:
    """Remove what killed runs left half-written there, of one name or all, once it is old enough to be nobody's."""
    for left in folder.glob(f"{TEMPORARY}*"):
        if name and not is_temporary(left.name, name):
            continue
        with suppress(OSError):  # another's, or gone by now: no reason to fail
            touched = max(path.stat().st_mtime for path in (left, *left.rglob("*")))
            if time.time() - touched > LEFTOVER_SECONDS:
                remove(left)


def put_first(path: AnyPath, content: bytes) -> None:
    """Write a small file, unless one is there; in a store, where two come at once, the later one stands."""
    if isinstance(path, StorePath):
        if not path.is_file():
            path.write_bytes(content)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = path.with_name(f".{path.name}-{uuid.uuid4().hex[:12]}")
    mine.write_bytes(content)
    try:
        os.link(mine, path)
    except FileExistsError:
        pass
    finally:
        mine.unlink()


def move_into(path: AnyPath, place: AnyPath) -> AnyPath:
    """Move a file under another name of the same kind of place.

    Raises:
        FileNotFoundError: it is gone.
    """
    if isinstance(path, StorePath) and isinstance(place, StorePath):
        return path.rename(place)
    assert isinstance(path, Path) and isinstance(place, Path)
    place.parent.mkdir(parents=True, exist_ok=True)
    return path.rename(place)


def write_json(path: AnyPath, value: dict[str, Any]) -> None:
    """Write a small JSON file whole."""
    with atomic_write(path) as stream:
        stream.write((json.dumps(value, indent=2, sort_keys=True, ensure_ascii=False) + "\n").encode())


@contextmanager
def atomic_write(path: AnyPath) -> Iterator[BinaryIO]:
    """A stream whose bytes appear at `path` when the block ends well, and nowhere otherwise."""
    if isinstance(path, StorePath):
        local_copies().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=TEMPORARY, dir=local_copies()) as directory:
            file = Path(directory) / "file"
            with file.open("xb") as stream:
                yield stream
            path.upload(file)
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    staged = path.with_name(temporary(path.name))
    try:
        with staged.open("xb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        staged.replace(path)
        sync_directory(path.parent)
    finally:
        staged.unlink(missing_ok=True)


def temporary(name: str) -> str:
    """What something is called, beside its place, until it is complete."""
    return f"{TEMPORARY}{name}-{uuid.uuid4().hex[:12]}"


def is_temporary(found: str, name: str) -> bool:
    """Whether something is called as `temporary` names it, or as what it replaces is set aside."""
    return re.fullmatch(rf"{re.escape(TEMPORARY + name)}-[0-9a-f]{{12}}(-old)?", found) is not None


def sync_directory(path: Path) -> None:
    """Make a rename inside the directory survive a power cut."""
    _sync(path)


def sync_files(directory: Path) -> None:
    """Make all files below survive a power cut."""
    for path in [directory, *directory.rglob("*")]:
        _sync(path)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
