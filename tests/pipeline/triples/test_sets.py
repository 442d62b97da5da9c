from pipeline.triples.build import TripleSettings, build_triples
from pipeline.triples.sets import triple_order
from tests import worlds


def test_teachers_change_no_row_and_filters_do(paired):
    worlds.scored(paired, {"a": 1, "b": 2})
    for name, settings, teachers in (
        ("one", TripleSettings(None), ["a"]),
        ("both", TripleSettings(None), ["a", "b"]),
        ("filtered", TripleSettings(0.0), ["a", "b"]),
        ("shuffled", TripleSettings(None, seed=1), ["a"]),
    ):
        build_triples(paired, settings, name=name, teachers=teachers)
    orders = {name: triple_order(paired, name) for name in ("one", "both", "filtered", "shuffled")}
    assert orders["one"] == orders["both"] and len(set(orders.values())) == 3
