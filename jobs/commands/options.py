"""Options that several commands share, and how their texts are read."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import UsageError
from pipeline.names import check_name

WORKSPACE_VARIABLE = "PREP_WORKSPACE"


def default_workspace() -> str:
    """Where the workspace is when nobody says."""
    return os.environ.get(WORKSPACE_VARIABLE) or "./workspace"


WorkspaceOption = Annotated[
    str,
    typer.Option(
        "--workspace",
        "-w",
        help=f"Workspace: a directory, s3://… or gs://… [${WORKSPACE_VARIABLE}, else ./workspace]",
        default_factory=default_workspace,
        show_default=False,
    ),
]
SummaryOption = Annotated[
    Path | None,
    typer.Option("--summary", help="Write what the command's summary says to this file, too.", show_default=False),
]
Processes = Annotated[int | None, typer.Option(min=1, help="Worker processes. [all cores]", show_default=False)]


def split_files(option: str, texts: list[str]) -> list[tuple[str, Path]]:
    """Read SPLIT=FILE texts.

    Raises:
        UsageError: one is not of that form.
    """
    files = []
    for text in texts:
        split, separator, path = text.partition("=")
        if not separator or not path:
            raise UsageError(f"malformed {option}", expected="SPLIT=FILE", found=repr(text))
        files.append((check_name("split", split), Path(path)))
    return files


def threshold(text: str) -> float | None:
    """Read a threshold: a number, or "none".

    Raises:
        UsageError: neither.
    """
    if text.lower() == "none":
        return None
    try:
        return float(text)
    except ValueError:
        raise UsageError("malformed --threshold", expected="a number or 'none'", found=repr(text)) from None


def named_weights(texts: list[str]) -> dict[str, float] | None:
    """Read TEACHER=NUMBER texts; None where there are none.

    Raises:
        UsageError: one is not of that form.
    """
    weights = {}
    for text in texts:
        teacher, separator, number = text.partition("=")
        try:
            weights[check_name("teacher", teacher)] = float(number)
        except ValueError:
            separator = ""
        if not separator:
            raise UsageError("malformed --weight", expected="TEACHER=NUMBER", found=repr(text))
    return weights or None
