"""A connection to a bucket: made once in a process, its requests repeated where that helps.

    s3   endpoint from `endpoint_override`, AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, else AWS
    gs   credentials of the Google environment; `anonymous=true` without

Requests that are throttled, dropped or refused with a server's error are repeated for about a minute.
"""

from __future__ import annotations

import io
import os
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from pyarrow.fs import FileSystem

ATTEMPTS = 11
"""Of a request, the pause doubled each time from 50 ms on: together about 50 seconds, enough for a server's restart."""
RETRY_SECONDS = 60
T = TypeVar("T")


@dataclass(frozen=True, order=True)
class Store:
    """A bucket and how it is reached."""

    scheme: str
    bucket: str
    options: tuple[tuple[str, str], ...] = ()

    @property
    def filesystem(self) -> FileSystem:
        """Connected once in a process."""
        return _connect(self)


class StoreFile(io.RawIOBase):
    """An open object; each thread has its own place in it, since DuckDB's seek and read in two calls."""

    def __init__(self, stream: Any, *, shared: bool = False) -> None:
        """`shared` with other files like this one: closing it leaves the stream open."""
        self._shared = shared
        self._stream, self._size, self._of_thread = stream, int(stream.size()), threading.local()

    def seekable(self) -> bool:
        """It is."""
        return True

    def readable(self) -> bool:
        """It is."""
        return True

    def tell(self) -> int:
        """This thread's place."""
        return getattr(self._of_thread, "place", 0)

    def seek(self, place: int, whence: int = io.SEEK_SET) -> int:
        """Move this thread's place."""
        self._of_thread.place = place + (0, self.tell(), self._size)[whence]
        return self.tell()

    def read(self, size: int = -1) -> bytes:
        """So many bytes, fewer at the end only."""
        place = self.tell()
        count = max(0, self._size - place if size < 0 else min(size, self._size - place))
        found = bytes(repeated(lambda: self._stream.read_at(count, place))) if count else b""
        self._of_thread.place = place + len(found)
        return found

    def readinto(self, room: Any) -> int:
        """Fill the room, less at the end only."""
        found = self.read(len(room))
        room[: len(found)] = found
        return len(found)

    def close(self) -> None:
        """Let go of it."""
        if not self.closed and not self._shared:
            self._stream.close()
        super().close()


def repeated(request: Callable[[], T]) -> T:
    """What the request answers; once more where the answer broke off within its body, which the SDK takes for final."""
    for attempt in range(ATTEMPTS):
        try:
            return request()
        except OSError as error:
            if "INTERNAL_FAILURE" not in str(error) or attempt == ATTEMPTS - 1:
                raise
            time.sleep(0.05 * 2**attempt)
    raise AssertionError


@cache
def _connect(store: Store) -> FileSystem:
    options = dict(store.options)
    return _connect_s3(store.bucket, options) if store.scheme == "s3" else _connect_gs(options)


def _connect_s3(bucket: str, options: dict[str, str]) -> FileSystem:
    from pyarrow.fs import AwsDefaultS3RetryStrategy, S3FileSystem, resolve_s3_region

    endpoint = options.get("endpoint_override") or os.environ.get("AWS_ENDPOINT_URL_S3")
    endpoint = endpoint or os.environ.get("AWS_ENDPOINT_URL")
    region = options.get("region") or os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION")
    return S3FileSystem(
        **_endpoint(endpoint, options),
        region=region or ("us-east-1" if endpoint else resolve_s3_region(bucket)),
        anonymous=_is_true(options.get("anonymous")),
        connect_timeout=10,
        request_timeout=RETRY_SECONDS,
        allow_delayed_open=True,  # a small object is one request then
        # Not the "standard" one: it has 100 retries for the life of a process, since Arrow never hands one back to it.
        retry_strategy=AwsDefaultS3RetryStrategy(max_attempts=ATTEMPTS),
    )


def _connect_gs(options: dict[str, str]) -> FileSystem:
    from datetime import timedelta

    from pyarrow.fs import GcsFileSystem

    return GcsFileSystem(
        **_endpoint(options.get("endpoint_override"), options),
        anonymous=_is_true(options.get("anonymous")),
        retry_time_limit=timedelta(seconds=RETRY_SECONDS),
    )


def _endpoint(endpoint: str | None, options: dict[str, str]) -> dict[str, str]:
    """Host and scheme of an endpoint that may be written as a URL."""
    if not endpoint:
        return {}
    scheme, separator, host = endpoint.partition("://")
    host, scheme = (host, scheme) if separator else (endpoint, options.get("scheme", "https"))
    return {"endpoint_override": host.rstrip("/"), "scheme": scheme}


def _is_true(text: str | None) -> bool:
    return (text or "").lower() in ("1", "true", "yes")
