"""Encoded texts without padding: in memory, and on disk as flat files that are mapped into memory.

On disk a directory of `values` (total vectors, D) in float32 or float16, `offsets` (N + 1,) int64 and `encoded.json`.
Sparse texts keep only values that are not zero, (total values, 1); `entries` (total values,) int32 are their positions
in the vector. The directory is written under a temporary name and renamed.

Shapes: N texts, B chosen ones, T vectors of a text, D width.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from pipeline.errors import ModelError, WorkspaceError
from pipeline.storage.published_sets import staged_directory
from students.architectures.separate import States
from students.settings import ENCODED_FILE, Storage

TakeEncoded = Callable[[NDArray[np.integer]], "Encoded"]
"""Reads the stored states of passages, given their ids in ascending order."""


@dataclass(frozen=True)
class Encoded:
    """States of N texts, concatenated."""

    values: Tensor
    """(total vectors, D); (total values, 1) of sparse texts."""
    offsets: Tensor
    """(N + 1,) int64"""
    width: int
    """D, also of sparse texts."""
    entries: Tensor | None = None
    """(total values,) int32 from 0 to D - 1; None if texts are not sparse."""

    @property
    def count(self) -> int:
        """Number of texts, N."""
        return len(self.offsets) - 1

    @property
    def lengths(self) -> Tensor:
        """Number of vectors of each text, or of values of each sparse text, (N,)."""
        return self.offsets[1:] - self.offsets[:-1]

    def padded(self, rows: Tensor, device: torch.device) -> States:
        """The states of the chosen texts (B,), padded to the longest, in float32."""
        lengths = self.lengths[rows]
        position = torch.arange(max(1, int(lengths.max())))
        mask = position < lengths.unsqueeze(1)  # (B, T)
        source = (self.offsets[rows].unsqueeze(1) + position)[mask]
        values = torch.zeros(*mask.shape, self.values.shape[1])
        values[mask] = self.values[source].float()
        if self.entries is not None:
            entries = torch.zeros(mask.shape, dtype=torch.int64)
            entries[mask] = self.entries[source].long()
            values = torch.zeros(len(rows), self.width).scatter_add_(1, entries, values[..., 0]).unsqueeze(1)
            mask = torch.ones(len(rows), 1, dtype=torch.bool)
        return States(values.to(device), mask.to(device))

    def states(self, device: torch.device) -> States:
        """The states of all texts; copies nothing if each is one float32 vector and the device is the CPU."""
        if self.entries is None and len(self.values) == self.count and bool((self.lengths == 1).all()):
            mask = torch.ones(self.count, 1, dtype=torch.bool)
            return States(self.values.float().unsqueeze(1).to(device), mask.to(device))
        return self.padded(torch.arange(self.count), device)

    def between(self, start: int, stop: int) -> Encoded:
        """Texts `start` to `stop` - 1, without a copy."""
        stop = min(stop, self.count)
        first, last = int(self.offsets[start]), int(self.offsets[stop])
        entries = None if self.entries is None else self.entries[first:last]
        return Encoded(self.values[first:last], self.offsets[start : stop + 1] - first, self.width, entries)

    def take(self, rows: Tensor) -> Encoded:
        """The chosen texts (B,), copied."""
        lengths = self.lengths[rows]
        offsets = _offsets(lengths)
        source = (self.offsets[rows] - offsets[:-1]).repeat_interleave(lengths) + torch.arange(int(offsets[-1]))
        return Encoded(self.values[source], offsets, self.width, None if self.entries is None else self.entries[source])

    @classmethod
    def joined(cls, pieces: Sequence[Encoded]) -> Encoded:
        """All pieces (one or more) in order."""
        values = torch.cat([piece.values for piece in pieces])
        offsets = _offsets(torch.cat([piece.lengths for piece in pieces]))
        entries = [piece.entries for piece in pieces if piece.entries is not None]
        return cls(values, offsets, pieces[0].width, torch.cat(entries) if entries else None)

    @classmethod
    def of(cls, pieces: Iterable[tuple[np.ndarray, States]], count: int, *, sparse: bool = False) -> Encoded:
        """Assemble texts that were encoded in batches of rows (B,), which cover 0 to `count` - 1 once.

        Args:
            pieces: rows and their states.
            count: N.
            sparse: each text is one vector, of which only values that are not zero are kept.
        """
        held: list[tuple[np.ndarray, Tensor, Tensor, Tensor | None]] = []
        lengths, width = torch.zeros(count, dtype=torch.int64), 0
        for rows, states in pieces:
            width, entries = states.values.shape[2], None
            if sparse:
                row, entry = states.values[:, 0].nonzero(as_tuple=True)
                counts, entries = torch.bincount(row, minlength=len(rows)).cpu(), entry.int().cpu()
                flat = states.values[row, 0, entry].unsqueeze(1)
            else:
                counts, flat = states.mask.sum(1).cpu(), states.values[states.mask]
            lengths[rows] = counts
            held.append((rows, counts, flat.float().cpu(), entries))
        offsets = _offsets(lengths)
        values = torch.empty(int(offsets[-1]), 1 if sparse else width)
        kept = torch.empty(int(offsets[-1]), dtype=torch.int32) if sparse else None
        while held:
            rows, counts, flat, entries = held.pop()
            inside = torch.arange(len(flat)) - (counts.cumsum(0) - counts).repeat_interleave(counts)
            positions = offsets[rows].repeat_interleave(counts) + inside
            values[positions] = flat
            if kept is not None and entries is not None:
                kept[positions] = entries
        return cls(values, offsets, width, kept)


def _offsets(lengths: Tensor) -> Tensor:
    return torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])


def write_encoded(
    directory: Path, chunks: Iterable[Encoded], facts: Mapping[str, Any], dtype: Storage = "float16"
) -> None:
    """Write chunks in order, and replace the directory if it exists; memory is bounded by a chunk.

    Args:
        directory: the directory to write.
        chunks: all texts.
        facts: JSON values that say which model encoded which texts.
        dtype: float32, or float16, which takes half the room and changes scores in the fourth digit.

    Raises:
        ModelError: a value exceeds the range of float16.
    """
    with staged_directory(directory, replace=True) as staged, ExitStack() as opened:
        streams: dict[str, BinaryIO] = {
            name: opened.enter_context((staged / name).open("wb")) for name in ("values", "offsets", "entries")
        }
        vectors, texts, width, sparse = 0, 0, 0, False
        streams["offsets"].write(np.zeros(1, np.int64).tobytes())
        for chunk in chunks:
            streams["values"].write(_stored(chunk.values, dtype, directory).tobytes())
            streams["offsets"].write((chunk.offsets[1:] + vectors).numpy().tobytes())
            if chunk.entries is not None:
                streams["entries"].write(chunk.entries.numpy().tobytes())
                sparse = True
            vectors, texts, width = vectors + len(chunk.values), texts + chunk.count, chunk.width
        if not sparse:
            (staged / "entries").unlink()
        sizes = {"vectors": vectors, "texts": texts, "width": width, "dtype": dtype, "sparse": sparse}
        (staged / ENCODED_FILE).write_text(json.dumps({**facts, **sizes}, indent=2), encoding="utf-8")


def _stored(values: Tensor, dtype: Storage, where: Path) -> np.ndarray:
    with np.errstate(over="ignore"):
        stored = values.numpy().astype(dtype)
    if not np.isfinite(stored).all():
        raise ModelError("vectors exceed float16's range", where=where, todo="keep them in float32: --storage float32")
    return stored


def open_encoded(directory: Path) -> tuple[Encoded, dict[str, Any]]:
    """Map encoded texts into memory; returns them and the facts of `encoded.json`.

    Raises:
        WorkspaceError: the directory is missing or damaged.
    """
    try:
        facts: dict[str, Any] = json.loads((directory / ENCODED_FILE).read_text(encoding="utf-8"))
        if facts["dtype"] not in get_args(Storage):
            raise ValueError(facts["dtype"])
        columns = 1 if facts["sparse"] else facts["width"]
        values = _map(directory / "values", facts["dtype"], (facts["vectors"], columns))
        offsets = _map(directory / "offsets", "int64", (facts["texts"] + 1,))
        entries = _map(directory / "entries", "int32", (facts["vectors"],)) if facts["sparse"] else None
        if offsets[-1] != facts["vectors"]:
            raise ValueError("sizes do not fit")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkspaceError("not encoded texts", where=directory, found=error, todo="encode them again") from error
    return Encoded(values, offsets, facts["width"], entries), facts


def _map(path: Path, dtype: str, shape: tuple[int, ...]) -> Tensor:
    if path.stat().st_size != np.dtype(dtype).itemsize * int(np.prod(shape)):
        raise ValueError(f"{path.name}: sizes do not fit")
    if not all(shape):
        return torch.from_numpy(np.empty(shape, dtype))
    # Copy on write, because torch warns about read-only memory.
    return torch.from_numpy(np.memmap(path, dtype, "c", shape=shape))
