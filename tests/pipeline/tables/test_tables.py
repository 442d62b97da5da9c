import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline import schemas
from pipeline.errors import WorkspaceError
from pipeline.tables.content import ContentHash
from pipeline.tables.parts import read_part, require_complete, write_part
from pipeline.tables.provenance import FOOTER_KEY, Recipe

RECIPE = Recipe("test", {"a": 1}, {"b": "c"})
TEXT = st.text(max_size=5)
ROWS = st.lists(
    st.tuples(st.integers(0, 9), TEXT, st.none() | st.integers(0, 3), st.lists(TEXT, max_size=3)), max_size=12
)
SCHEMA = pa.schema([("i", pa.int32()), ("s", pa.string()), ("n", pa.int8()), ("l", pa.list_(pa.string()))])


def digest(batches):
    content = ContentHash(SCHEMA)
    for batch in batches:
        content.update(batch)
    return content.hexdigest()


@given(ROWS, ROWS, st.integers(0, 12))
def test_content_is_rows_and_nothing_else(rows, others, cut):
    table, other = (
        pa.Table.from_pylist([dict(zip(SCHEMA.names, row, strict=True)) for row in some], SCHEMA)
        for some in (rows, others)
    )
    whole = digest(table.combine_chunks().to_batches())
    assert digest([*table.slice(0, cut).to_batches(), *table.slice(cut).to_batches()]) == whole
    assert (digest(other.to_batches()) == whole) == (rows == others)


def test_bytes_depend_on_rows_alone(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.tables.parts.ROW_GROUP_ROWS", 7)
    table = pa.table({"query_id": range(40), "passage_id": range(40), "grade": [1] * 40}).cast(schemas.QRELS)
    for name, size in (("a", 40), ("b", 3)):
        write_part(tmp_path / name, table.to_batches(size), schemas.QRELS, RECIPE)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    read, footer = read_part(tmp_path / "a", schemas.QRELS)
    assert read.equals(table) and footer.rows == 40 and footer.recipe == RECIPE


def test_foreign_files_are_refused(tmp_path):
    path = tmp_path / "part-00000.parquet"
    table = pa.table({"query_id": [1]})
    pq.write_table(table, path)
    with pytest.raises(WorkspaceError, match="no provenance"):
        read_part(path, schemas.QRELS)
    write_part(path, table.to_batches(), table.schema, RECIPE)
    with pytest.raises(WorkspaceError, match="wrong schema") as error:
        read_part(path, schemas.QRELS)
    assert "passage_id int32" in str(error.value)
    raw = path.read_bytes()
    path.write_bytes(raw[: len(raw) // 2])
    with pytest.raises(WorkspaceError, match="unreadable"):
        read_part(path, schemas.QRELS)
    newer = table.replace_schema_metadata({FOOTER_KEY: b'{"schema_version": 99}'})
    pq.write_table(newer, path)
    with pytest.raises(WorkspaceError, match="newer version"):
        read_part(path, schemas.QRELS)


def test_a_set_with_a_gap_is_not_complete(tmp_path):
    table = pa.table({"i": [1]})
    footers = [write_part(tmp_path / str(i), table.to_batches(), table.schema, RECIPE, part=i, parts=3) for i in (0, 2)]
    with pytest.raises(WorkspaceError, match="incomplete"):
        require_complete("things", [tmp_path / "0", tmp_path / "2"], footers, "")
