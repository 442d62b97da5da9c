"""One run of a stage at a time, where the workspace is a store: leases, since a store has no locks.

Who wants a stage puts a claim of its own below `.lock-<stage>/`, then looks at what stands there. Of two that come at
once the later one at least sees the other, since stores list what was put (S3 since 2020, Google always). A holder
renews its claim while it works. Whoever finds another's claim waits: is it renewed, the stage is refused; is it not for
`LEASE_SECONDS`, by the store's own clock, then its run died, and it is removed. Two that come at once may both be
refused, never both be let in.

A holder that was stopped for longer than that, a machine asleep, may come back to find another at work. Nothing is
lost then: what a stage makes appears as a whole and says what it was made of, and the last one stands.
"""

from __future__ import annotations

import json
import logging
import os
import socket
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

from pipeline.errors import WorkspaceError
from pipeline.storage.location import StorePath

log = logging.getLogger(__name__)
LEASE_SECONDS = 120.0
RENEW_SECONDS = 20.0
LOOK_SECONDS = 5.0
"""How often one who waits looks again."""


@contextmanager
def lease(claims: StorePath, stage: str) -> Iterator[None]:
    """Hold a stage by a claim below `claims`.

    Raises:
        WorkspaceError: another run holds it.
    """
    own = claims / f"{uuid.uuid4().hex[:12]}.json"
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(own, ended), daemon=True)
    try:
        _wait_for_others(claims, own, stage)
        renewing.start()
        yield
    finally:
        ended.set()
        if renewing.ident is not None:
            renewing.join()
        try:
            own.unlink(missing_ok=True)
        except OSError as error:  # it runs out; what went wrong before matters more
            log.warning("%s: cannot be given up: %s", own, error)


def _put(own: StorePath) -> None:
    own.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))


def _renew(own: StorePath, ended: threading.Event) -> None:
    while not ended.wait(RENEW_SECONDS):
        try:
            _put(own)
        except OSError as error:  # there is time to try again
            log.warning("%s: cannot be renewed: %s", own, error)


def _wait_for_others(claims: StorePath, own: StorePath, stage: str) -> None:
    """Return once no other claim stands.

    Raises:
        WorkspaceError: one was renewed meanwhile.
    """
    first_seen: dict[StorePath, datetime] = {}
    while True:
        _put(own)
        times = {claims / entry.base_name: entry.mtime for entry in claims.entries() if entry.is_file}
        now, waiting = times.pop(own), False
        for other, renewed in times.items():
            if (now - renewed).total_seconds() > LEASE_SECONDS:
                other.unlink(missing_ok=True)
            elif first_seen.setdefault(other, renewed) != renewed:
                raise WorkspaceError(
                    f"another run holds the stage {stage!r}",
                    where=claims.parent,
                    found=_holder(other),
                    todo="wait until it ends",
                )
            else:
                waiting = True
        if not waiting:
            return
        time.sleep(LOOK_SECONDS)


def _holder(claim: StorePath) -> str | None:
    try:
        facts = json.loads(claim.read_bytes())
        return f"process {facts['pid']} on {facts['host']}"
    except (OSError, ValueError, KeyError, TypeError):  # given up meanwhile
        return None
