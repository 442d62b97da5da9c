"""Streams the scores out of a pickled dict of dicts, `query -> {passage -> score}`, without unpickling it.

`pickletools.genops` reads the file as opcodes with their arguments and acts on none of them. `read_pickle` follows the
few opcodes that build dicts, integers, floats and strings, and refuses every other, so that nothing in the file can
import a class or call a function. It holds one query's entries at a time: a pickle that takes 17 GB as dicts is read
in a few dozen MB. Strings are kept for as long as the pickle may refer back to them.

Imports NumPy and the standard library alone, because `score_worker` runs it in a process with a memory limit.
"""

from __future__ import annotations

import pickletools
import re
import struct
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, Protocol

import numpy as np

READ_BYTES = 1 << 20
"""Bytes in a read, and the longest string or integer that is accepted."""
ENTRY = np.dtype([("J", "u1"), ("passage", "<i4"), ("G", "u1"), ("score", ">f8")])
"""An entry as pickle writes most of them: the opcodes BININT (J) and BINFLOAT (G) with their arguments."""
_ENTRY_HEAD, _FLOAT = struct.Struct("<BiB"), struct.Struct(">d")
_INT32 = range(-(1 << 31), 1 << 31)
_LONGEST_INTEGER_BITS = 1000  # float() overflows at 1024
_LONGEST_LINE_BYTES = 1000
_MARK = object()
# Entries whose integer has four bytes, then entries of any width. The quantifiers are possessive (*+): opcodes differ
# in their first byte, so backtracking could not help, and would need memory for every entry.
_LONG = rb"J.{4}G.{8}"
_ENTRIES = re.compile(rb"((?:" + _LONG + rb")*+)((?:(?:J.{4}|M..|K.)G.{8})*+)", re.DOTALL)
# Matches at every entry boundary, so that it never looks for an entry inside another.
_SHORT = re.compile(rb"((?:" + _LONG + rb")*+)(?:(?:M(..)|K(.))(G.{8})|\Z)", re.DOTALL)
_NUMBERS = frozenset({"BININT", "BININT1", "BININT2", "LONG1"})
_STRINGS = frozenset({"BINUNICODE", "SHORT_BINUNICODE"})
# Opcodes that import, build or call.
_CALLS = frozenset(
    {"GLOBAL", "INST", "STACK_GLOBAL", "REDUCE", "BUILD", "OBJ", "NEWOBJ", "NEWOBJ_EX", "EXT1", "EXT2", "EXT4"}
    | {"PERSID", "BINPERSID"}
)


Opcode = tuple[pickletools.OpcodeInfo, Any | None, int | None]
"""What `genops` yields: the opcode, its argument and its byte in the file."""


class RefusedError(Exception):
    """The pickle holds something other than scores; the message says what, and at which byte."""


class Readable(Protocol):
    """A stream of bytes."""

    def read(self, size: int, /) -> bytes:
        """Up to `size` bytes; none at the end."""


class Entries(NamedTuple):
    """Scores of one query."""

    query: int | str
    run: bytes
    """Passages that are 32-bit integers, with their scores, as ENTRY."""
    others: list[tuple[int | str, float]]
    """All other passages, with their scores."""


def read_pickle(stream: Readable) -> Iterator[Entries]:
    """Yields the scores query by query, in the order of the file.

    Raises:
        RefusedError: not a pickled dict of dicts of numbers, or the file ends too early.
    """
    window = _Window(stream)
    return _Machine(window).run(_opcodes(window))


def _opcodes(window: _Window) -> Iterator[Opcode]:
    """The opcodes after the first, which must name a protocol from 2 on: older ones write numbers as lines of text."""
    opcodes = pickletools.genops(window)  # type: ignore[arg-type]
    try:
        opcode, argument, _ = next(opcodes)
        if opcode.name != "PROTO" or argument not in range(2, 6):
            raise RefusedError("no pickle of protocol 2 to 5")
        yield from opcodes
    except ValueError as error:
        if window.position <= 1:
            raise RefusedError("no pickle of protocol 2 to 5") from None
        raise RefusedError(f"a malformed opcode, before byte {window.position}: {error}") from None


class _Window:
    """The stream as `genops` reads it, with bounded reads, and a look at the entries ahead."""

    def __init__(self, stream: Readable) -> None:
        self._stream, self._buffer, self._at, self._bytes_read = stream, b"", 0, 0

    @property
    def position(self) -> int:
        # Not `tell`, which `genops` would call at every opcode.
        return self._bytes_read - len(self._buffer) + self._at

    def read(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._buffer):
            self._have(size)
            end = self._at + size
        value = self._buffer[self._at : end]
        self._at = end
        return value

    def _have(self, size: int) -> None:
        """Reads on until `size` bytes are ahead."""
        if size > READ_BYTES:
            raise RefusedError(f"a value of {size} bytes, at byte {self.position}")
        while len(self._buffer) - self._at < size:
            if not self._fill():
                raise RefusedError(f"the end of the file after {self._bytes_read} bytes")

    def readline(self) -> bytes:
        """For opcodes of protocols 0 and 1 and those that name classes: none is accepted, so speed does not matter."""
        line = b""
        while not line.endswith(b"\n"):
            line += self.read(1)
            if len(line) > _LONGEST_LINE_BYTES:
                raise RefusedError(f"a line of more than {_LONGEST_LINE_BYTES} bytes, before byte {self.position}")
        return line

    def _fill(self) -> bool:
        """Reads a block. Returns whether there was one."""
        block = self._stream.read(READ_BYTES)
        self._buffer = self._buffer[self._at :] + block
        self._at = 0
        self._bytes_read += len(block)
        return bool(block)

    def take_entries(self) -> Iterator[bytes]:
        """Takes the entries of integers and floats right ahead; yields them as ENTRY, in pieces."""
        while True:
            if len(self._buffer) - self._at < ENTRY.itemsize:
                self._fill()
            match = _ENTRIES.match(self._buffer, self._at)
            assert match is not None
            long, mixed = match.groups()
            self._at = match.end()
            yield long + _widened(mixed) if mixed else long
            if match.end() == match.start() or len(self._buffer) - self._at >= ENTRY.itemsize:
                return


def _widened(mixed: bytes) -> bytes:
    """Entries whose integers have one, two or four bytes, all with four."""
    parts: list[bytes] = []
    for run, word, byte, score in _SHORT.findall(mixed):
        parts += (run, b"J", word + b"\0\0" if word else byte + b"\0\0\0", score) if score else (run,)
    return b"".join(parts)


class _Scores:
    """A query's dict while the pickle fills it."""

    def __init__(self) -> None:
        self.runs: list[bytes] = []
        self.others: list[tuple[int | str, float]] = []

    def put(self, items: list[tuple[Any, Any]]) -> None:
        for key, value in items:
            if type(value) not in (int, float) or type(key) not in (int, str):
                raise RefusedError(f"an entry {key!r:.40}: {type(value).__name__}")
            if type(value) is int and value.bit_length() > _LONGEST_INTEGER_BITS:
                raise RefusedError(f"an entry {key!r:.40} of {value.bit_length()} bits")
            if type(key) is int and key in _INT32:
                self.runs.append(_ENTRY_HEAD.pack(ord("J"), key, ord("G")) + _FLOAT.pack(value))
            else:
                self.others.append((key, float(value)))


class _Machine:
    """Follows the opcodes on a stack. The outermost dict is never filled: its items are handed out.

    `genops` reads nothing ahead of the opcode that it yields. So wherever an entry may begin, the machine takes from
    the window all entries of integers and floats at once, and `genops` goes on behind them.
    """

    def __init__(self, window: _Window) -> None:
        self._window = window
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, str] = {}
        self._memo_size = 0
        self._outer: object | None = None
        self._actions: dict[str, Callable[[Any], list[Entries] | None]] = {
            **dict.fromkeys(_NUMBERS, self._stack.append), **dict.fromkeys(_STRINGS, self._string),
            "BINFLOAT": self._float, "EMPTY_DICT": self._dict, "MARK": self._mark,
            "SETITEM": lambda _: self._set(self._pop_items(len(self._stack) - 2)), "SETITEMS": self._set_items,
            "BINPUT": self._put, "LONG_BINPUT": self._put, "MEMOIZE": lambda _: self._put(self._memo_size),
            "BINGET": self._get, "LONG_BINGET": self._get, "FRAME": lambda _: None,
        }  # fmt: skip

    def run(self, opcodes: Iterator[Opcode]) -> Iterator[Entries]:
        for opcode, argument, _ in opcodes:
            name = opcode.name
            if name == "STOP":
                break
            action = self._actions.get(name)
            if action is None:
                what = "a class or function that is named or called" if name in _CALLS else f"the opcode {name}"
                raise RefusedError(f"{what}, before byte {self._window.position}")
            if complete := action(argument):
                yield from complete
        if len(self._stack) != 1 or self._stack[0] is not self._outer:
            raise RefusedError("something else than one dict")

    def _string(self, text: str) -> None:
        if not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text):
            raise RefusedError(f"a string that is no UTF-8, before byte {self._window.position}")
        self._stack.append(text)

    def _float(self, value: float) -> None:
        self._stack.append(value)
        self._take_entries()

    def _mark(self, _: None) -> None:
        self._marks.append(len(self._stack))
        self._stack.append(_MARK)
        self._take_entries()

    def _take_entries(self) -> None:
        """Takes the entries right ahead, if they belong to a query's dict."""
        owner = self._stack[self._marks[-1] - 1] if self._marks and self._marks[-1] else None
        if isinstance(owner, _Scores):
            owner.runs += self._window.take_entries()

    def _dict(self, _: None) -> list[Entries]:
        """Begins a dict. Where it is a query's, those before it are complete, and handed out."""
        complete: list[Entries] = []
        if self._outer is None:
            self._outer = object()
            self._stack.append(self._outer)
            return complete
        if len(self._marks) == 1 and self._marks[0] and self._stack[self._marks[0] - 1] is self._outer:
            query = self._stack.pop()
            if query is not _MARK:
                complete = self._entries(self._pop_items(self._marks[0] + 1))
            self._stack.append(query)
        self._stack.append(_Scores())
        return complete

    def _put(self, place: int) -> None:
        # Dicts are counted only: one that is referred to again would be shared by two queries.
        self._memo_size += 1
        if self._stack and isinstance(self._stack[-1], str):
            self._memo[place] = self._stack[-1]

    def _get(self, place: int) -> None:
        if place not in self._memo:
            raise RefusedError(f"a dict used twice, before byte {self._window.position}")
        self._stack.append(self._memo[place])

    def _set_items(self, _: None) -> list[Entries]:
        if not self._marks:
            raise RefusedError(f"entries outside a dict, before byte {self._window.position}")
        mark = self._marks.pop()
        items = self._pop_items(mark + 1)
        del self._stack[mark:]
        return self._set(items)

    def _pop_items(self, first: int) -> list[tuple[Any, Any]]:
        """Takes keys and values off the stack, from an index on."""
        items = self._stack[max(first, 0) :]
        if len(items) % 2:
            raise RefusedError(f"a key without a value, before byte {self._window.position}")
        del self._stack[max(first, 0) :]
        return list(zip(items[::2], items[1::2], strict=True))

    def _set(self, items: list[tuple[Any, Any]]) -> list[Entries]:
        """Puts keys and values into the dict on top of the stack. Returns the queries that are complete by it."""
        target = self._stack[-1] if self._stack else None
        if isinstance(target, _Scores):
            target.put(items)
            return []
        if target is None or target is not self._outer:
            raise RefusedError(f"entries outside a dict, before byte {self._window.position}")
        return self._entries(items)

    def _entries(self, items: list[tuple[Any, Any]]) -> list[Entries]:
        for query, scores in items:
            if type(query) not in (int, str) or not isinstance(scores, _Scores):
                raise RefusedError(f"an entry {query!r:.40}: {type(scores).__name__}")
        return [Entries(query, b"".join(scores.runs), scores.others) for query, scores in items]
