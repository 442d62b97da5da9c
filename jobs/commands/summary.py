"""Summaries: what a command did, as JSON in the workspace's `summaries/<command>.json`.

`ray job submit` turns every failure into exit code 1; the summary keeps the command's exit code and message.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.errors import PrepError
from pipeline.storage.atomic_files import write_json
from pipeline.storage.workspace import Workspace
from pipeline.tables.staleness import stale_facts


@contextmanager
def run_summary(workspace: Workspace, command: str, copy: Path | None = None) -> Iterator[dict[str, Any]]:
    """Collect facts in the yielded dict, and write them with the exit code and message when the block ends or fails.

    If a command runs twice at once, the summary is that of the run that ends last. `copy` is a second file, written
    only on success, which no other run overwrites.
    """
    facts: dict[str, Any] = {}
    began, clock = datetime.now(UTC), time.monotonic()

    def ended(code: int, **more: Any) -> dict[str, Any]:
        passed = {"began": began.isoformat(timespec="seconds"), "seconds": round(time.monotonic() - clock, 3)}
        return {"command": command, "exit_code": code, **more, **passed, **stale_facts(workspace), **facts}

    try:
        yield facts
    except BaseException as error:
        code = error.exit_code if isinstance(error, PrepError) else 1
        message = str(error) or type(error).__name__
        # On a full disk the summary cannot be written either; the first error matters more.
        with suppress(OSError):
            workspace.write_json(ended(code, message=message), "summaries", f"{command}.json")
        raise
    summary = ended(0)
    workspace.write_json(summary, "summaries", f"{command}.json")
    if copy is not None:
        write_json(copy, summary)
