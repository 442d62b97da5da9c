"""Leases: at most one run of a stage at a time in a workspace in an object store, which has no locks.

A run that wants a stage writes its claim, an object below `.lock-<stage>/`, and then lists all claims. Of two runs that
start at once, at least the later one sees the other's claim, because listings are consistent with earlier writes (S3
since 2020, Google Cloud Storage always). The holder renews its claim while it works. A run that sees another claim
waits: if the claim is renewed, the run is refused; if the claim is older than `LEASE_SECONDS` by the store's clock, its
run has died, and the claim is removed. Two runs that start at once may both be refused; both are never admitted.

A holder that pauses for longer than the lease, for example on a suspended machine, may resume while another run works.
No data is damaged: a stage publishes its result as a whole and with its provenance, and the last result wins.
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
"""Seconds between two looks at the claims of others."""


@contextmanager
def lease(claims: StorePath, stage: str) -> Iterator[None]:
    """Hold a stage by a claim below `claims`.

    Raises:
        WorkspaceError: another run holds the stage.
    """
    claim = claims / f"{uuid.uuid4().hex[:12]}.json"
    ended = threading.Event()
    renewing = threading.Thread(target=_renew, args=(claim, ended), daemon=True)
    try:
        _wait_for_others(claims, claim, stage)
        renewing.start()
        yield
    finally:
        ended.set()
        if renewing.ident is not None:
            renewing.join()
        try:
            claim.unlink(missing_ok=True)
        except OSError as error:  # the lease expires anyway, and an error of the block matters more
            log.warning("%s: cannot remove the claim: %s", claim, error)


def _put(claim: StorePath) -> None:
    claim.write_text(json.dumps({"host": socket.gethostname(), "pid": os.getpid()}))


def _renew(claim: StorePath, ended: threading.Event) -> None:
    while not ended.wait(RENEW_SECONDS):
        try:
            _put(claim)
        except OSError as error:  # a claim outlives several failed renewals
            log.warning("%s: cannot renew the claim: %s", claim, error)


def _wait_for_others(claims: StorePath, claim: StorePath, stage: str) -> None:
    """Return once there is no other claim.

    Raises:
        WorkspaceError: another claim was renewed meanwhile.
    """
    first_seen: dict[StorePath, datetime] = {}
    while True:
        _put(claim)
        times = {claims / entry.base_name: entry.mtime for entry in claims.entries() if entry.is_file}
        now, waiting = times.pop(claim), False
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
    except (OSError, ValueError, KeyError, TypeError):  # removed meanwhile
        return None
