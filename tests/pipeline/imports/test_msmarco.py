import gzip
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest

from pipeline import schemas
from pipeline.collection.external_ids import ExternalIds
from pipeline.errors import InputError, WorkspaceError
from pipeline.evaluation.runs import rank_rows, read_run, write_run
from pipeline.imports.msmarco import import_msmarco
from pipeline.storage.workspace import Workspace
from pipeline.tables.parts import footer_of, write_part


@pytest.fixture
def empty(tmp_path) -> Workspace:
    return Workspace.open(str(tmp_path / "ws"), create=True)


def write(directory: Path, name: str, text: str) -> Path:
    path = directory / name
    path.write_bytes(gzip.compress(text.encode()) if name.endswith(".gz") else text.encode())
    return path


def table(workspace: Workspace, name: str, columns: str = "*"):
    return duckdb.sql(f"SELECT {columns} FROM '{workspace.path(name)}/*.parquet' ORDER BY ALL").fetchall()


def files(directory: Path):
    return (
        write(directory, "c.tsv.gz", "p0\tzero\np1\tone\np2\ttwo\n"),
        [
            ("train", write(directory, "t.tsv", "10\ta\n20\tb\n")),
            ("dev", write(directory, "d.tsv", "20\tb\n30\tc\n")),
        ],
        [
            ("train", write(directory, "q.tsv", "10\t0\tp1\t1\n")),
            ("dev", write(directory, "trec.txt", "30 Q0 p2 3\n20 Q0 p0 0\n")),
        ],
    )


def test_ids_are_row_numbers_and_splits_overlap(empty, tmp_path):
    added = import_msmarco(empty, *files(tmp_path))
    assert (added.passages, added.queries, added.qrels) == (3, 3, 3)
    assert table(empty, "passages", "passage_id, external_id, text") == [
        (0, "p0", "zero"),
        (1, "p1", "one"),
        (2, "p2", "two"),
    ]
    assert table(empty, "queries", "query_id, external_id, text, splits") == [
        (0, "10", "a", ["train"]), (1, "20", "b", ["dev", "train"]), (2, "30", "c", ["dev"]),
    ]  # fmt: skip
    assert table(empty, "qrels") == [(0, 1, 1), (1, 0, 0), (2, 2, 3)]
    (same,) = duckdb.sql(
        f"SELECT bool_and(text_hash = md5_number_lower(text)) FROM '{empty.path('passages')}/*.parquet'"
    ).fetchall()
    assert same == (True,)


def test_a_second_import_adds_and_never_renumbers(empty, tmp_path):
    first = files(tmp_path)
    import_msmarco(empty, *first)
    before = {p: p.read_bytes() for p in empty.root.rglob("*.parquet")}
    assert import_msmarco(empty, *first).unchanged
    more = write(tmp_path, "c2.tsv", "p9\tnine\np1\tone\np8\teight\np9\tnine\n")
    added = import_msmarco(
        empty,
        more,
        [("extra", write(tmp_path, "e.tsv", "5\te\n10\ta\n"))],
        [("extra", write(tmp_path, "qe", "5 0 p8 2\n"))],
    )
    assert (added.passages, added.repeated_lines, added.queries, added.qrels) == (2, 2, 1, 1)
    assert table(empty, "passages", "passage_id, external_id")[3:] == [(3, "p9"), (4, "p8")]
    assert table(empty, "queries", "query_id, splits") == [
        (0, ["extra", "train"]),
        (1, ["dev", "train"]),
        (2, ["dev"]),
        (3, ["extra"]),
    ]
    assert (3, 4, 2) in table(empty, "qrels")
    first_part = empty.path("passages", "part-00000.parquet")
    assert first_part.read_bytes() == before[first_part]


BAD_IDS = [
    (table, name) for table in ("collection", "queries") for name in ("7 ", " 7", "a b", "a\xa0b", "a\u3000", "a\0b")
]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("collection", "p0\tzero\np0\tother\n", "line 2 gives passage p0 a second text"),
        ("collection", "p0\tzero\n\tno id\n", "line 2 has an empty id"),
        ("collection", "p0\tzero\textra\n", "line 1 is malformed"),
        ("collection", "pid\tpassage\np0\tzero\n", "line 1 is a header"),
        *((table, f"{name}\ttext\n", "line 1 has an id with white space") for table, name in BAD_IDS),
        ("queries", "10\ta\n10\tb\n", "line 2 gives query 10 a second text"),
        ("queries", "", "empty file"),
        ("qrels", "10 0 p7 1\n", "line 1 names an unknown passage"),
        ("qrels", "10 0 p1 1\n77 0 p1 1\n", "line 2 names an unknown query"),
        ("qrels", "30 0 p1 1\n", "line 1 judges a query that is not in the split"),
        ("qrels", "10 0 p1 high\n", "line 1 has a bad grade"),
        ("qrels", "10 0 p1 1\n10 0 p2 0.5\n", "line 2 has a bad grade"),
        ("qrels", "10 0 p1 128\n", "line 1 has a bad grade"),
        ("qrels", "10 0 p1 1\n10 0 p1 2\n", "judges query 10 and passage p1 twice"),
        ("qrels", "10 0 p1\n", "line 1 is malformed"),
    ],
)
def test_bad_input_is_refused_and_leaves_nothing(empty, tmp_path, name, content, message):
    collection, queries, qrels = files(tmp_path)
    bad = write(tmp_path, "bad", content)
    collection = bad if name == "collection" else collection
    queries = [("train", bad), queries[1]] if name == "queries" else queries
    qrels = [("train", bad)] if name == "qrels" else qrels
    with pytest.raises(InputError, match=message) as error:
        import_msmarco(empty, collection, queries, qrels)
    assert str(bad) in str(error.value)
    assert [p.name for p in empty.root.rglob("*") if not p.name.startswith(".lock")] == ["workspace.json"]


def test_a_text_that_contradicts_the_workspace_is_refused(empty, tmp_path):
    import_msmarco(empty, *files(tmp_path))
    with pytest.raises(InputError, match="line 2 gives passage p1 a second text") as error:
        import_msmarco(empty, write(tmp_path, "c2", "p8\teight\np1\tuno\n"), [], [])
    assert "in the workspace" in str(error.value)
    with pytest.raises(InputError, match="query 10 a second text"):
        import_msmarco(empty, None, [("train", write(tmp_path, "t2", "10\tA\n"))], [])
    with pytest.raises(InputError, match="grades 1 and 2"):
        import_msmarco(empty, None, [], [("train", write(tmp_path, "q2", "10 0 p1 2\n"))])


def test_a_grade_may_be_written_with_a_fraction_of_nothing(empty, tmp_path):
    collection, queries, _ = files(tmp_path)
    import_msmarco(empty, collection, queries, [("train", write(tmp_path, "q", "10 0 p1 2.0\n20 0 p1 -1\n"))])
    assert table(empty, "qrels") == [(0, 1, 2), (1, 1, -1)]


def test_queries_need_a_collection(empty, tmp_path):
    with pytest.raises(WorkspaceError, match="no passages yet"):
        import_msmarco(empty, None, files(tmp_path)[1], [])


def test_an_import_cut_short_between_renames_is_finished_by_the_next(empty, tmp_path):
    import_msmarco(empty, files(tmp_path)[0], [], [])
    added = import_msmarco(empty, *files(tmp_path))
    assert (added.passages, added.queries, added.qrels) == (0, 3, 3)


def test_parts_are_cut_by_rows(empty, tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.collection.importing.PASSAGES_PER_PART", 40)
    monkeypatch.setattr("pipeline.tables.delimited.BLOCK_BYTES", 1 << 9)
    lines = [f"{i}\ttext {i}\n" for i in range(100)]
    lines.insert(50, lines[3])
    import_msmarco(empty, write(tmp_path, "c", "".join(lines)), [], [])
    counts = [duckdb.sql(f"SELECT count(*) FROM '{p}'").fetchall()[0][0] for p in empty.parts("passages")]
    assert counts == [40, 40, 20]
    assert table(empty, "passages", "passage_id, external_id, text") == [(i, str(i), f"text {i}") for i in range(100)]


def test_ids_are_strings_as_they_are_written(empty, tmp_path):
    names = [
        "7",
        "007",
        "7.0",
        "+7",
        "-0",
        "1e5",
        str(2**53 + 1),
        str(2**64),
        "NA",
        "null",
        "true",
        '"7"',
        "é",
        "#",
        "a\u200cb",
    ]
    rows = "".join(f"{name}\ttext of {name}\n" for name in names)
    qrels = "".join(f"{name} 0 {name} 1\n" for name in names)
    import_msmarco(
        empty, write(tmp_path, "c", rows), [("t", write(tmp_path, "q", rows))], [("t", write(tmp_path, "r", qrels))]
    )
    for kind in ("passages", "queries"):
        found = table(empty, kind, "external_id, text")
        assert sorted(found) == sorted((name, f"text of {name}") for name in names)
    judged = duckdb.sql(
        f"SELECT q.external_id, p.external_id FROM '{empty.path('qrels')}/*.parquet' "
        f"JOIN '{empty.path('queries')}/*.parquet' q USING (query_id) "
        f"JOIN '{empty.path('passages')}/*.parquet' p USING (passage_id)"
    ).fetchall()
    assert sorted(judged) == sorted((name, name) for name in names)
    numbers = ExternalIds(empty, "passages").find(pa.array(names))
    assert numbers.tolist() == list(range(len(names)))
    run = rank_rows(numbers, numbers, np.ones(len(names), np.float32))
    assert read_run(empty, write_run(empty, "r", run)).passage_id.tolist() == sorted(numbers)


def test_an_older_workspace_with_white_space_in_ids_writes_no_run(empty, tmp_path):
    import_msmarco(empty, *files(tmp_path))
    with duckdb.connect() as connection:
        path = empty.parts("passages")[0]
        rows = connection.sql(f"SELECT * REPLACE (replace(external_id, 'p1', 'p 1') AS external_id) FROM '{path}'")
        batches = rows.to_arrow_table().to_batches()
    write_part(path, batches, schemas.PASSAGES, footer_of(path).recipe)
    zero = np.zeros(1, np.int32)
    write_run(empty, "r", rank_rows(zero, zero, np.ones(1)))
    with pytest.raises(WorkspaceError, match="the passages have an id with white space"):
        write_run(empty, "r", rank_rows(zero, zero + 1, np.ones(1)))
    # Its other rows can still be added to.
    added = import_msmarco(empty, write(tmp_path, "c3", "p 1\tone\np3\tthree\n"), [], [])
    assert added.passages == 1
