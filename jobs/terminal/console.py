"""Standard output, and commands that run other commands."""

from __future__ import annotations

import shlex
import sys

import typer
from rich.console import Console

# Without a terminal there is no width to wrap at.
console = Console() if sys.stdout.isatty() else Console(width=140)


def run_command(context: typer.Context, command: str) -> None:
    """Run another command of the same program, as if typed, and print it first.

    Args:
        context: of the command that is running.
        command: the words after the program's name.

    Raises:
        KeyboardInterrupt: it was interrupted.
    """
    console.print(f"\n[bold]$ prep {command}[/]", soft_wrap=True, highlight=False)
    # After Ctrl-C the command line library returns a code instead of raising.
    if context.find_root().command(args=shlex.split(command), standalone_mode=False):
        raise KeyboardInterrupt
