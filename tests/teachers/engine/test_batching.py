from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from teachers.engine.batching import plan_batches

lengths_of_rows = st.lists(st.integers(1, 60), max_size=300).map(lambda rows: np.array(rows, np.int64))


@example(lengths=np.arange(59, 0, -1), budget=200, share=0.3)  # only the budget ends a batch of rare lengths
@given(lengths=lengths_of_rows, budget=st.integers(1, 2000), share=st.sampled_from([0.0, 0.02, 0.3]))
def test_every_row_once_within_budget_and_padding(lengths: np.ndarray, budget: int, share: float) -> None:
    plan = plan_batches(lengths, budget, share)
    assert sorted(np.concatenate(plan).tolist() if plan else []) == list(range(len(lengths)))
    for rows in plan:
        width = lengths[rows].max()
        assert len(rows) * width <= budget or len(rows) == 1
        assert (width - lengths[rows]).sum() <= share * budget
    widths = [int(lengths[rows].max()) for rows in plan]
    assert widths == sorted(widths, reverse=True)


def test_lengths_with_many_rows_are_cut_evenly_and_never_padded() -> None:
    lengths = np.repeat([10, 11, 12], [205, 60, 51])
    plan = plan_batches(lengths, 1000)
    assert [len(rows) for rows in plan] == [51, 60, 69, 68, 68]
    assert all(np.ptp(lengths[rows]) == 0 for rows in plan)


def test_rare_lengths_are_merged_with_rare_neighbours_only() -> None:
    lengths = np.array([30, 29, 28] + [27] * 40 + [26, 25])
    plan = plan_batches(lengths, 1000)
    assert [sorted(lengths[rows].tolist()) for rows in plan] == [
        [25, 26, 28, 29, 30],
        [27] * 20,
        [27] * 20,
    ]


def test_equal_lengths_keep_their_order_and_the_plan_is_repeatable() -> None:
    lengths = np.random.default_rng(0).integers(5, 90, 2000)
    first, second = (plan_batches(lengths, 4096) for _ in range(2))
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    for rows in first:
        for length in np.unique(lengths[rows]):
            same = rows[lengths[rows] == length]
            assert (np.diff(same) > 0).all()


@pytest.mark.parametrize(
    ("rows", "budget", "padding"), [(20_000, 4096, 0.001), (20_000, 65_536, 0.03), (200_000, 65_536, 0.002)]
)
def test_a_shard_is_hardly_padded(rows: int, budget: int, padding: float) -> None:
    """Lengths as log-normal as those of real passages, at the budgets of CPU and GPU."""
    drawn = np.exp(np.random.default_rng(1).normal(np.log(75), 0.4, rows))
    lengths = np.clip(drawn, 12, 230).astype(np.int64)
    plan = plan_batches(lengths, budget)
    padded = sum(len(batch) * int(lengths[batch].max()) for batch in plan)
    assert padded / lengths.sum() - 1 < padding
