"""Objects of an S3 or Google Cloud store under paths that look like `pathlib`'s; reached through `pyarrow.fs`.

A `StorePath` has the names and methods of `Path` that a workspace needs, so that code which is handed a path need not
ask which kind it is; what a store cannot do (append, map into memory, rename a directory) it does not have, and the
type checker says so. It can be sent to other processes and holds no credentials: those are found where it is used, by
the environment's usual variables and files, and never stand in a path, a file or a message.

    s3://bucket/prefix?endpoint_override=http://host:port
    gs://bucket/prefix

An object appears whole, when its upload is complete.
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
    """An object, or the prefix that several share."""

    store: Store
    key: str
    """Without the bucket; no slash at either end."""

    def __str__(self) -> str:
        return f"{self.store.scheme}://{self.full}"

    def __lt__(self, other: StorePath) -> bool:
        return (self.store, self.key) < (other.store, other.key)

    def __truediv__(self, name: str) -> StorePath:
        return self.joinpath(name)

    @property
    def full(self) -> str:
        """Bucket and key, as the file system calls it."""
        return f"{self.store.bucket}/{self.key}".rstrip("/")

    @property
    def uri(self) -> str:
        """What `parse_location` makes this path of, in any process."""
        query = urlencode(self.store.options)
        return f"{self.store.scheme}://{quote(self.full)}" + (f"?{query}" if query else "")

    @property
    def filesystem(self) -> FileSystem:
        """The bucket's file system."""
        return self.store.filesystem

    @property
    def name(self) -> str:
        """Last part."""
        return PurePosixPath(self.key).name

    @property
    def stem(self) -> str:
        """Last part without its suffix."""
        return PurePosixPath(self.key).stem

    @property
    def suffix(self) -> str:
        """As `Path.suffix`."""
        return PurePosixPath(self.key).suffix

    @property
    def parent(self) -> StorePath:
        """The prefix above."""
        return StorePath(self.store, self.key.rpartition("/")[0])

    def joinpath(self, *names: str) -> StorePath:
        """Something below."""
        return StorePath(self.store, "/".join([*([self.key] if self.key else []), *names]))

    def info(self) -> FileInfo:
        """Type, size and time of change, asked of the store."""
        return repeated(lambda: self.filesystem.get_file_info(self.full))

    def exists(self) -> bool:
        """Whether there is an object, or any below."""
        return self.is_file() or self.is_dir()

    def is_file(self) -> bool:
        """Whether there is an object."""
        return bool(self.info().is_file)

    def is_dir(self) -> bool:
        """Whether there are objects below."""
        return any(True for _ in self.iterdir())

    def entries(self, *, recursive: bool = False) -> list[FileInfo]:
        """What stands below, prefixes included; nothing where there is nothing."""
        from pyarrow.fs import FileSelector

        selector = FileSelector(self.full, allow_not_found=True, recursive=recursive)
        return list(repeated(lambda: self.filesystem.get_file_info(selector)))

    def iterdir(self) -> Iterator[StorePath]:
        """Paths right below, but for prefixes without an object, which some stores keep."""
        for entry in self.entries():
            path = StorePath(self.store, entry.path.partition("/")[2])
            if entry.is_file or any(below.is_file for below in path.entries(recursive=True)):
                yield path

    def glob(self, pattern: str) -> Iterator[StorePath]:
        """Paths right below whose names match."""
        yield from (path for path in self.iterdir() if fnmatchcase(path.name, pattern))

    def mkdir(self, **_: bool) -> None:
        """Nothing: a prefix is there once something stands below it."""

    def open(self, mode: str = "rb", buffering: int = -1) -> StoreFile:  # noqa: ARG002
        """A stream for reading at any place; each read is a request, so read much at once."""
        if mode != "rb":
            raise ValueError(f"an object is written whole, not opened as {mode!r}")
        return StoreFile(repeated(lambda: self.filesystem.open_input_file(self.full)))

    def read_bytes(self) -> bytes:
        """The whole object."""
        with self.open() as stream:
            return stream.read()

    def read_text(self, encoding: str = "utf-8") -> str:
        """The whole object as text."""
        return self.read_bytes().decode(encoding)

    def write_bytes(self, content: bytes) -> None:
        """Put a small object in one request."""

        def put() -> None:
            with self.filesystem.open_output_stream(self.full, compression=None) as stream:
                stream.write(content)

        repeated(put)

    def write_text(self, text: str, encoding: str = "utf-8") -> None:
        """Put a small object in one request."""
        self.write_bytes(text.encode(encoding))

    def upload(self, file: Path) -> None:
        """Put a local file.

        Raises:
            OSError: the store did not take all of it.
        """
        from pyarrow.fs import LocalFileSystem, copy_files

        # One call that Python cannot interrupt: a stream left in the middle would be closed as if it were whole.
        ends = str(file), self.full, LocalFileSystem(), self.filesystem
        repeated(lambda: copy_files(*ends, chunk_size=COPY_BYTES))
        expected, found = file.stat().st_size, self.info().size
        if found != expected:
            raise OSError(f"{self}: {found} bytes arrived, not {expected}")

    def download(self, file: Path) -> None:
        """Copy the object to a local file that is not there yet; may be left in part by an error."""
        from pyarrow.fs import LocalFileSystem, copy_files

        ends = self.full, str(file), self.filesystem, LocalFileSystem()
        repeated(lambda: copy_files(*ends, chunk_size=COPY_BYTES))

    def copy_to(self, target: StorePath) -> None:
        """Copy the object within the store."""
        repeated(lambda: self.filesystem.copy_file(self.full, target.full))

    def rename(self, target: StorePath) -> StorePath:
        """Copy the object, then remove this one; for a moment, or after a crash, both are there."""
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
        """Remove all objects below."""
        with suppress(FileNotFoundError):
            repeated(lambda: self.filesystem.delete_dir(self.full))


AnyPath = Path | StorePath


def parse_location(text: str) -> AnyPath:
    """A path from what a user writes: `s3://…`, `gs://…`, `file://…`, or a local path.

    Raises:
        UsageError: another scheme, no bucket, or options that are none (credentials among them).
    """
    if text.startswith("file://"):
        return Path(text.removeprefix("file://")).expanduser().absolute()
    if "://" not in text:
        return Path(text).expanduser().absolute()
    parts = urlsplit(text)
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    if parts.scheme not in _SCHEMES:
        raise UsageError("unknown kind of store", where=shown, expected="s3://, gs://, file:// or a path")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if "@" in parts.netloc or (unknown := sorted(set(options) - set(_OPTIONS))):
        raise UsageError(
            "the address of a store takes no credentials or unknown options",
            where=shown,
            expected=f"none but {', '.join(_OPTIONS)}",
            found="a name before '@'" if "@" in parts.netloc else ", ".join(unknown),
            todo="put credentials into the environment: AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, "
            "GOOGLE_APPLICATION_CREDENTIALS",
        )
    key = "/".join(part for part in unquote(parts.path).split("/") if part)
    if not parts.netloc or {".", ".."} & set(key.split("/")):
        raise UsageError("not an address in a store", where=shown, expected="s3://BUCKET/PREFIX")
    return StorePath(Store(_SCHEMES[parts.scheme], parts.netloc, tuple(sorted(options.items()))), key)
