"""A pickled dict of dicts, query -> {passage -> score}, read as a stream and without running anything.

Only the instructions that build dicts, integers, floats and strings are known; one that names a class, calls or
imports is refused before anything of it is looked at. Nothing but the current thousand queries is held, so a
pickle that needs 17 GB of dicts is read in a few dozen MB; strings are kept as pickle refers back to them.

Imports nothing but NumPy and the standard library: `pipeline.imports.score_process` runs it in a process with little
memory.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

from pipeline.imports.pickle_entries import LONGEST_ENTRY, LONGEST_QUERY, take_query, take_run

READ_BYTES = 1 << 20
_ENTRY_HEAD, _FLOAT = struct.Struct("<BiB"), struct.Struct(">d")
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
        self.runs: list[bytes] = []
        self.others: list[tuple[int | str, float]] = []

    def put(self, items: list[tuple[Any, Any]]) -> None:
        for key, value in items:
            if type(value) not in (int, float) or type(key) not in (int, str):
                raise RefusedError(f"an entry {key!r:.40}: {type(value).__name__}")
            if type(value) is int and value.bit_length() > 1000:
                raise RefusedError(f"an entry {key!r:.40} of {value.bit_length()} bits")
            if type(key) is int and key in _INT32:
                self.runs.append(_ENTRY_HEAD.pack(ord("J"), key, ord("G")) + _FLOAT.pack(value))
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
        """Hand out the queries right ahead that look as most do, and first those on the stack, which are complete."""
        first = self._marks[-1] + 1
        while True:
            if len(self._buffer) - self._at < LONGEST_QUERY:
                self._fill()
            found = take_query(self._buffer, self._at)
            if found is None:
                return
            query, is_remembered, run, self._at = found
            if len(self._stack) > first:
                self._hand_out(self._items(first))
            self._done.append(Entries(query, run, []))
            self._remembered += is_remembered

    def _take_entries(self, inner: _Inner) -> None:
        """Take the entries right ahead that look as most do; what comes then goes through the stack."""
        while True:
            if len(self._buffer) - self._at < LONGEST_ENTRY:
                self._fill()
            run, end = take_run(self._buffer, self._at)
            if end == self._at:
                return
            inner.runs.append(run)
            self._at = end

    def _set_items(self) -> None:
        if not self._marks:
            raise RefusedError(f"entries outside a dict at byte {self._position}")
        place = self._marks.pop()
        items = self._items(place + 1)
        del self._stack[place:]
        self._set(items)

    def _set_item(self) -> None:
        self._set(self._items(len(self._stack) - 2))

    def _items(self, first: int) -> list[tuple[Any, Any]]:
        """Take keys and values off the stack, from a place on."""
        items = self._stack[max(first, 0) :]
        if len(items) % 2:
            raise RefusedError(f"a dict that is not filled properly at byte {self._position}")
        del self._stack[max(first, 0) :]
        return list(zip(items[::2], items[1::2], strict=True))

    def _set(self, items: list[tuple[Any, Any]]) -> None:
        """Put keys and values into the dict on top of the stack."""
        target = self._stack[-1] if self._stack else None
        if isinstance(target, _Inner):
            target.put(items)
            if len(self._marks) == 1:
                self._take_queries()
        elif target is not None and target is self._outer:
            self._hand_out(items)
        else:
            raise RefusedError(f"entries outside a dict at byte {self._position}")

    def _hand_out(self, items: list[tuple[Any, Any]]) -> None:
        """Give queries away, with their dicts."""
        for query, inner in items:
            if type(query) not in (int, str) or not isinstance(inner, _Inner):
                raise RefusedError(f"an entry {query!r:.40}: {type(inner).__name__}")
            self._done.append(Entries(query, b"".join(inner.runs), inner.others))
