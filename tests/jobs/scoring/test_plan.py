import pytest

from jobs.scoring.plan import SHAPES, START_SECONDS, Machines, parse_machines, plan
from pipeline.errors import UsageError

H200 = Machines("h200", 8, 790.0, 4.0)


def test_the_bill_of_ms_marco():
    """160 M pairs of 90 tokens: the floor on one device is near 50 minutes for BERT-Base, 3 hours for a Large one."""
    names = ("bert-base", "bert-large", "albert-large")
    one = Machines("h200", 1, 790.0, 4.0)
    hours = [
        plan({name: SHAPES[name]}, [one], pairs=160_000_000, mean_tokens=90, share_of_peak=1.0).hours for name in names
    ]
    assert hours[0] == pytest.approx(0.83, rel=0.1) and hours[1] == hours[2] == pytest.approx(2.96, rel=0.1)


def test_hours_by_hand():
    shape = {"hidden_size": 10, "intermediate_size": 20, "num_hidden_layers": 1}
    # One layer, first token alone: keys and values of 5 tokens, attention, one row of the rest.
    flop = 2 * 5 * 2 * 100 + 4 * 10 * 5 + 2 * (2 * 100 + 2 * 10 * 20)
    slow, fast = Machines("slow", 1, 1e-9, 1.0), Machines("fast", 1, 2e-9, 3.0)
    found = plan({"t": shape}, [slow, fast], pairs=30, mean_tokens=5, share_of_peak=0.5, pairs_per_shard=10)
    seconds = 10 * flop / 500  # of a shard on the slow one; the fast one does two in that time
    assert found.hours == pytest.approx((START_SECONDS + seconds) / 3600)
    assert found.cost == pytest.approx(4 * found.hours) and found.device_hours == pytest.approx(2 * found.hours)
    assert found.pflop["t"] == pytest.approx(30 * flop / 1e15)


def test_machines_are_read():
    assert parse_machines("h200=8:790:4") == H200
    for text in ("h200", "h200=8:790", "h200=eight:790:4"):
        with pytest.raises(UsageError, match="malformed --machine"):
            parse_machines(text)
    with pytest.raises(UsageError, match="no machine"):
        plan({"t": SHAPES["bert-base"]}, [], pairs=1, mean_tokens=1, share_of_peak=0.5)
    with pytest.raises(UsageError, match="is a share"):
        plan({"t": SHAPES["bert-base"]}, [H200], pairs=1, mean_tokens=1, share_of_peak=60)
