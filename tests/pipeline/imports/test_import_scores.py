import gzip
import pickle
from dataclasses import replace
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError, UsageError, WorkspaceError
from pipeline.imports.scores import ScoreOptions, import_scores
from pipeline.retrieval.mining import mine
from pipeline.retrieval.retrievers import RandomRetriever
from pipeline.scores.pairs import build_pairs, load_pairs
from pipeline.scores.scores import load_scores, read_pair_ids
from pipeline.triples.build import TripleSettings, build_triples
from tests import worlds
from tests.published_files import (
    WRITERS,
    make_scores,
    positive,
    triples_of,
    workspace_of_numbers,
    write,
    write_kd,
    write_parquet_pairs,
    write_pickle,
)

AS_PAIRS = ScoreOptions(as_pairs=True, pairs_per_shard=40)


@pytest.fixture
def ws(tmp_path):
    return workspace_of_numbers(tmp_path)


def stored(ws, teacher="t"):
    """The scores of a teacher by external ids, after checking that each row is its pair shard's."""
    pairs = load_pairs(ws)
    for pair, score in zip(pairs.paths, load_scores(ws, pairs, teacher).paths, strict=True):
        for ids, other in zip(read_pair_ids(pair), read_pair_ids(score), strict=True):
            assert np.array_equal(ids, other)
    rows = duckdb.sql(
        f"SELECT q.external_id::INT, p.external_id::INT, score FROM '{ws.path('scores', teacher)}/*.parquet' "
        f"JOIN '{ws.path('queries')}/*.parquet' q USING (query_id) "
        f"JOIN '{ws.path('passages')}/*.parquet' p USING (passage_id)"
    ).fetchall()
    by_query = {}
    for query, passage, score in rows:
        by_query.setdefault(query, {})[passage] = score
    return by_query


def nothing_new(ws):
    return not ws.names("scores") and not list(ws.root.glob(".tmp-*"))


@pytest.mark.parametrize("form", WRITERS)
def test_every_form_gives_the_same_scores_to_the_last_bit(ws, tmp_path, form):
    make, name = WRITERS[form]
    scores = make_scores()
    file = make(tmp_path / name, scores)
    imported = import_scores(ws, file, "t", AS_PAIRS)
    assert stored(ws) == scores and len(load_pairs(ws).paths) > 1
    assert imported.pairs == sum(map(len, scores.values())) and imported.counts.contradictions == 0
    assert import_scores(ws, file, "t", AS_PAIRS).unchanged


def test_files_of_one_name_in_two_folders_both_count(ws, tmp_path):
    halves = [{q: passages for q, passages in make_scores().items() if q % 2 == half} for half in (0, 1)]
    changed = {q: dict.fromkeys(passages, 7.5) for q, passages in halves[0].items()}
    for number, half in enumerate(halves):
        (tmp_path / f"s/part={number}").mkdir(parents=True)
        write_parquet_pairs(tmp_path / f"s/part={number}/data_0.parquet", half)
    import_scores(ws, tmp_path / "s", "t", AS_PAIRS)
    assert stored(ws) == halves[0] | halves[1]
    write_parquet_pairs(tmp_path / "s/part=0/data_0.parquet", changed)
    imported = import_scores(ws, tmp_path / "s", "t", replace(AS_PAIRS, overwrite=True))
    assert not imported.unchanged and stored(ws) == changed | halves[1]


def test_published_and_own_teachers_are_one_ensemble(ws, tmp_path):
    first, second = (
        make_scores(),
        {q: {p: s + 0.25 for p, s in passages.items()} for q, passages in make_scores().items()},
    )
    import_scores(ws, write_pickle(tmp_path / "a.pkl", first), "a", AS_PAIRS)
    import_scores(ws, write_kd(tmp_path / "b.tsv.gz", second), "b", ScoreOptions())
    worlds.scored(ws, {"own": 3})
    own_scores = stored(ws, "own")
    assert stored(ws, "b") == second
    build_triples(ws, TripleSettings(None), name="all")
    rows = duckdb.sql(
        f"SELECT q.external_id::INT, p.external_id::INT, n.external_id::INT, margin "
        f"FROM '{ws.path('triples', 'all')}/*.parquet' JOIN '{ws.path('queries')}/*.parquet' q USING (query_id) "
        f"JOIN '{ws.path('passages')}/*.parquet' p ON p.passage_id = positive_id "
        f"JOIN '{ws.path('passages')}/*.parquet' n ON n.passage_id = negative_id"
    ).fetchall()
    margins = {row[:3]: row[3] for row in rows}
    assert margins.keys() == set(triples_of(first))
    for (query, good, bad), margin in margins.items():
        parts = [teacher[query][good] - teacher[query][bad] for teacher in (first, second, own_scores)]
        assert margin == pytest.approx(sum(parts) / 3, abs=1e-5)


def test_scores_align_to_the_pairs_that_are_there(ws, tmp_path):
    mine(ws, ["train"], 3, RandomRetriever())
    build_pairs(ws, 15)
    every = {q: {p: float(q * 1000 + p) for p in range(100, 180)} for q in range(10, 30)}
    imported = import_scores(ws, write_pickle(tmp_path / "s.pkl", every), "t", ScoreOptions())
    assert imported.unused == 20 * 80 - imported.pairs > 0
    assert all(
        score == query * 1000 + passage for query, passages in stored(ws).items() for passage, score in passages.items()
    )
    assert stored(ws).keys() == every.keys()


def test_a_pair_without_a_score_is_an_error(ws, tmp_path):
    mine(ws, ["train"], 3, RandomRetriever())
    build_pairs(ws, 15)
    every = {q: dict.fromkeys(range(100, 180), 1.0) for q in range(10, 30)}
    del every[12][positive(12)], every[25]
    with pytest.raises(InputError, match=rf"the first is query 12, passage {positive(12)}\n") as error:
        import_scores(ws, write_pickle(tmp_path / "s.pkl", every), "t", ScoreOptions())
    assert "--as-pairs" in str(error.value) and nothing_new(ws)


def test_repeated_scores_are_one_and_contradictions_their_mean(ws, tmp_path):
    rows = b"1.5\t0.5\t10\t110\t100\n2.5\t0.25\t10\t110\t101\n1.5\t0.5\t10\t110\t100\n2.5\t4\t10\t110\t102\n"
    file = write(tmp_path / "kd.tsv", rows)
    imported = import_scores(ws, file, "t", AS_PAIRS)
    assert stored(ws) == {10: {110: 2.0, 100: 0.5, 101: 0.25, 102: 4.0}}
    assert (imported.counts.rows, imported.counts.repeated, imported.counts.contradictions) == (8, 3, 1)
    assert imported.counts.largest_difference == 1.0
    with pytest.raises(InputError, match="1 pairs have scores that contradict") as error:
        import_scores(ws, file, "u", ScoreOptions(as_pairs=True, strict=True))
    assert "up to 1" in str(error.value) and not ws.path("retrieved", "u").exists()


def test_positives_are_held_against_the_judgements(ws, tmp_path):
    file = write(tmp_path / "kd.tsv", b"1\t0\t10\t110\t100\n1\t0\t10\t120\t100\n1\t0\t11\t120\t100\n")
    assert import_scores(ws, file, "t", AS_PAIRS).counts.not_judged == 2
    added = import_scores(ws, file, "t", ScoreOptions(as_pairs=True, add_positives=True, overwrite=True))
    assert added.judgements == 2 and added.counts.not_judged == 0
    query = "SELECT count(*), sum(grade) FROM '{}/*.parquet'"
    assert duckdb.sql(query.format(ws.path("qrels"))).fetchall() == [(22, 22)]
    assert duckdb.sql(query.format(ws.path("pairs"))).fetchall() == [(5, 3)]


def test_unknown_ids_are_counted_and_refused_when_strict(ws, tmp_path):
    scores = make_scores() | {999: {100: 1.0, 101: 2.0}}
    scores[11][5] = 1.0
    file = write_parquet_pairs(tmp_path / "s.parquet", scores)
    imported = import_scores(ws, file, "t", AS_PAIRS)
    assert (imported.counts.unknown_queries, imported.counts.unknown_passages) == (2, 1) and stored(ws) == make_scores()
    with pytest.raises(InputError, match=r"row \d+ names a (query|passage) that is not in the workspace"):
        import_scores(ws, file, "u", ScoreOptions(as_pairs=True, strict=True))
    assert ws.names("scores") == ["t"]


def test_another_origin_needs_overwrite(ws, tmp_path):
    import_scores(ws, write_pickle(tmp_path / "a.pkl", make_scores()), "t", AS_PAIRS)
    other = write_pickle(tmp_path / "b.pkl", {q: {p: s + 1 for p, s in f.items()} for q, f in make_scores().items()})
    with pytest.raises(WorkspaceError, match="another model or other settings"):
        import_scores(ws, other, "t", ScoreOptions())
    import_scores(ws, other, "t", ScoreOptions(overwrite=True))
    assert stored(ws)[10][110] == make_scores()[10][110] + 1


class Bomb:
    """Makes a file when it is unpickled by anything that obeys."""

    def __reduce__(self):
        return Path.touch, (Path("/tmp/prep-bomb"),)


BAD = {
    "class.pkl": (pickle.dumps({10: {100: Bomb()}}), "a class or function that is named or called"),
    "call.pkl": (pickle.dumps(Bomb(), 2), "a class or function that is named or called"),
    "numpy.pkl": (pickle.dumps({10: {100: np.float32(1)}}), "a class or function that is named or called"),
    "deep.pkl": (pickle.dumps({10: {100: {1: 2.0}}}), "an entry 100"),
    "flat.pkl": (pickle.dumps({10: 2.0}), "an entry 10"),
    "none.pkl": (pickle.dumps({10: {100: None}}), "the opcode NONE"),
    "cut.pkl": (pickle.dumps({10: {100: 1.0}})[:-4], "the end of the file after"),
    "text.pkl": (b"10\t100\t1\n", "no pickle of protocol"),
    "nan.pkl": (pickle.dumps({10: {100: 1.0}, 11: {100: float("nan")}}), "query 2 has a score that is no finite"),
    "huge.pkl": (pickle.dumps({10: {100: 1e300}}), "query 1 has a score that is no finite"),
    "cut.pkl.gz": (gzip.compress(pickle.dumps({q: {100: 1.0} for q in range(5000)}))[:-900], "unreadable"),
    "cut.tsv.gz": (gzip.compress(b"1\t0\t10\t110\t100\n" * 9)[:-4], "unreadable"),
    "nan.tsv": (b"1\t0\t10\t110\t100\n1\tnan\t10\t110\t101\n", "line 2 has a score that is no finite"),
    "word.tsv": (b"1\t0\t10\t110\t100\n1\thigh\t10\t110\t101\n", "line 2 has a bad negative_score"),
    "four.tsv": (b"1\t0\t10\t110\t100\n1\t0\t10\t110\n", "line 2 is malformed"),
    "a.jsonl": (b'[10, [100, 1.0]]\n[10, [100, "high"]]\n', "line 2 is malformed"),
    "b.jsonl": (b'{"qid": 10, "pos": [100], "neg": {}}\n', "line 1 is malformed"),
    "c.jsonl": (b'{"qid": 10, "pos": [{"pid": 100, "ce-score": "1"}], "neg": {}}\n', "line 1 is malformed"),
    "vast.pkl": (pickle.dumps({10: {100: 10**400}}), "an entry 100 of 1329 bits"),
    "vast.jsonl": (b"[10, [100, 1" + b"0" * 400 + b"]]\n", "line 1 is malformed"),
    "half.jsonl": (rb'[10, ["\ud83d", 1.0]]', "line 1 is malformed"),
    "packed.zip": (b"PK\x03\x04rest", "it is a zip archive"),
    "d.jsonl": (b"[[[[", "line 1 is malformed"),
    "empty.jsonl": (b"", "empty file"),
    "prose": (b"just some words\n", "not a known format of scores"),
    "no.parquet": (b"PAR1", "unreadable Parquet file"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_and_leave_nothing(ws, tmp_path, name):
    content, message = BAD[name]
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        import_scores(ws, path, "t", AS_PAIRS)
    assert str(path) in str(error.value) and nothing_new(ws) and not ws.names("retrieved")
    assert not Path("/tmp/prep-bomb").exists()


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"query_id": ["10"], "text": ["x"], "score": [1.5]}, "column 'text' holds texts"),
        ({"query_id": ["10"], "positive_id": ["1"], "negative_id": ["2"], "score": [1.0]}, "margins of two passages"),
        ({"query_id": ["10"], "passage_id": ["100"], "score": ["1.0"]}, "has no list in a string"),
        ({"query_id": ["10"], "passage_id": [["100"]], "score": [1.0]}, "columns of the wrong types"),
        ({"query_id": ["10"], "passage_id": [["100"]], "score": [[1.5, 2.0]]}, "row 1 has more passages than scores"),
        ({"query_id": ["10", None], "passage_id": ["1", "2"], "score": [1.5, 2.0]}, "row 2 has a null"),
        ({"query_id": [1, 2], "passage_id": [[1], None], "score": [[1.5], [2.0]]}, "row 2 has"),
    ],
)
def test_bad_tables_are_refused(ws, tmp_path, columns, message):
    pq.write_table(pa.table(columns), tmp_path / "s.parquet")
    with pytest.raises(InputError, match=message):
        import_scores(ws, tmp_path / "s.parquet", "t", AS_PAIRS)
    assert nothing_new(ws)


def test_strings_beyond_the_memory_are_an_error(ws, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.imports.score_process.MEMORY_BYTES", 24 << 20)
    scores = {f"q{q}": {f"p{q}-{p}": 1.0 for p in range(100)} for q in range(10_000)}
    with pytest.raises(InputError, match="takes too much memory"):
        import_scores(ws, write_pickle(tmp_path / "s.pkl", scores), "t", AS_PAIRS)
    assert nothing_new(ws)


def test_options_that_do_not_fit():
    with pytest.raises(UsageError, match="unknown --form"):
        ScoreOptions(form="csv")
    with pytest.raises(UsageError, match="--as-pairs"):
        ScoreOptions(add_positives=True)
