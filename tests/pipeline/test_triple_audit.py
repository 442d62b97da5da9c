import pyarrow as pa
import pytest

from pipeline import schemas
from pipeline.errors import WorkspaceError
from pipeline.tables import read_part, write_part
from pipeline.triple_audit import audit_triples
from pipeline.triples import TripleSettings, build_triples, load_triples
from tests import worlds


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    return worlds.graded(tmp_path_factory.mktemp("audited"))


@pytest.mark.parametrize(
    "options",
    [{}, {"threshold": None, "pairs": "scored"}, {"anchor": "min"}, {"threshold": 1.0, "threshold_on": "any"}],
)
def test_what_was_built_passes(graded, options):
    built = build_triples(graded, TripleSettings(**options), name="fine")
    assert audit_triples(graded, "fine") == built.rows


def _change(table, column, row, value):
    values = table.column(column).to_pylist()
    values[row] = value
    place = table.schema.get_field_index(column)
    return table.set_column(place, table.schema.field(column), pa.array(values, table.schema.field(column).type))


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (lambda t: _change(t, "margin", 0, 1.0), "below the threshold"),
        (lambda t: _change(t, "positive_score", 0, 50.0), "not the difference"),
        (lambda t: _change(t, "margin_std", 0, float("nan")), "bad numbers"),
        (lambda t: _change(t, "negative_id", 0, t.column("positive_id")[0].as_py()), "same text"),
        (lambda t: _change(t, "negative_id", 0, t.column("positive_id")[0].as_py()), "relevant negative"),
        (lambda t: _change(t, "positive_id", 0, t.column("negative_id")[0].as_py()), "without a judged positive"),
        (lambda t: _change(t, "query_id", 0, worlds.TRAIN), "another split"),
        (lambda t: pa.concat_tables([t.slice(0, 1), t]), "twice"),
        (lambda t: t.take([1, 0, *range(2, len(t))]), "out of their place"),
    ],
)
def test_each_fault_is_found_and_named(graded, change, fault):
    build_triples(graded, TripleSettings(3.0), name="bad")
    (path,), (footer,) = load_triples(graded, "bad")
    table, _ = read_part(path, schemas.TRIPLES)
    write_part(path, change(table).to_batches(), schemas.TRIPLES, footer.recipe, extra=footer.extra)
    with pytest.raises(WorkspaceError, match=fault):
        audit_triples(graded, "bad")
    path.unlink()


def test_a_file_that_was_changed_behind_its_footer(graded):
    build_triples(graded, TripleSettings(3.0), name="bad")
    (path,), (footer,) = load_triples(graded, "bad")
    table, _ = read_part(path, schemas.TRIPLES)
    changed = _change(table, "margin_std", 0, 0.125)
    pa.parquet.write_table(changed.replace_schema_metadata({b"prep": footer.encode()}), path)
    with pytest.raises(WorkspaceError, match="differs from its footer"):
        audit_triples(graded, "bad")
    path.unlink()
