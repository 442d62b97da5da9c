import json
import math
import shutil
from dataclasses import replace

import duckdb
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline import schemas
from pipeline.errors import PrepError, UsageError, WorkspaceError
from pipeline.imports.msmarco import import_msmarco
from pipeline.storage.atomic_files import write_json
from pipeline.tables.parts import open_part, read_part, write_part
from pipeline.triples.build import Resources, TripleSettings, build_triples, make_plan
from pipeline.triples.inputs import current_scored_pairs
from pipeline.triples.layouts import Triples
from pipeline.triples.shard import Shard, ShardWorker
from tests import worlds
from tests.pipeline.triples.triple_reference import Filters

TEACHERS = {"a": 1, "b": 2, "c": 3}


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    workspace = worlds.paired(worlds.imported(tmp_path_factory.mktemp("triples")))
    return worlds.scored(workspace, TEACHERS, digits=0)


def read(workspace, name):
    return duckdb.sql(f"SELECT * FROM '{workspace.path(*name.split('/'))}/*.parquet'").fetchall()


def reference(workspace, teachers, threshold, split):
    """Triples by plain loops: {(query, positive, negative): (margin, spread)}."""
    splits = dict(duckdb.sql(f"SELECT query_id, splits FROM '{workspace.path('queries')}/*.parquet'").fetchall())
    scores = {t: {row[:2]: row[2] for row in read(workspace, f"scores/{t}")} for t in teachers}
    pairs = [row for row in read(workspace, "pairs") if split in splits[row[0]]]
    found = {}
    for query, positive, grade, _ in pairs:
        for other, negative, other_grade, _ in pairs:
            if query == other and grade and not other_grade:
                margins = [scores[t][query, positive] - scores[t][query, negative] for t in teachers]
                mean = sum(margins) / len(margins)
                if threshold is None or mean >= threshold:
                    found[query, positive, negative] = (
                        mean,
                        math.sqrt(sum((m - mean) ** 2 for m in margins) / len(margins)),
                    )
    return found


@pytest.fixture(scope="module")
def one_shard(tmp_path_factory):
    workspace = worlds.paired(worlds.imported(tmp_path_factory.mktemp("one_shard")), pairs_per_shard=10_000)
    return worlds.scored(workspace, TEACHERS, digits=0)


@pytest.fixture(scope="module")
def filtered(one_shard, tmp_path_factory):
    return Filters(one_shard, tmp_path_factory.mktemp("filtered"))


@settings(max_examples=25)
@given(
    teachers=st.sets(st.sampled_from(sorted(TEACHERS)), min_size=1).map(sorted),
    # Scores are whole numbers and means of up to three: these thresholds are met exactly by some margins.
    threshold=st.none() | st.sampled_from([-2.0, 0.0, 1.0, 2.5, 3.0]),
    split=st.sampled_from(["train", "dev"]),
)
def test_triples_equal_plain_loops(one_shard, filtered, teachers, threshold, split):
    found, *_ = filtered(TripleSettings(threshold, split=split), teachers)
    same(found, reference(one_shard, teachers, threshold, split))


@pytest.mark.parametrize(("threshold", "split"), [(None, "train"), (2.5, "dev")])
def test_a_build_equals_plain_loops(scored, threshold, split):
    build_triples(scored, TripleSettings(threshold, split=split), name="t")
    same({row[:3]: row[3:] for row in read(scored, "triples/t")}, reference(scored, sorted(TEACHERS), threshold, split))


def same(found, expected):
    assert found.keys() == expected.keys()
    for key, (positive, negative, margin, spread) in found.items():
        assert margin == pytest.approx(expected[key][0], abs=1e-5) and spread == pytest.approx(
            expected[key][1], abs=1e-5
        )
        assert positive - negative == pytest.approx(margin, abs=1e-5)


def test_the_funnel_adds_up(scored):
    funnel = build_triples(scored, TripleSettings(3.0, negatives_per_query=2), name="f").funnel
    rows = read(scored, "triples/f")
    every = reference(scored, TEACHERS, None, "train")
    kept = reference(scored, TEACHERS, 3.0, "train")
    assert funnel.candidates == len(every) and funnel.below_threshold == len(every) - len(kept)
    assert funnel.triples == len(rows) and funnel.over_limit == len(kept) - len(rows) > 0
    assert funnel.queries_with_triples == len({row[0] for row in rows}) == len({query for query, *_ in kept})
    assert funnel.pairs - funnel.pairs_of_other_splits == funnel.positives + funnel.negatives


def test_negatives_per_query_counts_passages(scored):
    build_triples(scored, TripleSettings(None, negatives_per_query=3), name="n")
    negatives = {}
    for query, _, negative, *_ in read(scored, "triples/n"):
        negatives.setdefault(query, set()).add(negative)
    assert {len(found) for found in negatives.values()} == {3}


def test_same_bytes_again_and_others_by_seed(scored, monkeypatch):
    monkeypatch.setattr("pipeline.triples.build.TRIPLES_PER_PART", 50)
    build_triples(scored, TripleSettings(None), name="s")
    first = [p.read_bytes() for p in scored.parts("triples", "s")]
    assert len(first) > 2 and build_triples(scored, TripleSettings(None), name="s").unchanged
    shutil.rmtree(scored.path("triples", "s"))
    build_triples(scored, TripleSettings(None), name="s")
    assert [p.read_bytes() for p in scored.parts("triples", "s")] == first
    one = read(scored, "triples/s")
    build_triples(scored, TripleSettings(None, seed=1), name="s")
    other = read(scored, "triples/s")
    assert one != other and sorted(one) == sorted(other)


def test_triples_are_shuffled_over_shards(scored):
    build_triples(scored, TripleSettings(None), name="mixed")
    queries = [row[0] for row in read(scored, "triples/mixed")]
    first, second = queries[: len(queries) // 2], queries[len(queries) // 2 :]
    assert queries != sorted(queries) and set(first) & set(second)


def test_a_threshold_that_removes_all_shows_the_margins(scored):
    with pytest.raises(PrepError, match="removes every triple") as error:
        build_triples(scored, TripleSettings(500.0), name="none")
    margins = sorted(margin for margin, _ in reference(scored, TEACHERS, None, "train").values())
    assert f"0%: {margins[0]:.3g}" in str(error.value) and f"100%: {margins[-1]:.3g}" in str(error.value)
    assert "none" not in scored.names("triples")


def test_unknown_and_incomplete_teachers_are_refused(tmp_path):
    workspace = worlds.scored(worlds.paired(worlds.imported(tmp_path)), {"a": 1, "b": 2})
    with pytest.raises(WorkspaceError, match="no teacher 'z'"):
        build_triples(workspace, TripleSettings(), teachers=["z"])
    lost = workspace.parts("scores", "b")[1]
    lost.rename(tmp_path / "aside")
    with pytest.raises(WorkspaceError, match="not complete") as error:
        build_triples(workspace, TripleSettings())
    assert "1 missing" in str(error.value) and "triples" not in {p.name for p in workspace.root.iterdir()}
    # A shard of another place is foreign, whatever its name.
    shutil.copy(workspace.parts("scores", "b")[0], lost)
    with pytest.raises(WorkspaceError, match="1 stale"):
        build_triples(workspace, TripleSettings())


def test_pairs_older_than_the_judgements_are_refused(tmp_path):
    workspace = worlds.scored(worlds.paired(worlds.imported(tmp_path)), {"a": 1})
    judged = worlds.write_files(tmp_path)["train.qrels"].read_text().split()
    (tmp_path / "more").write_text(f"{judged[0]}\t0\tp0\t2\n")
    import_msmarco(workspace, None, [], [("train", tmp_path / "more")])
    with pytest.raises(WorkspaceError, match="pairs are stale"):
        build_triples(workspace, TripleSettings(None))


def test_scores_in_another_row_order_are_never_zipped(tmp_path):
    workspace = worlds.scored(worlds.paired(worlds.imported(tmp_path)), {"a": 1, "b": 2})
    path = workspace.parts("scores", "b")[0]
    table, footer = read_part(path, schemas.SCORES)
    turned = table.take(pa.array(range(table.num_rows - 1, -1, -1)))
    write_part(path, turned.to_batches(), schemas.SCORES, footer.recipe, part=footer.part, parts=footer.parts)
    with pytest.raises(WorkspaceError, match="not in the order"):
        build_triples(workspace, TripleSettings())


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused(tmp_path, value):
    workspace = worlds.scored(worlds.paired(worlds.imported(tmp_path)), {"a": 1, "b": 2})
    path = workspace.parts("scores", "b")[1]
    table, footer = read_part(path, schemas.SCORES)
    changed = pa.array([*table.column("score").to_pylist()[:-1], value], pa.float32())
    table = table.set_column(2, schemas.SCORES.field("score"), changed)
    write_part(path, table.to_batches(), schemas.SCORES, footer.recipe, part=footer.part, parts=footer.parts)
    with pytest.raises(WorkspaceError, match="not finite"):
        build_triples(workspace, TripleSettings())


@pytest.mark.parametrize("options", [{"negatives_per_query": 0}, {"threshold": float("nan")}, {"relevance_level": 0}])
def test_bad_options(options):
    with pytest.raises(UsageError):
        TripleSettings(**options)


def test_an_empty_shard_gives_nothing(scored, tmp_path):
    inputs = current_scored_pairs(scored)
    plan, _ = make_plan(scored, inputs, TripleSettings(), Triples(), Resources(), tmp_path, tmp_path)
    empty = []
    for path in (plan.shards[0].pairs, *plan.shards[0].scores):
        file, footer = open_part(path)
        empty.append(tmp_path / f"{path.parent.name}.parquet")
        write_part(empty[-1], [], file.schema_arrow, footer.recipe)
    with ShardWorker(replace(plan, shards=(Shard(empty[0], tuple(empty[1:])),))) as worker:
        worker.load(0)
        worker.measure()
        funnel, _ = worker.count()
        assert not any(vars(funnel).values()) and not len(Triples().rows(worker.kept()))


def test_quantiles_are_in_order_in_the_set_and_in_its_files(scored, tmp_path):
    names = ["0%", "5%", "25%", "50%", "75%", "95%", "100%"]
    built = [build_triples(scored, TripleSettings(None), name="quantiles") for _ in range(2)]
    assert built[1].unchanged
    for one in built:
        assert list(one.margins) == names and list(one.margins.values()) == sorted(one.margins.values())
    write_json(tmp_path / "facts.json", built[1].as_dict())
    for path in (tmp_path / "facts.json", scored.path("triples", "quantiles") / "statistics.json"):
        assert list(json.loads(path.read_text())["margins"]) == names
