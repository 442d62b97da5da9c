"""Paths of objects in an S3 or Google Cloud store, with the interface of `pathlib.Path`; uses `pyarrow.fs`.

A `StorePath` has those methods of `Path` that a workspace needs: most code handles both types alike. It lacks what a
store cannot do (append, map into memory, rename a directory), and the type checker reports such calls. A `StorePath`
can be sent to other processes and holds no credentials. Each process takes them from the usual environment variables
and files; they never appear in a path, a file or a message.

    s3://bucket/prefix?endpoint_override=http://host:port
    gs://bucket/prefix

An object becomes visible as a whole, when its upload is complete.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import total_ordering
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote, urlencode, urlsplit

from pipeline.errors import UsageError
from pipeline.storage.connection import Store, StoreFile, repeated

if TYPE_CHECKING:
    from pyarrow.fs import FileInfo, FileSystem

COPY_BYTES = 8 << 20
_SCHEMES = {"s3": "s3", "gs": "gs", "gcs": "gs"}
_OPTIONS = ("endpoint_override", "scheme", "region", "anonymous")


@total_ordering
@dataclass(frozen=True)
class StorePath:
    """Path of an object, or of a prefix that objects share."""

    store: Store
    key: str
    """Path below the bucket, without a slash at either end."""

    def __str__(self) -> str:
        return f"{self.store.scheme}://{self.full}"

    def __lt__(self, other: StorePath) -> bool:
        return (self.store, self.key) < (other.store, other.key)

    def __truediv__(self, name: str) -> StorePath:
        return self.joinpath(name)

    @property
    def full(self) -> str:
        """Bucket and key: the path that `filesystem` takes."""
        return f"{self.store.bucket}/{self.key}".rstrip("/")

    @property
    def uri(self) -> str:
        """The URI from which `parse_location` makes an equal path."""
        query = urlencode(self.store.options)
        return f"{self.store.scheme}://{quote(self.full)}" + (f"?{query}" if query else "")

    @property
    def filesystem(self) -> FileSystem:
        """The bucket's file system."""
        return self.store.filesystem

    @property
    def name(self) -> str:
        """Last component."""
        return PurePosixPath(self.key).name

    @property
    def stem(self) -> str:
        """Last component without its suffix."""
        return PurePosixPath(self.key).stem

    @property
    def suffix(self) -> str:
        """Suffix of the last component, with its dot."""
        return PurePosixPath(self.key).suffix

    @property
    def parent(self) -> StorePath:
        """The prefix above."""
        return StorePath(self.store, self.key.rpartition("/")[0])

    def joinpath(self, *names: str) -> StorePath:
        """The path of something below this prefix."""
        return StorePath(self.store, "/".join([*([self.key] if self.key else []), *names]))

    def info(self) -> FileInfo:
        """Type, size and modification time, from the store."""
        return repeated(lambda: self.filesystem.get_file_info(self.full))

    def exists(self) -> bool:
        """Whether there is an object at this path or below it."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether there is an object at this path."""
        return bool(self.info().is_file)

    def is_dir(self) -> bool:
        """Whether there are objects below this path."""
        return any(True for _ in self.iterdir())

    def entries(self, *, recursive: bool = False) -> list[FileInfo]:
        """Objects and prefixes below this path; an empty list if there are none."""
        from pyarrow.fs import FileSelector

        selector = FileSelector(self.full, allow_not_found=True, recursive=recursive)
        return list(repeated(lambda: self.filesystem.get_file_info(selector)))

    def iterdir(self) -> Iterator[StorePath]:
        """Paths directly below, without the empty prefixes that some stores keep."""
        for entry in self.entries():
            path = StorePath(self.store, entry.path.partition("/")[2])
            if entry.is_file or any(below.is_file for below in path.entries(recursive=True)):
                yield path

    def glob(self, pattern: str) -> Iterator[StorePath]:
        """Paths directly below whose names match the pattern."""
        yield from (path for path in self.iterdir() if fnmatchcase(path.name, pattern))

    def mkdir(self, **_: bool) -> None:
        """Do nothing: a prefix exists as soon as an object is below it."""

    def open(self, mode: str = "rb", buffering: int = -1) -> StoreFile:  # noqa: ARG002
        """A seekable stream for reading. Each read is a request: read large blocks."""
        if mode != "rb":
            raise ValueError(f"an object is written whole, not opened as {mode!r}")
        return StoreFile(repeated(lambda: self.filesystem.open_input_file(self.full)))

    def read_bytes(self) -> bytes:
        """Read the whole object."""
        with self.open() as stream:
            return stream.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        """Read the whole object as text."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        """Write a small object in one request."""

        def put() -> None:
            with self.filesystem.open_output_stream(self.full, compression=None) as stream:
                stream.write(content)

        repeated(put)

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        """Write a small object in one request."""
        self.write_bytes(text.encode(encoding))

    def upload(self, file: Path) -> None:
        """Upload a local file.

        Raises:
            OSError: the upload failed, or the object's size is not that of the file.
        """
        from pyarrow.fs import LocalFileSystem, copy_files

        # Python cannot interrupt this call. An interrupted stream would be closed as if the upload were complete.
        source_and_target = str(file), self.full, LocalFileSystem(), self.filesystem
        repeated(lambda: copy_files(*source_and_target, chunk_size=COPY_BYTES))
        expected, actual = file.stat().st_size, self.info().size
        if actual != expected:
            raise OSError(f"{self}: {actual} bytes arrived, expected {expected}")

    def download(self, file: Path) -> None:
        """Download the object to a new local file, which an error may leave incomplete."""
        from pyarrow.fs import LocalFileSystem, copy_files

        source_and_target = self.full, str(file), self.filesystem, LocalFileSystem()
        repeated(lambda: copy_files(*source_and_target, chunk_size=COPY_BYTES))

    def copy_to(self, target: StorePath) -> None:
        """Copy the object within the store."""
        repeated(lambda: self.filesystem.copy_file(self.full, target.full))

    def rename(self, target: StorePath) -> StorePath:
        """Copy the object, then remove this one. In between, or after a crash, both exist."""
        self.copy_to(target)
        self.unlink(missing_ok=True)
        return target

    def unlink(self, missing_ok: bool = False) -> None:
        """Remove the object."""
        try:
            repeated(lambda: self.filesystem.delete_file(self.full))
        except FileNotFoundError:
            if not missing_ok:
                raise

    def remove_below(self) -> None:
        """Remove all objects below this prefix."""
        with suppress(FileNotFoundError):
            repeated(lambda: self.filesystem.delete_dir(self.full))


AnyPath = Path | StorePath


def parse_location(text: str) -> AnyPath:
    """Parse the location that a user gives: `s3://…`, `gs://…`, `file://…`, or a local path.

    >>> parse_location("s3://bucket/a/b").parent.uri
    's3://bucket/a'

    Raises:
        UsageError: the scheme or an option is unknown, the bucket is missing, or the URI contains credentials.
    """
    if text.startswith("file://"):
        return Path(text.removeprefix("file://")).expanduser().absolute()
    if "://" not in text:
        return Path(text).expanduser().absolute()
    parts = urlsplit(text)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if parts.scheme not in _SCHEMES:
        raise UsageError("unknown type of store", where=shown, expected="s3://, gs://, file:// or a path")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if "@" in parts.netloc or (unknown := sorted(set(options) - set(_OPTIONS))):
        raise UsageError(
            "a store URI takes no credentials and no unknown options",
            where=shown,
            expected=f"no options except {', '.join(_OPTIONS)}",
            found="a name before '@'" if "@" in parts.netloc else ", ".join(unknown),
            todo="put credentials into the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "GOOGLE_APPLICATION_CREDENTIALS",
        )
    key = "/".join(part for part in unquote(parts.path).split("/") if part)
    if not parts.netloc or {".", ".."} & set(key.split("/")):
        raise UsageError("malformed store URI", where=shown, expected="s3://BUCKET/PREFIX")
    return StorePath(Store(_SCHEMES[parts.scheme], parts.netloc, tuple(sorted(options.items()))), key)
