"""Passages of one normalised text: which passages say the same but for case and white space.

The answer is a cache file beside the tables, made once for each state of the collection and safe to remove.
"""

from __future__ import annotations

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.collection.selection import view_tables
from pipeline.collection.texts import CACHE
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace, atomic_write
from pipeline.tables.database import sql
from pipeline.tables.parts import set_content, set_footers

SCHEMA = pa.schema([pa.field("passage_id", pa.int32()), pa.field("text_id", pa.int32())])


def same_texts(connection: duckdb.DuckDBPyConnection, workspace: Workspace) -> AnyPath:
    """File of the passages that share their text, each with the lowest id of its group as `text_id`."""
    content = set_content(set_footers(workspace.parts("passages")))
    path = workspace.path(CACHE, f"same-texts-{content}.parquet")
    if not path.exists():
        view_tables(connection, workspace, "passages")
        found = connection.sql(sql("collection/same_texts")).to_arrow_table().cast(SCHEMA)
        with atomic_write(path) as stream:
            pq.write_table(found, stream)
    return path
