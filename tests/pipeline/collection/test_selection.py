"""The queries that a stage works on."""

import numpy as np
import pyarrow as pa

from pipeline import schemas
from pipeline.collection.selection import select_queries, view_tables
from pipeline.tables.database import connect
from pipeline.tables.parts import read_part, write_part
from tests import worlds


def test_a_sample_is_of_queries_with_a_relevant_passage_and_grows(workspace):
    (path,) = workspace.parts("qrels")
    table, footer = read_part(path, schemas.QRELS)
    query = table["query_id"].to_numpy()
    dev = np.unique(query)[-worlds.DEV :]
    grades = np.where(np.isin(query, dev[:3]), 0, table["grade"].to_numpy()).astype(np.int8)
    changed = table.set_column(table.schema.get_field_index("grade"), schemas.QRELS.field("grade"), pa.array(grades))
    write_part(path, changed.to_batches(), schemas.QRELS, footer.recipe)
    with connect(workspace.local) as connection:
        view_tables(connection, workspace, "queries")
        every, *samples = (select_queries(connection, workspace, "dev", most).ids.tolist() for most in (None, 99, 4, 2))
    assert every == dev.tolist() and samples[0] == dev[3:].tolist()
    assert [len(sample) for sample in samples[1:]] == [4, 2] and set(samples[2]) < set(samples[1]) < set(samples[0])
