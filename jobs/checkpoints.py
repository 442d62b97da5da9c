"""What a checkpoint named on the command line means: a student of the workspace, a directory, or a Hub name."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import UsageError, WorkspaceError
from pipeline.names import check_name
from pipeline.workspace import Workspace


def locate_checkpoint(workspace: Workspace, text: str) -> str:
    """The directory of a student of the workspace if one has this name, a local directory, or the text as it is.

    Directories come back absolute: actors stand elsewhere.
    """
    if text in workspace.names("students"):
        return str(workspace.path("students", text))
    local = Path(text).expanduser()
    return str(local.absolute()) if local.is_dir() else text


def named_student(workspace: Workspace, text: str) -> tuple[str, str]:
    """Name and checkpoint of a student given as NAME, one of the workspace, or as NAME=CHECKPOINT.

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
