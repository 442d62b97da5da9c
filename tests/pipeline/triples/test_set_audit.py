from dataclasses import replace

import pyarrow as pa
import pytest

from pipeline import schemas
from pipeline.errors import WorkspaceError
from pipeline.tables.parts import read_part, write_part
from pipeline.triples.audit import SHARDS_AGAIN, audit_set
from pipeline.triples.build import TripleSettings, build_triples
from pipeline.triples.layouts import Lists, Triples
from pipeline.triples.sets import load_triples
from tests import worlds
from tests.pipeline.triples.triple_reference import in_shards_of


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    workspace = in_shards_of(worlds.graded(tmp_path_factory.mktemp("audited")), 90, {"a": 1, "b": 2, "c": 3})
    assert len(workspace.parts("pairs")) > SHARDS_AGAIN
    return workspace


@pytest.fixture(scope="module")
def build_again(graded):
    """Builds a set as "bad"; a set that was built before is copied."""
    built = {}

    def build(settings, layout):
        if (settings, layout) not in built:
            build_triples(graded, settings, name="bad", layout=layout)
            built[settings, layout] = {path: path.read_bytes() for path in graded.parts(layout.dataset, "bad")}
        for path, data in built[settings, layout].items():
            path.write_bytes(data)

    return build


@pytest.mark.parametrize("layout", [Triples(), Lists(4), Lists(3, drop_short=True)], ids=str)
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"anchor": "min", "relative_margin": 0.25},
        {"threshold": 1.0, "threshold_on": "any", "ensemble": "zscore"},
        {"threshold": None, "min_score": -6.0, "max_score": 3.0, "max_margin_std": 5.0, "rank_to": 8},
        {"threshold": 0.0, "negatives_per_system": 3, "strategy": "log_random", "collapse_duplicates": True},
    ],
    ids=str,
)
def test_what_was_built_passes(graded, options, layout):
    built = build_triples(graded, TripleSettings(**options), name="fine", layout=layout)
    assert audit_set(graded, layout.dataset, "fine") == built.rows


def test_pairs_of_unjudged_queries_pass(graded):
    built = build_triples(graded, TripleSettings(None, pairs="scored"), name="fine")
    assert audit_set(graded, "triples", "fine") == built.rows


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
        (lambda t: pa.concat_tables([t.slice(0, 1), t]), "duplicates"),
        (lambda t: t.take([1, 0, *range(2, len(t))]), "out of order"),
    ],
)
def test_each_fault_is_found_and_named(graded, build_again, change, fault):
    build_again(TripleSettings(3.0), Triples())
    (path,), (footer,) = load_triples(graded, "bad")
    table, _ = read_part(path, schemas.TRIPLES)
    write_part(path, change(table).to_batches(), schemas.TRIPLES, footer.recipe, extra=footer.extra)
    with pytest.raises(WorkspaceError, match=fault):
        audit_set(graded, "triples", "bad")
    path.unlink()


OPTIONS = {
    "min_score": (-2.0, "below the minimum score"),
    "max_score": (-2.0, "above the maximum score"),
    "relative_margin": (0.75, "below the relative margin"),
    "max_margin_std": (2.0, "above the maximum margin_std"),
    "threshold_on": ("all", "rows that pair shard"),
    "anchor": ("min", "rows that pair shard"),
    "rank_to": (2, "rows that pair shard"),
    "negatives_per_query": (1, "rows that pair shard"),
    "negatives_per_system": (1, "rows that pair shard"),
    "collapse_duplicates": (True, "rows that pair shard"),
    "weights": ({"a": 1.0, "b": 0.0, "c": 2.0}, "an ensemble that is not"),
}


@pytest.mark.parametrize("layout", [Triples(), Lists(5)], ids=str)
@pytest.mark.parametrize("option", OPTIONS)
def test_rows_that_an_option_should_have_dropped(graded, build_again, option, layout):
    """A set that was built without the option, under a footer that claims it."""
    value, fault = OPTIONS[option]
    if layout.dataset == "lists" and option in ("max_margin_std", "negatives_per_query"):
        fault = "rows that pair shard"
    build_again(TripleSettings(1.0), layout)
    for path in graded.parts(layout.dataset, "bad"):
        table, footer = read_part(path, layout.schema)
        given = {**footer.recipe.settings, option: value}
        if option == "weights":
            given["ensemble"] = "weighted"
        if option == "negatives_per_query" and layout.dataset == "lists":
            given["layout"] = {"size": 2, "drop_short": False}
        recipe = replace(footer.recipe, settings=given)
        write_part(path, table.to_batches(), layout.schema, recipe, parts=footer.parts, extra=footer.extra)
    with pytest.raises(WorkspaceError, match=fault):
        audit_set(graded, layout.dataset, "bad")
    path.unlink()


def test_a_row_that_is_missing(graded, build_again):
    build_again(TripleSettings(3.0), Triples())
    (path,) = graded.parts("triples", "bad")
    table, footer = read_part(path, schemas.TRIPLES)
    write_part(path, table[1:].to_batches(), schemas.TRIPLES, footer.recipe, extra=footer.extra)
    with pytest.raises(WorkspaceError, match=r"\d+ rows"):
        audit_set(graded, "triples", "bad")
    path.unlink()


def test_a_file_that_was_changed_behind_its_footer(graded, build_again):
    build_again(TripleSettings(3.0), Triples())
    (path,), (footer,) = load_triples(graded, "bad")
    table, _ = read_part(path, schemas.TRIPLES)
    changed = _change(table, "margin_std", 0, 0.125)
    pa.parquet.write_table(changed.replace_schema_metadata({b"prep": footer.encode()}), path)
    with pytest.raises(WorkspaceError, match="differs from its footer"):
        audit_set(graded, "triples", "bad")
    path.unlink()
