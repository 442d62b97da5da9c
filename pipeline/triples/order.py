"""Which triples stand in which order, whatever their scores: two sets with one fingerprint give the same training rows.

Students trained to different teachers are compared fairly only on identical triples in identical order; this proves it.
"""

from __future__ import annotations

import pyarrow as pa

from pipeline import schemas
from pipeline.storage.workspace import Workspace
from pipeline.tables.content import ContentHash
from pipeline.tables.parts import open_part
from pipeline.triples.sets import load_triples

_IDS = ("query_id", "positive_id", "negative_id")


def triple_order(workspace: Workspace, name: str) -> str:
    """Fingerprint of a set's ids, row by row.

    Raises:
        WorkspaceError: no such set, or it is not complete.
    """
    paths, _ = load_triples(workspace, name)
    content = ContentHash(pa.schema([schemas.TRIPLES.field(column) for column in _IDS]))
    for path in paths:
        file, _ = open_part(path, schemas.TRIPLES)
        with file:
            for batch in file.iter_batches(columns=list(_IDS)):
                content.update(batch)
    return content.hexdigest()
