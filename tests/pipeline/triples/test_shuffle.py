import numpy as np
import pytest

from pipeline.triples.shuffle import BUCKETS, in_key_order, read_part, row_type, shuffle_keys, write_by_bucket

KIND = row_type([("a", "i4"), ("b", "i4"), ("x", "f4")])


def some(count, seed=0):
    rng = np.random.default_rng(seed)
    rows = np.zeros(count, KIND)
    rows["a"], rows["b"], rows["x"] = (
        rng.integers(0, 50, count),
        np.arange(count) + seed * count,
        rng.normal(size=count),
    )
    return rows


def test_rows_fill_whole_words():
    assert KIND.itemsize == 16 and row_type([("a", "i4"), ("b", "i4")]).itemsize == 8


@pytest.mark.parametrize("bits", [64, 12, 3, 0])
def test_order_is_by_key_then_ids_whatever_the_order_given(bits):
    rows = some(1_000)
    keys = shuffle_keys(1, rows["a"], rows["b"]) >> np.uint64(64 - bits) if bits else np.zeros(1_000, np.uint64)
    expected = sorted(zip(keys.tolist(), rows["a"].tolist(), rows["b"].tolist(), strict=True))
    for seed in range(3):
        turn = np.random.default_rng(seed).permutation(len(rows))
        found = in_key_order(rows[turn], keys[turn], ["a", "b"])
        assert list(zip(found["a"].tolist(), found["b"].tolist(), strict=True)) == [row[1:] for row in expected]


@pytest.mark.parametrize("parts", [1, 3, 7])
def test_every_row_arrives_in_one_part(tmp_path, parts):
    paths = [tmp_path / str(i) for i in range(4)]
    shards = [some(count, seed) for seed, count in enumerate((40_000, 0, 1, 300))]  # rows in every bucket
    for path, rows in zip(paths, shards, strict=True):
        write_by_bucket(path, rows, shuffle_keys(0, rows["a"], rows["b"]))
    found = [read_part(paths, KIND, part, parts) for part in range(parts)]
    assert sorted(np.concatenate(found)["b"].tolist()) == sorted(np.concatenate(shards)["b"].tolist())
    for part, rows in enumerate(found):
        places = shuffle_keys(0, rows["a"], rows["b"]) >> np.uint64(52)
        assert ((places >= BUCKETS * part // parts) & (places < BUCKETS * (part + 1) // parts)).all()


def test_a_file_that_is_short_is_an_error(tmp_path):
    rows = some(100)
    write_by_bucket(tmp_path / "f", rows, shuffle_keys(0, rows["a"], rows["b"]))
    (tmp_path / "f").write_bytes((tmp_path / "f").read_bytes()[:-8])
    with pytest.raises(OSError, match="shorter"):
        read_part([tmp_path / "f"], KIND, 0, 1)


def test_keys_are_even_and_differ_by_seed():
    ids = np.arange(100_000, dtype=np.int32)
    one, two = shuffle_keys(0, ids, ids), shuffle_keys(1, ids, ids)
    assert (one != two).all() and len(np.unique(one)) == len(ids)
    counts = np.bincount((one >> np.uint64(60)).astype(int), minlength=16)
    assert abs(counts - 6_250).max() < 400
