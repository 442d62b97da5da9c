"""What the commands experiment and report share: values for placeholders, and the command as typed."""

from __future__ import annotations

import shlex
from pathlib import Path

from pipeline.errors import UsageError


def named_values(texts: list[str] | None) -> dict[str, str]:
    """Read NAME=VALUE texts.

    Raises:
        UsageError: one is not of that form.
    """
    given = dict(text.partition("=")[::2] for text in texts or [])
    if not all(given.values()):
        raise UsageError("malformed --set", expected="NAME=VALUE", found=", ".join(texts or []))
    return given


def experiment_command(config: Path, values: list[str] | None) -> str:
    """The command that runs an experiment, for the page."""
    return " ".join(
        [
            "prep experiment",
            shlex.quote(str(config)),
            *(f"--set {shlex.quote(text)}" for text in values or []),
            "-w WORKSPACE",
        ]
    )
