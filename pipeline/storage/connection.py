"""Connections to buckets: one per bucket and process, with retries.

    s3   endpoint from `endpoint_override`, AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL, else AWS
    gs   credentials of the Google environment, or none with `anonymous=true`

Requests that are throttled, dropped or answered with a server error are repeated for about a minute.
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
"""Attempts per request. Pauses double from 50 ms on: about 50 seconds in all, enough for a server to restart."""
RETRY_SECONDS = 60
T = TypeVar("T")


@dataclass(frozen=True, order=True)
class Store:
    """A bucket, and the options of the connection to it."""

    scheme: str
    bucket: str
    options: tuple[tuple[str, str], ...] = ()

    @property
    def filesystem(self) -> FileSystem:
        """The bucket's file system; each process connects once."""
        return _connect(self)


class StoreFile(io.RawIOBase):
    """An open object. Each thread has its own read position, since DuckDB's threads share files."""

    def __init__(self, stream: Any, *, shared: bool = False) -> None:
        """`shared`: other files read the same stream, which therefore stays open when this one is closed."""
        self._shared = shared
        self._stream, self._size, self._of_thread = stream, int(stream.size()), threading.local()

    def seekable(self) -> bool:
        """Return True."""
        return True

    def readable(self) -> bool:
        """Return True."""
        return True

    def tell(self) -> int:
        """The read position of this thread."""
        return getattr(self._of_thread, "position", 0)

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move the read position of this thread."""
        self._of_thread.position = offset + (0, self.tell(), self._size)[whence]
        return self.tell()

    def read(self, size: int = -1) -> bytes:
        """Read `size` bytes, fewer only at the end of the object; all that are left if `size` is negative."""
        position = self.tell()
        rest = self._size - position
        count = max(0, rest if size < 0 else min(size, rest))
        content = bytes(repeated(lambda: self._stream.read_at(count, position))) if count else b""
        self._of_thread.position = position + len(content)
        return content

    def readinto(self, buffer: Any) -> int:
        """Fill the buffer, less only at the end of the object. Returns the number of bytes."""
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        """Close the stream unless it is shared."""
        if not self.closed and not self._shared:
            self._stream.close()
        super().close()


def repeated(request: Callable[[], T]) -> T:
    """The result of `request`, repeated if a response breaks off within its body, which the SDK does not retry."""
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
        allow_delayed_open=True,  # a small object then takes one request
        # The "standard" strategy allows 100 retries in the life of a process: Arrow never returns their tokens to it.
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
    """Arguments for host and scheme of an endpoint, which may be a URL or a bare host."""
    if not endpoint:
        return {}
    scheme, separator, host = endpoint.partition("://")
    host, scheme = (host, scheme) if separator else (endpoint, options.get("scheme", "https"))
    return {"endpoint_override": host.rstrip("/"), "scheme": scheme}


def _is_true(text: str | None) -> bool:
    return (text or "").lower() in ("1", "true", "yes")
