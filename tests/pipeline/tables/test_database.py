import re
import shutil
from pathlib import Path

import pytest

from pipeline.errors import UsageError
from pipeline.tables.database import connect, memory_bytes, single_row, threads_for_memory, view_parquet
from pipeline.triples.build import TripleSettings, build_triples
from tests import worlds


@pytest.mark.parametrize(
    ("text", "bytes_"), [("500MB", 500_000_000), ("1.5 gb", 1_500_000_000), ("2GiB", 2 << 30), ("1KB", 1000)]
)
def test_amounts_of_memory(text, bytes_):
    assert memory_bytes(text) == bytes_


@pytest.mark.parametrize("text", ["", "2", "GB", "-1GB", "80%", "1GB; DROP"])
def test_no_amount(text):
    with pytest.raises(UsageError):
        memory_bytes(text)


def test_no_more_threads_than_the_memory_feeds(tmp_path, monkeypatch):
    monkeypatch.setattr("os.cpu_count", lambda: 64)
    assert [threads_for_memory(64, limit) for limit in ("1MB", "128MB", "1GB", "10GB")] == [1, 2, 15, 64]
    for given, threads in ((None, 2), (5, 5)):
        with connect(tmp_path, memory_limit="128MB", threads=given) as connection:
            assert single_row(connection, "SELECT current_setting('threads')") == (threads,)


@pytest.mark.parametrize(
    "folder", ["query_id=5/passage_id=7/x=1", "grade=3/rank=2/splits=dev/text=t", "a*b", "a?b[c]", "it's {x}"]
)
def test_the_name_of_a_directory_changes_no_row(tmp_path, folder):
    """Hive partitioning would read columns out of the name, and a pattern would match the directory beside it."""
    made = []
    for directory in (tmp_path / "plain", tmp_path / folder):
        directory.mkdir(parents=True)
        workspace = worlds.scored(worlds.paired(worlds.imported(directory)), {"a": 1})
        beside = Path(re.sub(r"[*?]", "x", str(directory)))
        if beside != directory:
            shutil.copytree(directory, beside)
        build_triples(workspace, TripleSettings(None), name="all")
        with connect(tmp_path) as connection:
            for table in (["triples", "all"], ["queries"]):
                view_parquet(connection, table[0], workspace.parts(*table))
                made.append(connection.sql(f"FROM {table[0]} ORDER BY ALL").fetchall())
    assert made[:2] == made[2:] and len(made[0]) > worlds.TRAIN


def test_files_are_read_in_one_function_alone():
    """SQL and Python that name a reader of files elsewhere would guess partitions and patterns again."""
    calls = r"read_(parquet|csv)\w*\(|(duckdb|connection)\.read_json|read_json_auto|(parquet_scan|read_table)\("
    readers = re.compile(calls + r"|pyarrow\.dataset|FROM '\S*\.(parquet|csv|json)")
    root = Path(__file__).parents[3]
    files = [path for room in ("pipeline", "jobs", "teachers", "students") for path in (root / room).rglob("*")]
    found = [
        (path.name, line.strip())
        for path in files
        if path.suffix in (".py", ".sql")
        for line in path.read_text().splitlines()
        if readers.search(line)
    ]
    assert [name for name, _ in found] == ["database.py"] and "hive_partitioning=False" in found[0][1]
