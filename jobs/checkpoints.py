"""What a checkpoint named on the command line means: a student of the workspace, a directory, or a Hub name."""

from __future__ import annotations

from pathlib import Path

from pipeline.errors import UsageError
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


def parse_named(kind: str, text: str) -> tuple[str, str]:
    """Split NAME=CHECKPOINT.

    Raises:
        UsageError: no name, or a bad one.
    """
    name, separator, checkpoint = text.partition("=")
    if not separator or not checkpoint:
        raise UsageError(f"malformed {kind}", expected="NAME=CHECKPOINT", found=repr(text))
    return check_name(kind, name), checkpoint
