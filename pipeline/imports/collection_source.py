"""What every reader of a collection format returns, and the one importer that takes it.

A reader only says where the tables are and how to read them as strings; `pipeline.collection.importing` numbers the
rows, checks them and publishes them, and knows no format.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.collection.importing import Imported, Rows, SplitRows, import_tables
from pipeline.storage.workspace import Workspace

TEXT_COLUMNS = ["external_id", "text"]
"""Columns of passages and queries."""
JUDGEMENT_COLUMNS = ["query", "passage", "grade"]
"""Columns of qrels, the first two external ids."""


@dataclass(frozen=True)
class CollectionSource:
    """A published collection: tables of strings with a fingerprint, each of which can be read more than once."""

    name: str
    """Recorded in the footers of the imported tables."""
    passages: Rows | None = None
    """Ids and texts; None adds queries and qrels to the passages that the workspace has."""
    queries: Sequence[SplitRows] = ()
    """(split, ids and texts); a query may be in several splits."""
    qrels: Sequence[SplitRows] = ()
    """(split, judgements); each query of the judgements must be in the split."""
    keep_unknown: bool = False
    """Whether judgements of passages that are not in the collection come in, to be counted as never found."""
    unused_columns: Mapping[str, None] = field(default_factory=dict)
    """Columns that the reader does not use, in their order; filled while the rows are read."""


def import_collection(workspace: Workspace, source: CollectionSource) -> Imported:
    """Import a collection. Rows that the workspace has already are not added again.

    Raises:
        InputError: a malformed line, an unknown id, an id with two texts, a pair with two grades.
        WorkspaceError: neither the source nor the workspace has passages; another import is running.
    """
    return import_tables(
        workspace, source.passages, source.queries, source.qrels, source.name, keep_unknown=source.keep_unknown
    )
