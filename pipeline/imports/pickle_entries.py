"""What most of a pickled dict of dicts of numbers looks like, taken in bulk, so that `score_pickle` need not walk it.

An entry is an integer of one, two or four bytes and a float. Patterns are possessive, since every instruction is known
by its first byte: a match costs each byte once, and bytes that look otherwise are left to the machine.
"""

from __future__ import annotations

import re

import numpy as np

ENTRY = np.dtype([("J", "u1"), ("passage", "<i4"), ("G", "u1"), ("score", ">f8")])
"""A four-byte integer and a float, as pickle has them."""
LONGEST_ENTRY = ENTRY.itemsize
LONGEST_QUERY = 16 << 10
"""Bytes of a query, its dict and the thousand entries that are set at once."""
_LONG = rb"J.{4}G.{8}"
_ENTRIES = rb"((?:" + _LONG + rb")*+)((?:(?:J.{4}|M..|K.)G.{8})*+)"
_RUN = re.compile(_ENTRIES, re.DOTALL)
# Key, dict, memo, mark, entries, set; then the next key and dict, or the end of a thousand queries.
_QUERY = re.compile(
    rb"(?:J(.{4})|M(..)|K(.))\}(\x94|q.|r.{4})?\(" + _ENTRIES + rb"u(?=u|(?:J.{4}|M..|K.)\})", re.DOTALL
)
# Matches wherever an entry begins, so that it never looks for one inside another.
_SHORT = re.compile(rb"((?:" + _LONG + rb")*+)(?:(?:M(..)|K(.))(G.{8})|\Z)", re.DOTALL)


def take_query(buffer: bytes, at: int) -> tuple[int, bool, bytes, int] | None:
    """The query right at a place, if it looks as most do and its dict is complete.

    Returns:
        The query, whether its dict has a number to be named by, its entries as ENTRY, and where they end.
    """
    found = _QUERY.match(buffer, at)
    if found is None:
        return None
    long, short, byte, memo, run, mixed = found.groups()
    query = int.from_bytes(long, "little", signed=True) if long else int.from_bytes(short or byte, "little")
    return query, memo is not None, run + _lengthened(mixed) if mixed else run, found.end()


def take_run(buffer: bytes, at: int) -> tuple[bytes, int]:
    """The entries right at a place, as ENTRY, and where they end."""
    found = _RUN.match(buffer, at)
    assert found is not None
    run, mixed = found.groups()
    return run + _lengthened(mixed) if mixed else run, found.end()


def _lengthened(mixed: bytes) -> bytes:
    """Entries whose integers have one, two or four bytes, all with four."""
    parts: list[bytes] = []
    for run, word, byte, score in _SHORT.findall(mixed):
        parts += (run, b"J", word + b"\0\0" if word else byte + b"\0\0\0", score) if score else (run,)
    return b"".join(parts)
