"""Encoded texts without padding: in memory, and on disk as flat files that are mapped.

On disk a directory of `values` (total vectors, D) in float32 or float16, `offsets` (N + 1,) int64 and `encoded.json`;
it is written beside its place and renamed.

Shapes: N texts, T vectors of a text, D width.
"""

from __future__ import annotations

import json
import shutil
import uuid
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from pipeline.errors import WorkspaceError
from students.architectures.separate import States

FACTS = "encoded.json"
_KINDS = ("float32", "float16")


class Encoded(NamedTuple):
    """States of N texts, end to end."""

    values: Tensor
    """(total vectors, D)"""
    offsets: Tensor
    """(N + 1,) int64"""

    @property
    def lengths(self) -> Tensor:
        """Vectors of each text, (N,)."""
        return self.offsets[1:] - self.offsets[:-1]

    def padded(self, rows: Tensor, device: torch.device) -> States:
        """The states of some texts (B,), padded to the longest, in float32."""
        lengths = self.lengths[rows]
        place = torch.arange(max(1, int(lengths.max())))
        mask = place < lengths.unsqueeze(1)  # (B, T)
        source = (self.offsets[rows].unsqueeze(1) + place)[mask]
        values = torch.zeros(*mask.shape, self.values.shape[1])
        values[mask] = self.values[source].float()
        return States(values.to(device), mask.to(device))

    @classmethod
    def of(cls, pieces: Iterable[tuple[np.ndarray, States]], count: int) -> Encoded:
        """Put together what was encoded in batches of rows (B,), which cover 0 to `count` - 1 once."""
        held: list[tuple[np.ndarray, Tensor, Tensor]] = []
        lengths = torch.zeros(count, dtype=torch.int64)
        for rows, states in pieces:
            own = states.mask.sum(1).cpu()
            lengths[rows] = own
            held.append((rows, own, states.values[states.mask].float().cpu()))
        offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
        width = held[0][2].shape[1] if held else 0
        values = torch.empty(int(offsets[-1]), width)
        while held:
            rows, own, flat = held.pop()
            inside = torch.arange(len(flat)) - (own.cumsum(0) - own).repeat_interleave(own)
            values[offsets[rows].repeat_interleave(own) + inside] = flat
        return cls(values, offsets)


def write_encoded(directory: Path, chunks: Iterable[Encoded], facts: Mapping[str, Any], kind: str = "float16") -> None:
    """Write chunks in order; memory depends on a chunk.

    Args:
        directory: where it goes; must not be there.
        chunks: all texts.
        facts: JSON values: what encoded which texts.
        kind: float32, or float16, which holds half as much and moves scores in the fourth digit.
    """
    staged = directory.with_name(f".tmp-{directory.name}-{uuid.uuid4().hex[:12]}")
    staged.mkdir(parents=True)
    try:
        vectors, texts, width = 0, 0, 0
        with (staged / "values").open("wb") as values, (staged / "offsets").open("wb") as offsets:
            offsets.write(np.zeros(1, np.int64).tobytes())
            for chunk in chunks:
                values.write(chunk.values.numpy().astype(kind).tobytes())
                offsets.write((chunk.offsets[1:] + vectors).numpy().tobytes())
                vectors, texts, width = vectors + len(chunk.values), texts + len(chunk.lengths), chunk.values.shape[1]
        sizes = {"vectors": vectors, "texts": texts, "width": width, "dtype": kind}
        (staged / FACTS).write_text(json.dumps({**facts, **sizes}, indent=2), encoding="utf-8")
        staged.rename(directory)
    finally:
        shutil.rmtree(staged, ignore_errors=True)


def open_encoded(directory: Path) -> tuple[Encoded, dict[str, Any]]:
    """Map encoded texts into memory; what they are is in the facts.

    Raises:
        WorkspaceError: damaged, or none.
    """
    try:
        facts = json.loads((directory / FACTS).read_text(encoding="utf-8"))
        shape = (facts["vectors"], facts["width"])
        if facts["dtype"] not in _KINDS:
            raise ValueError(facts["dtype"])
        # Copy on write: torch wants memory that it may write to.
        values = np.memmap(directory / "values", facts["dtype"], "c", shape=shape)
        offsets = np.memmap(directory / "offsets", np.int64, "c", shape=(facts["texts"] + 1,))
        if (directory / "values").stat().st_size != values.nbytes or offsets[-1] != shape[0]:
            raise ValueError("sizes do not fit")
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise WorkspaceError("not encoded texts", where=directory, found=error, todo="encode them again") from error
    return Encoded(torch.from_numpy(values), torch.from_numpy(offsets)), facts
