"""What the commands `experiment` and `report` share: options, values of placeholders, and the command as typed."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from pipeline.errors import UsageError

ValuesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="NAME=VALUE", help="Value for {NAME} in the experiment. Repeatable.", show_default=False
    ),
]
ResultsOption = Annotated[
    Path | None,
    typer.Option(
        metavar="DIRECTORY",
        help="Directory with the results of the cells and the tables.",
        show_default="beside the experiment's file, under its name",
    ),
]


def named_values(texts: list[str] | None) -> dict[str, str]:
    """Parse NAME=VALUE texts.

    >>> named_values(["data=/data/msmarco"])
    {'data': '/data/msmarco'}

    Raises:
        UsageError: a text without "=", or with an empty value.
    """
    values = dict(text.partition("=")[::2] for text in texts or [])
    if not all(values.values()):
        raise UsageError("malformed --set", expected="NAME=VALUE", found=", ".join(texts or []))
    return values


def experiment_command(config: Path, values: list[str] | None) -> str:
    """The command that runs an experiment, for the report."""
    return " ".join(
        [
            "prep experiment",
            shlex.quote(str(config)),
            *(f"--set {shlex.quote(text)}" for text in values or []),
            "-w WORKSPACE",
        ]
    )
