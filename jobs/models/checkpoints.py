"""Resolves checkpoints named on the command line: a student of the workspace, a directory, or a Hub name.

A student in an object store is named by its URI. Each machine downloads it into a local directory before loading it.
"""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import UsageError, WorkspaceError
from pipeline.fingerprint import digest_json
from pipeline.names import check_name
from pipeline.storage.atomic_files import local_cache, remove
from pipeline.storage.location import StorePath, parse_location
from pipeline.storage.published_sets import current_version, download
from pipeline.storage.workspace import Workspace


def name_checkpoint(workspace: Workspace, text: str) -> str:
    """Turns what the user typed into a name that is valid on every machine.

    A student of the workspace becomes its directory or URI, a local directory becomes absolute, since actors run in
    another working directory, and any other text is returned unchanged, as a name on the Hub.
    """
    if text in workspace.names("students"):
        student = workspace.path("students", text)
        return student.uri if isinstance(student, StorePath) else str(student)
    local = Path(text).expanduser()
    return str(local.absolute()) if local.is_dir() else text


def local_checkpoint(named: str) -> str:
    """The local directory of what `name_checkpoint` returned, downloaded from a store if need be, or a Hub name."""
    if "://" not in named:
        return named
    place = parse_location(named)
    if isinstance(place, Path):
        return str(place)
    copies = local_cache() / "students" / digest_json(named)
    now = current_version(place)
    assert isinstance(now, StorePath)
    directory = copies / (now.name if now != place else _state(place))
    if not directory.is_dir():
        download(now, directory)
        for older in copies.glob("v-*"):
            if older != directory:
                remove(older)
    return str(directory)


def _state(place: StorePath) -> str:
    """A version name for objects that were not published as a set, for example because a user copied them by hand."""
    found = sorted((entry.path, entry.size, str(entry.mtime)) for entry in place.entries(recursive=True))
    return f"v-{digest_json(found)}"


def locate_checkpoint(workspace: Workspace, text: str) -> str:
    """The local directory of a student or checkpoint, or the unchanged text if it is a name on the Hub."""
    return local_checkpoint(name_checkpoint(workspace, text))


def named_student(workspace: Workspace, text: str) -> tuple[str, str]:
    """Name and checkpoint of a student, given as NAME (a student of the workspace) or NAME=CHECKPOINT.

    Raises:
        WorkspaceError: the workspace has no such student.
        UsageError: a bad name.
    """
    name, _, checkpoint = text.partition("=")
    check_name("student", name)
    if not checkpoint and name not in workspace.names("students"):
        known = ", ".join(workspace.names("students")) or "none yet"
        raise WorkspaceError(
            f"no student {name!r}", where=workspace.root, expected=f"one of: {known}", todo="or give NAME=CHECKPOINT"
        )
    return name, locate_checkpoint(workspace, checkpoint or name)


def parse_named(kind: str, text: str) -> tuple[str, str]:
    """Split NAME=CHECKPOINT.

    Raises:
        UsageError: no name, or a bad one.
    """
    name, separator, checkpoint = text.partition("=")
    if not separator or not checkpoint:
        raise UsageError(f"malformed {kind}", expected="NAME=CHECKPOINT", found=repr(text))
    return check_name(kind, name), checkpoint
