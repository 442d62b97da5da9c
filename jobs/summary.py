"""What a command did, as JSON in the workspace: `summaries/<command>.json`.

`ray job submit` turns every failure into exit code 1; the summary keeps our own code and the message.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from pipeline.errors import PrepError
from pipeline.workspace import Workspace


@contextmanager
def run_summary(workspace: Workspace, command: str) -> Iterator[dict[str, Any]]:
    """Collect facts in the yielded dict; written with exit code and message however the block ends."""
    facts: dict[str, Any] = {}
    try:
        yield facts
    except BaseException as error:
        code = error.exit_code if isinstance(error, PrepError) else 1
        message = str(error) or type(error).__name__
        # The error itself matters more than a summary that cannot be written (a full disk, say).
        with suppress(OSError):
            workspace.write_json(
                {"command": command, "exit_code": code, "message": message, **facts},
                "summaries",
                f"{command}.json",
            )
        raise
    workspace.write_json({"command": command, "exit_code": 0, **facts}, "summaries", f"{command}.json")
