"""Provenance of a file, stored in its Parquet footer.

A `Recipe` describes what a file is made from: the dataset, the settings that shape its rows, and the fingerprints of
its inputs. Resuming compares the recipe's `fingerprint`, never names or numbers of files. A `Footer` adds the result:
the number of rows, their content fingerprint, and the file's number in its set.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import pyarrow.parquet as pq

from pipeline.errors import WorkspaceError
from pipeline.fingerprint import digest_json
from pipeline.schemas import SCHEMA_VERSION

FOOTER_KEY = b"prep"


@dataclass(frozen=True)
class Recipe:
    """What a file is made from."""

    kind: str
    """The dataset: "passages", "pairs", "scores", …"""
    settings: Mapping[str, Any]
    """Everything that shapes the rows besides the inputs, as JSON values."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Name of each input → its content fingerprint."""

    @cached_property
    def fingerprint(self) -> str:
        """Digest of kind, settings, inputs and schema version."""
        return digest_json([SCHEMA_VERSION, self.kind, dict(self.settings), dict(self.inputs)])


@dataclass(frozen=True)
class Footer:
    """Provenance and content of a finished file."""

    recipe: Recipe
    content: str
    """Content fingerprint of the rows (see pipeline.tables.content)."""
    rows: int
    part: int
    parts: int
    """Number of files in the set, or 0 if the set only grows."""
    extra: Mapping[str, Any] = field(default_factory=dict)
    """Facts that are no part of the identity: counts, library versions, statistics."""

    @property
    def fingerprint(self) -> str:
        """The recipe's fingerprint."""
        return self.recipe.fingerprint

    def encode(self) -> bytes:
        """The footer as deterministic JSON."""
        return json.dumps(
            {
                "schema_version": SCHEMA_VERSION,
                "fingerprint": self.fingerprint,
                "kind": self.recipe.kind,
                "settings": dict(self.recipe.settings),
                "inputs": dict(self.recipe.inputs),
                "content": self.content,
                "rows": self.rows,
                "part": self.part,
                "parts": self.parts,
                "extra": dict(self.extra),
            },
            sort_keys=True,
            ensure_ascii=False,
        ).encode()


def read_footer(path: str, metadata: pq.FileMetaData) -> Footer:
    """Decode the footer of a file.

    Raises:
        WorkspaceError: there is no footer, a newer version wrote it, or its row count is not that of the file.
    """
    raw = (metadata.metadata or {}).get(FOOTER_KEY)
    if raw is None:
        raise WorkspaceError("not written by prep: no provenance in its footer", where=path, todo="remove the file")
    facts = json.loads(raw)
    if facts["schema_version"] > SCHEMA_VERSION:
        raise WorkspaceError(
            "written by a newer version",
            where=path,
            expected=f"schema version {SCHEMA_VERSION} or lower",
            found=facts["schema_version"],
            todo="upgrade prep, or use another workspace",
        )
    if metadata.num_rows != facts["rows"]:
        raise WorkspaceError(
            "row count differs from its footer", where=path, expected=facts["rows"], found=metadata.num_rows
        )
    recipe = Recipe(facts["kind"], facts["settings"], facts["inputs"])
    return Footer(recipe, facts["content"], facts["rows"], facts["part"], facts["parts"], facts["extra"])
