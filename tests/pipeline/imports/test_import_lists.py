import duckdb
import pytest

from pipeline.errors import InputError, UsageError, WorkspaceError
from pipeline.evaluation import runs
from pipeline.imports.candidate_files import read_id_triples, read_run_rows, read_top1000
from pipeline.imports.hard_negatives import read_lists
from pipeline.imports.lists import ListOptions, file_source, import_lists, system_source
from pipeline.scores.pairs import build_pairs, current_pairs
from pipeline.tables.json_lines import LONGEST_LINE_BYTES
from tests.published_files import (
    lines,
    make_scores,
    positive,
    workspace_of_numbers,
    write,
    write_run,
    write_scored_lists,
)

DEFAULT = ListOptions()
NEWER = [
    {"qid": 10, "pos": [110, 111], "neg": {"bm25": [103, 101, 102], "co-condenser.v1": [104, 101]}},
    {"qid": 12, "pos": [], "neg": {"co-condenser.v1": [112], "late": [100]}},
    {"qid": 13, "pos": [113], "neg": {}},
]


@pytest.fixture
def ws(tmp_path):
    return workspace_of_numbers(tmp_path)


def take(ws, path, options=DEFAULT):
    return import_lists(ws, file_source(path, "hard-negatives", read_lists), options)


def stored(ws, system):
    """Passages by query, in the order of their ranks."""
    rows = duckdb.sql(
        f"SELECT q.external_id::INT, p.external_id::INT, rank FROM '{ws.path('retrieved', system)}/*.parquet' "
        f"JOIN '{ws.path('queries')}/*.parquet' q USING (query_id) "
        f"JOIN '{ws.path('passages')}/*.parquet' p USING (passage_id) ORDER BY 1, rank"
    ).fetchall()
    by_query = {}
    for query, passage, rank in rows:
        by_query.setdefault(query, []).append(passage)
        assert rank == len(by_query[query])
    return by_query


@pytest.mark.parametrize("name", ["hn.jsonl", "hn.jsonl.gz"])
def test_systems_are_whatever_the_file_names(ws, tmp_path, name, monkeypatch):
    monkeypatch.setattr("pipeline.imports.intake.QUERIES_PER_BUCKET", 2)
    imported = take(ws, write(tmp_path / name, lines(NEWER)))
    assert imported.systems == {"bm25": 3, "co-condenser.v1": 3, "late": 1} and imported.counts.not_judged == 1
    assert stored(ws, "bm25") == {10: [103, 101, 102]} and stored(ws, "co-condenser.v1") == {10: [104, 101], 12: [112]}
    assert take(ws, tmp_path / name).unchanged
    built = build_pairs(ws, 100)
    assert built.queries == 2 and current_pairs(ws).systems == ["bm25", "co-condenser.v1", "late"]
    ranks = duckdb.sql(
        f"SELECT rank_bm25, \"rank_co-condenser.v1\" FROM '{ws.path('pairs')}/*.parquet' "
        f"JOIN '{ws.path('passages')}/*.parquet' USING (passage_id) WHERE external_id = '101'"
    ).fetchall()
    assert ranks == [(2, 2)]


def test_the_older_schema_gives_the_same_lists(ws, tmp_path):
    scores = make_scores()
    take(ws, write_scored_lists(tmp_path / "hn.jsonl", scores))
    assert stored(ws, "bm25") == {query: list(passages)[1:4] for query, passages in scores.items()}


def test_positives_become_judgements_with_add_positives(ws, tmp_path):
    imported = take(ws, write(tmp_path / "hn.jsonl", lines(NEWER)), ListOptions(add_positives=True))
    assert imported.judgements == 1 and imported.counts.not_judged == 0
    grades = f"SELECT count(*), sum(grade) FROM '{ws.path('qrels')}/*.parquet'"
    assert duckdb.sql(grades).fetchall() == [(21, 21)]


def test_lists_outlive_a_growing_collection(ws, tmp_path):
    take(ws, write(tmp_path / "hn.jsonl", lines(NEWER)))
    from pipeline.imports.msmarco import import_msmarco

    import_msmarco(ws, write(tmp_path / "more", b"999\tnew\n"), [], [])
    build_pairs(ws, 100)
    assert stored(ws, "bm25") == {10: [103, 101, 102]}


def test_repeated_passages_keep_their_best_rank_and_unknown_ids_are_counted(ws, tmp_path):
    file = write(
        tmp_path / "hn.jsonl",
        lines(
            [
                {"qid": 10, "pos": [], "neg": {"bm25": [101, 5, 102, 101]}},
                {"qid": 10, "pos": [], "neg": {"bm25": [103, 102]}},
                {"qid": 5, "pos": [], "neg": {"bm25": [101]}},
                {"qid": "x", "pos": ["y"], "neg": {"bm25": [101, 2**70]}},
            ]
        ),
    )
    imported = take(ws, file)
    assert stored(ws, "bm25") == {10: [101, 103, 102]}
    counts = imported.counts
    assert (counts.rows, counts.repeated, counts.unknown_queries, counts.unknown_passages) == (9, 2, 3, 1)
    with pytest.raises(InputError, match="line 3 names a query"):
        take(ws, file, ListOptions(strict=True))


def test_own_lists_are_not_displaced(workspace, tmp_path):
    from pipeline.retrieval.mining import mine
    from pipeline.retrieval.retrievers import RandomRetriever

    mine(workspace, ["train"], 3, RandomRetriever())
    file = write(tmp_path / "hn.jsonl", lines([{"qid": "q3", "pos": [], "neg": {"random": ["p7", "p0"]}}]))
    with pytest.raises(WorkspaceError, match="another origin under 'random'"):
        take(workspace, file)
    take(workspace, file, ListOptions(prefix="hn-"))
    assert workspace.names("retrieved") == ["hn-random", "random"]
    take(workspace, file, ListOptions(overwrite=True))
    assert sum(1 for _ in workspace.parts("retrieved", "random")) == 1
    with pytest.raises(UsageError):
        ListOptions(prefix="../")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (lines(NEWER) + b"{\n", "line 4 is malformed"),
        (lines(NEWER) + b"[]\n", "line 4 is malformed"),
        (b'{"qid": 10, "pos": [1]}\n', "line 1 is malformed"),
        (b'{"qid": 10, "pos": 1, "neg": {}}\n', "line 1 is malformed"),
        (b'{"qid": true, "pos": [], "neg": {}}\n', "line 1 is malformed"),
        (b'{"qid": 10, "pos": [], "neg": {"bm25": [1.5]}}\n', "line 1 is malformed"),
        (b'{"qid": 10, "pos": [], "neg": {"../../x": [101]}}\n', "line 1 names a system"),
        (b'{"qid": 10, "pos": [], "neg": {"a": [101], "A": [102]}}\n', "differ in case only"),
        (b'{"qid": 10, "pos": [], "neg": {"\xff": [101]}}\n', "line 1 is malformed"),
        (b'{"qid": 77, "pos": [], "neg": {"bm25": [101]}}\n', "nothing in it fits the workspace"),
        (b"[" * 100_000, "line 1 is malformed"),
        (b"", "empty file"),
        (b'{"qid": "' + b"x" * LONGEST_LINE_BYTES + b'"}', "line 1 is too long"),
    ],
)
def test_bad_lines_stop_the_import_and_leave_nothing(ws, tmp_path, content, message):
    file = write(tmp_path / "hn.jsonl", content)
    with pytest.raises(InputError, match=message) as error:
        take(ws, file)
    assert str(file) in str(error.value) or "case only" in message
    assert not ws.path("retrieved").exists() and not list(ws.root.glob(".tmp-*"))


def test_a_truncated_archive_is_refused(ws, tmp_path):
    file = write(tmp_path / "hn.jsonl.gz", lines(NEWER * 500))
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(InputError, match="unreadable after line"):
        take(ws, file)


def test_runs_in_both_forms(ws, tmp_path):
    scores = make_scores()
    import_lists(ws, system_source(write_run(tmp_path / "a.run", scores), "run", "a", read_run_rows), ListOptions())
    best = {query: sorted(passages, key=lambda p: (-passages[p], p)) for query, passages in scores.items()}
    assert stored(ws, "a") == best
    short = "".join(f"{q}\t{p}\t{rank}\r\n" for q, passages in best.items() for rank, p in enumerate(passages, 1))
    file = write(tmp_path / "b.tsv.gz", short.encode())
    import_lists(ws, system_source(file, "run", "b", read_run_rows), ListOptions())
    assert stored(ws, "b") == best


def test_top1000_and_triples_of_ids_are_candidates_without_order(ws, tmp_path):
    rows = "".join(f"{q}\t{p}\tquery\tpassage\n" for q, passages in make_scores().items() for p in passages)
    import_lists(ws, system_source(write(tmp_path / "t", rows.encode()), "top1000", "top", read_top1000), ListOptions())
    assert stored(ws, "top") == {query: sorted(passages) for query, passages in make_scores().items()}
    triples = "".join(f"{q}\t{positive(q)}\t{p}\r\n" for q, passages in make_scores().items() for p in passages)
    source = system_source(write(tmp_path / "ids.gz", triples.encode()), "triples", "ids", read_id_triples)
    assert import_lists(ws, source, ListOptions()).counts.not_judged == 0
    assert stored(ws, "ids") == stored(ws, "top")


def test_triples_of_texts_are_matched_by_content(ws, tmp_path):
    from dataclasses import replace

    from pipeline.imports.candidate_files import read_text_triples
    from pipeline.imports.msmarco import import_msmarco

    import_msmarco(ws, write(tmp_path / "more", b"888\tshared\n889\tshared\n"), [], [])
    texts = {int(a): b for a, b in (row.split("\t") for row in (tmp_path / "collection").read_text().splitlines())}
    rows = [
        ("query 10", texts[positive(10)], texts[101]),
        ("query 10", texts[positive(10)], "shared"),
        ("query 11", texts[120], "nowhere to be found"),
        ("no such query", texts[120], texts[101]),
    ]
    file = write(tmp_path / "triples.tsv", "".join("\t".join(row) + "\r\n" for row in rows).encode())
    source = replace(system_source(file, "text triples", "small", read_text_triples), by_text=True)
    counts = import_lists(ws, source, ListOptions()).counts
    assert stored(ws, "small") == {10: [101, 888]}
    assert (counts.unknown_queries, counts.unknown_passages, counts.ambiguous, counts.not_judged) == (1, 1, 1, 1)


def test_status_and_evaluation_know_imported_lists(ws, tmp_path, monkeypatch, capsys):
    from jobs.checks.status import workspace_status
    from jobs.ranking.evaluate import EvaluationSettings, evaluate

    import_lists(
        ws, system_source(write_run(tmp_path / "a.run", make_scores()), "run", "a", read_run_rows), ListOptions()
    )
    (row,) = evaluate(ws, EvaluationSettings(split="train", runs=["a"]))
    assert row.queries == 20 and row.missing_queries == 0
    (stage,) = [stage for stage in workspace_status(ws) if stage.name == "retrieved/a"]
    assert stage.state == "done" and "20 queries, imported from a.run" in stage.detail


def test_a_name_that_differs_from_another_in_case_only_is_refused(ws, tmp_path):
    file = write_run(tmp_path / "s.run", make_scores())
    import_lists(ws, system_source(file, "run", "bm25", read_run_rows), DEFAULT)
    with pytest.raises(WorkspaceError, match="differ in case only"):
        import_lists(ws, system_source(file, "run", "BM25", read_run_rows), DEFAULT)
    assert ws.names("retrieved") == ["bm25"]


@pytest.mark.parametrize(
    ("read", "content", "message"),
    [
        (read_run_rows, "10 110 1\n11 111 1\n", "no rank in its third column"),  # judgements
        (read_run_rows, "10 110 1\n10 111 2\n10 112 1\n", "line 3 has no rank"),
        (read_run_rows, "10 110 0\n10 111 1\n", "line 1 has no rank"),
        (read_run_rows, "10 110 7.5\n10 111 3\n", "line 1 has no rank"),  # scores
        (read_run_rows, "10 110 103\n10 110 104\n", "line 1 has no rank"),  # triples
        (read_run_rows, "10 110 1\n10 110 104\n", "line 2 has no rank"),  # triples
        (read_run_rows, "10 110 -3\n", "line 1 has no rank"),
        (read_run_rows, "10 110 99999999999999999999\n", "line 1 has no rank"),
        (read_run_rows, "query passage rank\n10 110 1\n", "line 1 is a header"),
        (read_id_triples, "10 110 1\n11 111 0\n", "holds no ids of negatives"),  # judgements
        (read_id_triples, "10 110 1\n10 111 2\n10 112 3\n11 110 1\n", "holds no ids"),  # a run
        (read_id_triples, "10 110 9.25\n10 111 103\n", "holds no ids"),  # scores
        (read_id_triples, "qid pos neg\n10 110 103\n", "line 1 is a header"),
        (read_top1000, "10\t0\t110\t1\n", "its query_text are numbers"),  # judgements
        (read_top1000, "qid\tpid\tquery\tpassage\n", "line 1 is a header"),
    ],
)
def test_another_kind_of_file_is_not_read_by_position(ws, tmp_path, read, content, message):
    path = write(tmp_path / "f.tsv", content.encode())
    with pytest.raises(InputError, match=message):
        import_lists(ws, system_source(path, "x", "x", read), DEFAULT)
    if read is read_run_rows:
        with pytest.raises(InputError, match=message):
            runs.read_run(ws, path)
    assert not ws.names("retrieved")


def test_ids_of_negatives_may_be_numbers_of_any_order(ws, tmp_path):
    path = write(tmp_path / "f.tsv", b"10 110 100\n10 110 101\n11 111 102\n")
    assert import_lists(ws, system_source(path, "x", "x", read_id_triples), DEFAULT).systems == {"x": 3}


def test_keys_that_are_not_used_are_named_and_scores_beside_the_lists_refused(ws, tmp_path):
    values = [{"qid": 10, "query": "q", "pos": [{"pid": 110, "ce-score": 1.0}], "neg": {"bm25": [101]}}]
    counts = take(ws, write(tmp_path / "a.jsonl", lines(values))).counts
    assert counts.unused_columns == ["query", "ce-score"] and "query, ce-score" in counts.lines()[-1]
    for name in ("pos_scores", "neg_scores", "label"):
        path = write(tmp_path / f"{name}.jsonl", lines([*NEWER, {**NEWER[0], name: [1.0]}]))
        with pytest.raises(InputError, match=f"line 4: column '{name}' holds"):
            take(ws, path)
