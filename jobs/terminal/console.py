"""Prints to standard output, and runs commands from within other commands."""

from __future__ import annotations

import shlex
import sys

import typer
from rich.console import Console

# Without a terminal, rich would wrap at 80 columns.
console = Console() if sys.stdout.isatty() else Console(width=140)


def run_command(context: typer.Context, command: str) -> None:
    """Prints a command and runs it as if it were typed, in the same process.

    Args:
        context: context of the running command.
        command: a command line without the program name.

    Raises:
        KeyboardInterrupt: the user interrupted the command.
    """
    console.print(f"\n[bold]$ prep {command}[/]", soft_wrap=True, highlight=False)
    # After Ctrl-C, typer returns an exit code instead of raising.
    if context.find_root().command(args=shlex.split(command), standalone_mode=False):
        raise KeyboardInterrupt
