import gzip

import pyarrow as pa
import pytest

from pipeline.errors import InputError
from pipeline.tables.delimited import read_fields, read_tsv


def rows(read, path, columns):
    return [tuple(row.values()) for row in pa.Table.from_batches(list(read(path, columns))).to_pylist()]


@pytest.mark.parametrize("pack", [lambda b: b, gzip.compress])
def test_text_is_taken_as_it_stands(tmp_path, pack):
    path = tmp_path / ("f.tsv.gz" if pack is gzip.compress else "f.tsv")
    path.write_bytes(pack("0\t\"quoted, 'text\\\n7\t\nx\té ü\r\n".encode()))
    assert rows(read_tsv, path, ["id", "text"]) == [
        ("0", "\"quoted, 'text\\", 1),
        ("7", "", 2),
        ("x", "é ü", 3),
    ]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty file"),
        (b"0\ta\n1\n", "line 2 is malformed"),
        (b"0\ta\n1\tb\tc\n", "line 2 is malformed"),
        (b"0\ta\n1\t\xff\xfe\n", "line 2 is malformed"),
        (b"0\ta\n1\tlone\rreturn\n", "line 3 is malformed"),
    ],
)
def test_a_bad_file_is_named_with_its_line(tmp_path, content, message):
    path = tmp_path / "f.tsv"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message) as error:
        rows(read_tsv, path, ["id", "text"])
    assert str(path) in str(error.value)


def test_a_late_bad_line_is_counted_from_the_start(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.tables.delimited.BLOCK_BYTES", 1 << 12)
    path = tmp_path / "f.tsv"
    path.write_text("".join(f"{i}\ttext\n" for i in range(5000)) + "5000\n")
    with pytest.raises(InputError, match="line 5001 is malformed"):
        rows(read_tsv, path, ["id", "text"])


def test_fields_by_tabs_or_spaces(tmp_path):
    path = tmp_path / "qrels"
    path.write_text("1 Q0 5 2\n1\t0\t7\t1\n 3   0  4  -1 \r\n")
    found = rows(read_fields, path, ["q", "i", "p", "g"])
    assert found == [("1", "Q0", "5", "2", 1), ("1", "0", "7", "1", 2), ("3", "0", "4", "-1", 3)]
    path.write_text("1 0 5 2\n\n")
    with pytest.raises(InputError, match="line 2 is malformed"):
        rows(read_fields, path, ["q", "i", "p", "g"])


@pytest.mark.parametrize(
    "header", ["id\ttext", "pid\tpassage", "passage_id\ttext", "QID\tQuery", "_id\tTitle", "query-id\tcorpus-id"]
)
def test_a_header_is_no_row(tmp_path, header):
    path = tmp_path / "f.tsv"
    path.write_text(f"{header}\n7\tthe heart\n")
    with pytest.raises(InputError, match="line 1 is a header"):
        rows(read_tsv, path, ["id", "text"])
    assert rows(lambda path, names: read_tsv(path, names, header.split("\t")), path, ["i", "t"]) == [
        ("7", "the heart", 2)
    ]


@pytest.mark.parametrize("first", ["p1\ttext", "id\tthe heart", "7\tquery", "q\td"])
def test_a_row_is_no_header(tmp_path, first):
    path = tmp_path / "f.tsv"
    path.write_text(f"{first}\n")
    assert rows(read_tsv, path, ["id", "text"]) == [(*first.split("\t"), 1)]
