import pytest

from pipeline.errors import UsageError
from pipeline.tables.database import connect, memory_bytes, single_row, threads_for_memory


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
