import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.exports.shared_rows import common_negatives, equal_negatives

SETS = st.lists(st.tuples(st.integers(0, 2), st.lists(st.integers(0, 3), min_size=1, unique=True)), min_size=1)


def arrays(groups):
    """(query, positive, negative, starts) of [(query, negatives)]; positives are numbered from 100."""
    groups = sorted(groups, key=lambda group: group[0])
    lengths = [len(negatives) for _, negatives in groups]
    negative = np.array([n for _, negatives in groups for n in negatives], np.int32)
    query = np.array([query for query, _ in groups], np.int32)
    return query, np.arange(100, 100 + len(groups), dtype=np.int32), negative, np.cumsum([0, *lengths])


@given(SETS)
def test_positives_with_equal_negatives_share_a_row(groups):
    query, _, negative, starts = arrays(groups)
    own = [(q, tuple(negative[starts[i] : starts[i + 1]])) for i, q in enumerate(query.tolist())]
    first = list(dict.fromkeys(own))
    assert equal_negatives(query, negative, starts).tolist() == [first.index(key) for key in own]


@given(SETS)
def test_what_a_run_keeps_passed_for_all_of_it(groups):
    query, positive, negative, starts = arrays(groups)
    goods, bads = common_negatives(query, positive, negative, starts)
    own = [set(negative[starts[i] : starts[i + 1]].tolist()) for i in range(len(query))]
    kept = [
        set(negative[starts[i] : starts[i + 1]][bads[starts[i] : starts[i + 1]]].tolist()) for i in range(len(query))
    ]
    for q in set(query.tolist()):
        pairs = [i for i in range(len(query)) if query[i] == q]
        common = set.intersection(*(own[i] for i in pairs if goods[i]))
        assert common and all(kept[i] == own[i] & common for i in pairs)
        # No other positive could be kept with these negatives alone, and the longest is.
        assert all(goods[i] or not own[i] & common for i in pairs)
        assert goods[max(pairs, key=lambda i: len(own[i]))]


@pytest.mark.parametrize(
    ("groups", "goods", "bads"),
    [
        ([(0, [1, 2, 3]), (0, [3, 2])], [True, True], [False, True, True, True, True]),
        ([(0, [1, 2, 3]), (0, [4])], [True, False], [True, True, True, False]),
        ([(0, [101]), (0, [100])], [True, True], [False, False]),  # each the negative of the other
        ([(0, [1]), (1, [2])], [True, True], [True, True]),
    ],
)
def test_runs_of_small_sets(groups, goods, bads):
    assert [mask.tolist() for mask in common_negatives(*arrays(groups))] == [goods, bads]
