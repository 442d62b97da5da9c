import pytest

from pipeline.errors import PrepError, UsageError
from pipeline.triples.build import TRIPLES_PER_PART, Resources, TripleSettings, build_triples, rows_per_part
from pipeline.triples.layouts import Lists, Triples
from tests import worlds
from tests.pipeline.triples.triple_reference import World, read, triples

TEACHERS = ["a", "b", "c"]


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    return worlds.graded(tmp_path_factory.mktemp("lists"))


@pytest.mark.parametrize("strategy", ["top", "random", "log_random"])
@pytest.mark.parametrize("threshold", [None, 1.0])
def test_lists_equal_plain_loops(graded, strategy, threshold):
    asked = TripleSettings(threshold, strategy=strategy, seed=2)
    build_triples(graded, asked, layout=Lists(5))
    expected = {}
    limited = TripleSettings(threshold, strategy=strategy, seed=2, negatives_per_query=4)
    for (query, positive, negative), row in triples(World(graded, TEACHERS), limited, TEACHERS).items():
        expected.setdefault((query, positive), [row[0]]).append((-row[1], negative))
    found = {(row["query_id"], row["passage_ids"][0]): row for row in read(graded, "lists/default")}
    assert found.keys() == expected.keys()
    for key, (score, *others) in expected.items():
        ordered = sorted((round(low, 4), negative) for low, negative in others)
        assert found[key]["passage_ids"] == [key[1], *(negative for _, negative in ordered)]
        assert found[key]["scores"] == pytest.approx([score, *(-low for low, _ in ordered)], abs=1e-3)


def test_short_lists_may_be_dropped(graded):
    build_triples(graded, TripleSettings(1.0), layout=Lists(6), name="all")
    build_triples(graded, TripleSettings(1.0), layout=Lists(6, drop_short=True), name="full")
    lengths = {name: [len(row["passage_ids"]) for row in read(graded, f"lists/{name}")] for name in ("all", "full")}
    assert min(lengths["all"]) < 6 and lengths["full"] == [6] * lengths["all"].count(6)


def test_lists_are_shuffled_and_the_same_again(graded, monkeypatch):
    monkeypatch.setattr("pipeline.triples.build.TRIPLES_PER_PART", 10)
    made = build_triples(graded, TripleSettings(None), layout=Lists(4), name="one")
    assert made.parts > 2 and build_triples(graded, TripleSettings(None), layout=Lists(4), name="one").unchanged
    build_triples(graded, TripleSettings(None), layout=Lists(4), name="two", resources=Resources(processes=2))
    one, two = ([path.read_bytes() for path in graded.parts("lists", name)] for name in ("one", "two"))
    queries = [row["query_id"] for row in read(graded, "lists/one")]
    assert one == two and queries != sorted(queries)


def test_long_lists_come_in_smaller_parts(graded, monkeypatch):
    assert rows_per_part(Lists(128)) == rows_per_part(Triples()) == TRIPLES_PER_PART > rows_per_part(Lists(1000)) > 1000
    made = build_triples(graded, TripleSettings(None), layout=Lists(4), name="small")
    monkeypatch.setattr("pipeline.triples.build.PART_BYTES", 10 * Lists(4).kind.itemsize)
    cut = build_triples(graded, TripleSettings(None), layout=Lists(4), name="small")
    assert not cut.unchanged and cut.rows == made.rows and cut.parts == -(-made.rows // 10) > made.parts == 1


def test_bad_lists(graded):
    with pytest.raises(UsageError, match="--size"):
        build_triples(graded, TripleSettings(), layout=Lists(1))
    with pytest.raises(PrepError, match="every triple"):
        build_triples(graded, TripleSettings(500.0), layout=Lists(4))
