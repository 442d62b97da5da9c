import dataclasses
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from pipeline.errors import PrepError, UsageError
from pipeline.retrieval.mining import mine
from pipeline.retrieval.retrievers import RandomRetriever
from pipeline.scores.pairs import build_pairs, load_pairs
from pipeline.triples.build import Resources, TripleSettings, build_triples
from pipeline.triples.ensemble import Sample, fit_weights
from pipeline.triples.funnel import REASONS
from tests import worlds
from tests.pipeline.triples.triple_reference import (
    IDS,
    Filters,
    World,
    candidates,
    in_shards_of,
    read,
    spread,
    triples,
)

TEACHERS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    workspace = worlds.graded(tmp_path_factory.mktemp("graded"))
    assert min(footer.rows for footer in load_pairs(workspace).footers) < 20
    return workspace


@pytest.fixture(scope="module")
def world(graded):
    return World(graded, TEACHERS)


@pytest.fixture(scope="module")
def one_shard(tmp_path_factory):
    workspace = worlds.graded(tmp_path_factory.mktemp("one_shard"))
    return in_shards_of(workspace, 10_000, {"a": 1, "b": 2, "c": 3})


@pytest.fixture(scope="module")
def filtered(one_shard, tmp_path_factory):
    return Filters(one_shard, tmp_path_factory.mktemp("filtered"))


@pytest.fixture(scope="module")
def one_shard_world(one_shard):
    return World(one_shard, TEACHERS)


def built(workspace, options, name="t", teachers=()):
    """Triples by their ids, or nothing where everything was dropped."""
    try:
        build_triples(workspace, options, name=name, teachers=teachers)
    except PrepError as error:
        assert "removes every triple" in str(error) or "remove every triple" in str(error)
        return {}
    return rows(workspace, name)


def rows(workspace, name):
    return {tuple(row.pop(key) for key in IDS): tuple(row.values()) for row in read(workspace, f"triples/{name}")}


def same(found, expected):
    assert found.keys() == expected.keys()
    for key, row in found.items():
        assert row == pytest.approx(expected[key], abs=2e-5)


def none_or(values):
    return st.none() | st.sampled_from(values)


# Scores are whole numbers, and so are many of these bounds: ties are met exactly.
THRESHOLDS = st.fixed_dictionaries(
    {
        "threshold": none_or([-3.0, 0.0, 1.0, 2.5, 3.0]),
        "threshold_on": st.sampled_from(["mean", "all", "any", "1", "2"]),
        "anchor": st.sampled_from(["own", "min"]),
        "relevance_level": st.sampled_from([1, 2]),
    }
)
BOUNDS = st.fixed_dictionaries(
    {
        "threshold": none_or([-3.0, 2.0]),
        "relative_margin": none_or([0.0, 0.5]),
        "min_score": none_or([-6.0, -2.0]),
        "max_score": none_or([-1.0, 3.0]),
        "rank_from": none_or([2, 4]),
        "rank_to": none_or([4, 8]),
        "max_margin_std": none_or([2.0, 5.0]),
        "anchor": st.sampled_from(["own", "min"]),
    }
)
LIMITS = st.fixed_dictionaries(
    {
        "threshold": none_or([0.0]),
        "negatives_per_query": none_or([1, 2, 5]),
        "negatives_per_system": none_or([1, 3]),
        "strategy": st.sampled_from(["top", "random", "log_random"]),
        "collapse_duplicates": st.booleans(),
        "seed": st.integers(0, 3),
        "split": st.sampled_from(["train", "dev"]),
    }
)
PLAIN = settings(max_examples=25)


@PLAIN
@example(options={"threshold": None, "negatives_per_system": 5}, teachers=TEACHERS)  # what both retrievers found
@example(options={"threshold": 0.0, "negatives_per_system": 4}, teachers=TEACHERS)  # of each positive
@example(options={"threshold": 1.0, "negatives_per_query": 2, "strategy": "log_random", "seed": 1}, teachers=TEACHERS)
@example(options={"threshold": 1.0, "negatives_per_query": 3, "strategy": "log_random", "seed": 2}, teachers=TEACHERS)
@given(options=THRESHOLDS | BOUNDS | LIMITS, teachers=st.sampled_from([TEACHERS, ["a", "b"]]))
def test_every_option_equals_plain_loops(filtered, one_shard_world, options, teachers):
    chosen = TripleSettings(**options)
    same(filtered(chosen, teachers)[0], triples(one_shard_world, chosen, teachers))


@pytest.mark.parametrize(
    ("options", "teachers"),
    [
        ({"threshold": 2.5, "threshold_on": "2", "anchor": "min"}, TEACHERS),
        ({"relative_margin": 0.5, "max_score": 3.0, "rank_to": 8, "max_margin_std": 5.0}, ["a", "b"]),
        ({"threshold": 0.0, "negatives_per_query": 5, "negatives_per_system": 3, "split": "dev"}, TEACHERS),
        ({"threshold": 500.0}, TEACHERS),
    ],
)
def test_a_build_of_many_shards_equals_plain_loops(graded, world, options, teachers):
    chosen = TripleSettings(**options)
    same(built(graded, chosen, teachers=teachers), triples(world, chosen, teachers))


@settings(PLAIN, max_examples=5)
@given(limits=LIMITS)
def test_queries_without_a_positive_are_paired_in_a_circle(filtered, one_shard_world, limits):
    chosen = TripleSettings(**{**limits, "threshold": None, "pairs": "scored"})
    found, *_ = filtered(chosen)
    same(found, triples(one_shard_world, chosen, TEACHERS))
    assert len(found) >= len(filtered(dataclasses.replace(chosen, pairs="judged"))[0])


def test_a_build_of_many_shards_pairs_in_a_circle(graded, world):
    chosen = TripleSettings(None, pairs="scored", negatives_per_query=5)
    same(built(graded, chosen), triples(world, chosen, TEACHERS))


def test_weights_and_scales(graded, world):
    given = {"a": 3.0, "b": 0.0, "c": 1.0}
    for on in ("mean", "2"):
        chosen = TripleSettings(1.0, threshold_on=on, ensemble="weighted", weights=given)
        same(built(graded, chosen), triples(world, chosen, TEACHERS, weights=list(given.values())))


def test_zscore_makes_scales_equal(graded, world, monkeypatch):
    monkeypatch.setattr("pipeline.triples.build.SAMPLE_SHARDS", 1_000)
    every = {t: [s for (q, _), s in world.scores[t].items() if "train" in world.splits[q]] for t in TEACHERS}
    scales = [spread(values) for values in every.values()]
    centre = np.mean([np.mean(values) / scale for values, scale in zip(every.values(), scales, strict=True)])
    chosen = TripleSettings(0.4, ensemble="zscore", max_score=0.3, relative_margin=0.2)
    same(built(graded, chosen), triples(world, chosen, TEACHERS, scales=scales, centre=centre))


def test_the_sample_is_taken_where_the_split_is(graded, world, monkeypatch):
    # The first shard holds queries of train alone.
    monkeypatch.setattr("pipeline.triples.build.SAMPLE_SHARDS", 1)
    for ensemble in ("zscore", "weighted", "mean"):
        made = build_triples(graded, TripleSettings(None, split="dev", ensemble=ensemble), name="dev")
        assert abs(made.correlations[0][1]) > 0 and made.margins
    own = {t: [s for (q, _), s in world.scores[t].items() if "dev" in world.splits[q]] for t in TEACHERS}
    made = build_triples(graded, TripleSettings(None, split="dev", ensemble="zscore"), name="dev")
    assert all(0.3 < scale / spread(own[t]) < 3 for t, scale in made.ensemble["scales"].items())


def test_a_split_without_pairs_is_named(workspace):
    mine(workspace, ["train"], 5, RandomRetriever())
    build_pairs(workspace, 40)
    worlds.scored(workspace, {"a": 1, "b": 2})
    with pytest.raises(PrepError, match="no query of the split"):
        build_triples(workspace, TripleSettings(None, split="dev", ensemble="zscore"))


def test_fitted_weights_follow_the_teacher_that_ranks():
    rng = np.random.default_rng(0)
    relevant = np.tile([True, False, False, False], 200)
    noise = rng.normal(0, [2, 2, 1], (800, 3))
    scores = noise + relevant[:, None] * [3.0, 0.0, -1.0]
    weights = fit_weights(Sample(np.repeat(np.arange(200), 4), relevant, ~relevant, scores))
    assert weights.sum() == pytest.approx(1) and weights[0] > 0.9 and weights[2] == 0
    # No small step away from it lowers the loss.
    margins = Sample(np.repeat(np.arange(200), 4), relevant, ~relevant, scores).margins()
    losses = [np.log1p(np.exp(-margins @ (w * c))).mean() for w in [weights] for c in np.linspace(0.1, 3, 60)]
    best = weights * np.linspace(0.1, 3, 60)[int(np.argmin(losses))]
    for i in range(2):
        moved = best.copy()
        moved[i] += 0.1
        assert np.log1p(np.exp(-margins @ moved)).mean() > min(losses)


def test_same_text_never_on_both_sides(graded, world):
    funnel = build_triples(graded, TripleSettings(None), name="d").funnel
    assert funnel.same_text > 0
    for query, positive, negative in rows(graded, "d"):
        assert world.texts[positive] != world.texts[negative], query
    assert build_triples(graded, TripleSettings(None, collapse_duplicates=True), name="d").funnel.pairs_collapsed > 0


# Reason → settings that drop candidates for it.
REASONED = {
    "same_text": {"threshold": None},
    "below_min_score": {"threshold": None, "min_score": -2.0},
    "above_max_score": {"threshold": None, "max_score": 3.0},
    "outside_ranks": {"threshold": None, "rank_from": 2, "rank_to": 4},
    "below_threshold": {"threshold": 1.0},
    "within_relative_margin": {"threshold": None, "relative_margin": 0.5},
    "above_max_margin_std": {"threshold": None, "max_margin_std": 5.0},
    "over_limit": {"threshold": 0.0, "negatives_per_query": 2},
}


@PLAIN
@given(options=BOUNDS | LIMITS)
@example(options={"threshold": None, "pairs": "scored", "negatives_per_query": 2})
def test_the_funnel_tells_the_reasons_apart(filtered, one_shard_world, options):
    counts_of_a_plain_loop(filtered, one_shard_world, TripleSettings(**options))


@pytest.mark.parametrize("reason", REASONS)
def test_every_reason_occurs(filtered, one_shard_world, reason):
    counts = counts_of_a_plain_loop(filtered, one_shard_world, TripleSettings(**REASONED[reason]))
    assert counts[reason] > 3 and counts["same_text"] > 3 and counts["triples"] > 3


def counts_of_a_plain_loop(filtered, world, chosen):
    found, funnel, counted = filtered(chosen)
    adds_up(found, funnel, counted)
    every = candidates(world, chosen, TEACHERS)
    counts = Counter(reason for reason, _ in every.values())
    assert {name: getattr(funnel, name) for name in [*REASONS, "triples"]} == {
        name: counts[name] for name in [*REASONS, "triples"]
    }
    judged = {(query, p) for query, p, _ in every if positive_in(world, query, p, chosen)}
    assert funnel.positives_with_candidates == len(judged)
    assert funnel.positives_with_triples == len(judged & {key[:2] for key in found})
    return counts


def positive_in(world, query, passage, chosen):
    return any(
        row["passage_id"] == passage and (row["grade"] or 0) >= chosen.relevance_level for row in world.pairs[query]
    )


@pytest.mark.parametrize(
    ("limit", "strategy"),
    [("negatives_per_query", strategy) for strategy in ("top", "random", "log_random")]
    + [("negatives_per_system", "top")],
)
def test_every_positive_gets_as_many_negatives_as_pass_for_it(filtered, one_shard_world, limit, strategy):
    """Limited by query, a positive whose negatives score low would lose them to those of a higher positive."""
    retrieved = {"rank_to": 1000}  # by system, a judged negative that none retrieved is never taken
    chosen = TripleSettings(2.0, strategy=strategy, **retrieved, **{limit: 2})
    passed = triples(one_shard_world, dataclasses.replace(chosen, **{limit: None}), TEACHERS)
    found, funnel, _ = filtered(chosen)
    expected = {key[:2] for key in passed}
    assert {key[:2] for key in found} == expected and funnel.positives_with_triples == len(expected)
    by_query = triples(one_shard_world, chosen, TEACHERS, per_query=True)
    assert {key[:2] for key in by_query} < expected
    if limit == "negatives_per_query":
        sizes = Counter(key[:2] for key in passed)
        assert Counter(key[:2] for key in found) == {key: min(size, 2) for key, size in sizes.items()}


@PLAIN
@example(options={"threshold": 1.0, "negatives_per_query": 2}, bounds={})
@example(options={"threshold": None, "negatives_per_system": 1}, bounds={"relative_margin": 0.2})
@example(options={"threshold": None, "negatives_per_query": 2}, bounds={"max_margin_std": 4.0})
@given(
    options=LIMITS,
    bounds=st.sampled_from(
        [{}, {"anchor": "min"}, {"min_score": -4.0}, {"rank_to": 4}, {"relative_margin": 0.2}, {"max_margin_std": 4.0}]
    ),
)
def test_where_positives_share_all_negatives_limits_are_those_of_a_query(one_shard_world, options, bounds):
    """The proof for identities that stay: what `limits_differ_by_positive` denies does not change a row."""
    chosen = TripleSettings(**options, **bounds)
    rows = [triples(one_shard_world, chosen, TEACHERS, per_query=by_query) for by_query in (False, True)]
    assert chosen.limits_differ_by_positive or rows[0] == rows[1]


@pytest.mark.parametrize(("strategy", "differs"), [("top", False), ("random", True), ("log_random", True)])
def test_the_seed_decides_what_is_drawn(filtered, strategy, differs):
    first, second, again = (
        filtered(TripleSettings(None, negatives_per_query=2, strategy=strategy, seed=seed))[0] for seed in (0, 1, 0)
    )
    assert first == again and (first.keys() != second.keys()) == differs and len(first) == len(second)


def test_the_funnel_of_many_shards_adds_up(graded):
    made = build_triples(graded, TripleSettings(0.0, max_score=3.0, negatives_per_query=5), name="u")
    assert made.funnel.above_max_score and made.funnel.over_limit
    adds_up(rows(graded, "u"), made.funnel, made.statistics)


def adds_up(found, funnel, counted):
    lost = funnel.pairs_of_other_splits + funnel.pairs_collapsed + funnel.pairs_below_relevance_level
    assert funnel.pairs == lost + funnel.positives + funnel.negatives
    assert funnel.triples == len(found) == sum(counted.triple_margins.values())
    assert funnel.candidates == sum(counted.candidate_margins.values())
    assert funnel.queries_with_triples == len({query for query, *_ in found})
    assert dict(counted.triple_margins) == _steps(found)


def _steps(found):
    steps = [int(np.floor(np.float64(row[2]) * 4 + 1e-6)) for row in found.values()]
    return {step: steps.count(step) for step in steps}


@pytest.mark.parametrize(
    "resources",
    [{"processes": 2}, {"threads": 3}, {"memory_limit": "100MB", "threads": 1}, {"temp": True}],
    ids=["processes", "threads", "memory", "elsewhere"],
)
def test_the_same_bytes_whoever_works(graded, tmp_path, monkeypatch, resources):
    monkeypatch.setattr("pipeline.triples.build.TRIPLES_PER_PART", 60)
    chosen = TripleSettings(None, negatives_per_query=5)
    build_triples(graded, chosen, name="one", resources=Resources(processes=1))
    elsewhere = {"temp_directory": tmp_path / "spill"} if resources.pop("temp", False) else {}
    build_triples(graded, chosen, name="two", resources=Resources(**resources, **elsewhere))
    one, two = ([path.read_bytes() for path in graded.parts("triples", name)] for name in ("one", "two"))
    assert len(one) > 2 and one == two
    assert not list(tmp_path.glob("spill/*"))


@pytest.mark.parametrize(
    "options",
    [
        {"threshold_on": "most"},
        {"threshold_on": "0"},
        {"anchor": "max"},
        {"strategy": "best"},
        {"ensemble": "median"},
        {"min_score": 2.0, "max_score": 1.0},
        {"rank_from": 5, "rank_to": 4},
        {"rank_from": 0},
        {"relative_margin": -0.1},
        {"max_margin_std": float("inf")},
        {"pairs": "scored"},
        {"weights": {"a": 1.0}},
        {"ensemble": "weighted", "weights": {"a": -1.0}},
        {"ensemble": "weighted", "weights": {"a": 0.0}},
        {"negatives_per_system": 0},
    ],
)
def test_bad_options_are_named(options):
    with pytest.raises(UsageError):
        TripleSettings(**options)


def test_options_that_do_not_fit_the_teachers(graded):
    with pytest.raises(UsageError, match="--threshold-on exceeds the number of teachers"):
        build_triples(graded, TripleSettings(threshold_on="4"))
    with pytest.raises(UsageError, match="a weight for each teacher"):
        build_triples(graded, TripleSettings(ensemble="weighted", weights={"a": 1.0}))
