"""Values of an experiment's placeholders, and its command as typed, for `experiment` and `report`."""

from __future__ import annotations

import shlex
from pathlib import Path

from pipeline.errors import UsageError


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
