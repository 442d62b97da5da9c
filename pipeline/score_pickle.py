"""A pickled dict of dicts, query -> {passage -> score}, read as a stream and without running anything.

Only the instructions that build dicts, integers, floats and strings are known; one that names a class, calls or
imports is refused before anything of it is looked at. Nothing but the current thousand queries is held, so a
pickle that needs 17 GB of dicts is read in a few dozen MB; strings are kept as pickle refers back to them.

Imports nothing but NumPy and the standard library: `pipeline.score_process` runs it in a process with little memory.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

READ_BYTES = 1 << 20
ENTRY = np.dtype([("J", "u1"), ("passage", "<i4"), ("G", "u1"), ("score", ">f8")])
_ENTRY_HEAD, _FLOAT = struct.Struct("<BiB"), struct.Struct(">d")
# Entries as they mostly are, a four-byte integer and a float, and with a shorter integer.
_RUN = re.compile(rb"(?:J.{4}G.{8})+", re.DOTALL)
_SHORT = re.compile(rb"(?:K(.)|M(..))G(.{8})", re.DOTALL)
# No entry of these two forms is longer.
_LONGEST_ENTRY = 14
# A query and its dict where all of it is as it mostly is: key, dict, memo, mark, entries, set.
_QUERY = re.compile(rb"(?:J(.{4})|M(..)|K(.))\}(\x94|q.|r.{4})?\(((?:J.{4}G.{8})+)u", re.DOTALL)
# So much is had ahead to look for one: the thousand entries of one set.
_LONGEST_QUERY = 16 << 10
_INT32 = range(-(1 << 31), 1 << 31)
_MARK = object()
# Instructions that import, build or call: GLOBAL, INST, STACK_GLOBAL, REDUCE, BUILD, OBJ, NEWOBJ, EXT, persistent ids.
_NAMING = frozenset(b"ci\x93Rbo\x81\x92\x82\x83\x84PQ")


class RefusedError(Exception):
    """The pickle holds something else; the message says what, and at which byte."""


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""


class Entries(NamedTuple):
    """Scores of one query."""

    query: int | str
    run: bytes
    """Integer passages and their scores, as ENTRY."""
    others: list[tuple[int | str, float]]
    """Passages that are no 32-bit integers, with their scores."""


def read_pickle(stream: Readable) -> Iterator[Entries]:
    """The scores query by query, in the order of the file.

    Raises:
        RefusedError: not what it should be, or it ends too early.
    """
    return _Machine(stream).run()


class _Inner:
    """A query's dict while it is filled."""

    def __init__(self) -> None:
        self.run = bytearray()
        self.others: list[tuple[int | str, float]] = []

    def put(self, items: list[Any]) -> None:
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(value) not in (int, float) or type(key) not in (int, str):
                raise RefusedError(f"an entry {key!r:.40}: {type(value).__name__}")
            if type(key) is int and key in _INT32:
                self.run += _ENTRY_HEAD.pack(ord("J"), key, ord("G")) + _FLOAT.pack(value)
            else:
                self.others.append((key, float(value)))


class _Machine:
    """The few instructions, on a stack. The outermost dict is never filled: its entries are handed out."""

    def __init__(self, stream: Readable) -> None:
        self._stream, self._buffer, self._at, self._read = stream, b"", 0, 0
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, str] = {}
        self._remembered = 0
        self._outer: object | None = None
        self._done: list[Entries] = []
        self._codes: dict[int, Callable[[], None]] = self._instructions()

    def run(self) -> Iterator[Entries]:
        if self._byte() != 0x80 or not 2 <= self._byte() <= 5:
            raise RefusedError("no pickle of protocol 2 to 5")
        codes, stop = self._codes, ord(".")
        while True:
            code = self._byte()
            if code == stop:
                break
            known = codes.get(code)
            if known is None:
                what = "a class or function that is named" if code in _NAMING else f"the instruction {bytes([code])!r}"
                raise RefusedError(f"{what} at byte {self._position - 1}")
            known()
            if self._done:
                yield from self._done
                self._done.clear()
        if len(self._stack) != 1 or self._stack[0] is not self._outer:
            raise RefusedError("something else than one dict")

    @property
    def _position(self) -> int:
        return self._read - len(self._buffer) + self._at

    def _fill(self) -> bool:
        """Read on; whether there was more."""
        block = self._stream.read(READ_BYTES)
        self._buffer = self._buffer[self._at :] + block
        self._at = 0
        self._read += len(block)
        return bool(block)

    def _more(self, size: int) -> None:
        """Have `size` bytes ahead."""
        while len(self._buffer) - self._at < size:
            if not self._fill():
                raise RefusedError(f"the end of the file after {self._position + len(self._buffer) - self._at} bytes")

    def _byte(self) -> int:
        if self._at == len(self._buffer):
            self._more(1)
        self._at += 1
        return self._buffer[self._at - 1]

    def _bytes(self, size: int) -> bytes:
        if size > READ_BYTES:
            raise RefusedError(f"a value of {size} bytes at byte {self._position}")
        self._more(size)
        self._at += size
        return self._buffer[self._at - size : self._at]

    def _instructions(self) -> dict[int, Callable[[], None]]:
        push = self._stack.append

        def number(form: str) -> Callable[[], None]:
            unpack, size = struct.Struct(form).unpack, struct.calcsize(form)
            return lambda: push(unpack(self._bytes(size))[0])

        def text(form: str) -> Callable[[], None]:
            unpack, size = struct.Struct(form).unpack, struct.calcsize(form)
            return lambda: push(self._text(unpack(self._bytes(size))[0]))

        def memo(form: str, act: Callable[[int], None]) -> Callable[[], None]:
            unpack, size = struct.Struct(form).unpack, struct.calcsize(form)
            return lambda: act(unpack(self._bytes(size))[0])

        named: dict[bytes, Callable[[], None]] = {
            b"K": number("<B"), b"M": number("<H"), b"J": number("<i"), b"G": number(">d"),
            b"\x8a": lambda: push(int.from_bytes(self._bytes(self._byte()), "little", signed=True)),
            b"X": text("<I"), b"\x8c": text("<B"),
            b"q": memo("<B", self._remember), b"r": memo("<I", self._remember),
            b"\x94": lambda: self._remember(self._remembered),
            b"h": memo("<B", self._recall), b"j": memo("<I", self._recall),
            b"\x95": self._frame, b"}": self._dict, b"(": self._mark,
            b"u": self._set_items, b"s": self._set_item,
        }  # fmt: skip
        return {code[0]: act for code, act in named.items()}

    def _text(self, size: int) -> str:
        try:
            return self._bytes(size).decode()
        except UnicodeDecodeError:
            raise RefusedError(f"a string that is no UTF-8 at byte {self._position}") from None

    def _frame(self) -> None:
        self._bytes(8)

    def _remember(self, place: int) -> None:
        # Dicts are counted only: one that is named again would be shared.
        self._remembered += 1
        if self._stack and isinstance(self._stack[-1], str):
            self._memo[place] = self._stack[-1]

    def _recall(self, place: int) -> None:
        if place not in self._memo:
            raise RefusedError(f"a dict used twice at byte {self._position}")
        self._stack.append(self._memo[place])

    def _dict(self) -> None:
        if self._outer is None:
            self._outer = object()
            self._stack.append(self._outer)
        else:
            self._stack.append(_Inner())

    def _mark(self) -> None:
        self._marks.append(len(self._stack))
        self._stack.append(_MARK)
        owner = self._stack[-2] if len(self._stack) > 1 else None
        if isinstance(owner, _Inner):
            self._take_entries(owner)
        elif owner is not None and owner is self._outer:
            self._take_queries()

    def _take_queries(self) -> None:
        """Take the queries right ahead that look as most do, their dicts filled."""
        while True:
            if len(self._buffer) - self._at < _LONGEST_QUERY:
                self._fill()
            found = _QUERY.match(self._buffer, self._at)
            if found is None:
                return
            long, short, byte, memo, run = found.groups()
            inner = _Inner()
            inner.run += run
            self._stack += (int.from_bytes(long or short or byte, "little", signed=long is not None), inner)
            self._remembered += memo is not None
            self._at = found.end()

    def _take_entries(self, inner: _Inner) -> None:
        """Take the entries right ahead that look as most do; what comes then goes through the stack."""
        while True:
            if len(self._buffer) - self._at < _LONGEST_ENTRY:
                self._fill()
            if found := _RUN.match(self._buffer, self._at):
                inner.run += found.group()
            elif found := _SHORT.match(self._buffer, self._at):
                byte, word, value = found.groups()
                key = int.from_bytes(byte or word, "little")
                inner.run += _ENTRY_HEAD.pack(ord("J"), key, ord("G")) + value
            else:
                return
            self._at = found.end()

    def _set_items(self) -> None:
        if not self._marks:
            raise RefusedError(f"entries outside a dict at byte {self._position}")
        place = self._marks.pop()
        self._put(place - 1, self._stack[place + 1 :], place)

    def _set_item(self) -> None:
        self._put(len(self._stack) - 3, self._stack[-2:], len(self._stack) - 2)

    def _put(self, owner: int, items: list[Any], end: int) -> None:
        if owner < 0 or len(items) % 2:
            raise RefusedError(f"a dict that is not filled properly at byte {self._position}")
        target = self._stack[owner]
        del self._stack[end:]
        if isinstance(target, _Inner):
            target.put(items)
            if len(self._marks) == 1:
                self._take_queries()
        elif target is self._outer:
            self._done += [self._entries(*pair) for pair in zip(items[::2], items[1::2], strict=True)]
        else:
            raise RefusedError(f"entries outside a dict at byte {self._position}")

    def _entries(self, query: Any, inner: Any) -> Entries:
        if type(query) not in (int, str) or not isinstance(inner, _Inner):
            raise RefusedError(f"an entry {query!r:.40}: {type(inner).__name__}")
        return Entries(query, bytes(inner.run), inner.others)
