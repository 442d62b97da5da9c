import bz2
import gzip
import io
import lzma
import pickle
import tarfile
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.errors import InputError
from pipeline.tables import delimited
from pipeline.tables.compression import DAMAGED, open_binary
from pipeline.tables.delimited import read_tsv
from pipeline.tables.json_lines import read_values


def zstd(content: bytes) -> bytes:
    sink = pa.BufferOutputStream()
    with pa.CompressedOutputStream(sink, "zstd") as stream:
        stream.write(content)
    return sink.getvalue().to_pybytes()


PACK = {"gzip": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zstd": zstd, "plain": bytes}
NUMBERS = range(20_000)
LINES = "".join(f"{number}\n" for number in NUMBERS).encode()


def read_both(path):
    """The first column as text and the values as JSON, by the two readers of text files."""
    texts = [text for batch in read_tsv(path, ["id"]) for text in batch.column("id").to_pylist()]
    return texts, [value for _, value in read_values(path)]


@pytest.mark.parametrize("name", ["f", "f.gz", "f.tsv.xz"])
@pytest.mark.parametrize("pack", PACK.values(), ids=PACK)
def test_content_decides_and_every_member_is_read(tmp_path, pack, name):
    path = tmp_path / name
    cut = LINES.index(b"\n7777\n") + 3  # within a line
    path.write_bytes(pack(LINES[:cut]) + pack(LINES[cut:]))
    assert read_both(path) == ([str(number) for number in NUMBERS], list(NUMBERS))


# Arrow writes Zstandard without a checksum, so that a changed byte cannot be seen.
DAMAGES = [
    (kind, damage)
    for kind in ("gzip", "bz2", "xz", "zstd")
    for damage in ("cut", "cut inside a second member", "bytes after it", "changed")
    if (kind, damage) != ("zstd", "changed")
]


@pytest.mark.parametrize(("kind", "damage"), DAMAGES)
def test_a_damaged_file_is_an_error(tmp_path, kind, damage):
    packed = PACK[kind](LINES)
    middle = len(packed) // 2
    content = {
        "cut": packed[:-3],
        "cut inside a second member": packed + PACK[kind](b"1\n")[:-3],
        "bytes after it": packed + b"20000\n20001\n",
        "changed": packed[:middle] + bytes([packed[middle] ^ 255]) + packed[middle + 1 :],
    }[damage]
    path = tmp_path / "f"
    path.write_bytes(content)
    for read in (lambda: list(read_tsv(path, ["id"])), lambda: list(read_values(path))):
        with pytest.raises(InputError, match=r"unreadable|malformed"):
            read()
    with pytest.raises(DAMAGED), open_binary(path) as stream:
        stream.read()


def archive(kind: str) -> bytes:
    buffer = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(buffer, "w") as packed:
            packed.writestr("f.tsv", LINES)
    else:
        with tarfile.open(fileobj=buffer, mode="w") as packed:
            packed.addfile(tarfile.TarInfo("f.tsv"))
    return buffer.getvalue()


def parquet() -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table({"a": [1]}), buffer)
    return buffer.getvalue()


FOREIGN = {
    "a zip archive": archive("zip"),
    "a tar archive": gzip.compress(archive("tar")),
    "an lz4 file": b"\x04\x22\x4d\x18" + LINES,
    "compressed twice, with gzip inside": bz2.compress(gzip.compress(LINES)),
    "text in UTF-16": LINES.decode().encode("utf-16"),
    "a Parquet file": parquet(),
    "a pickle": pickle.dumps({1: {2: 3.0}}),
    "a file of Unix compress": b"\x1f\x9d\x90",
}


@pytest.mark.parametrize("what", FOREIGN)
def test_other_formats_are_refused_by_name(tmp_path, what):
    path = tmp_path / "f.tsv"
    path.write_bytes(FOREIGN[what])
    for read in (lambda: list(read_tsv(path, ["id"])), lambda: list(read_values(path))):
        with pytest.raises(InputError, match=f"it is {what}"):
            read()


def test_files_end_in_the_same_row_whatever_the_block(tmp_path, monkeypatch):
    monkeypatch.setattr(delimited, "BLOCK_BYTES", 1 << 10)
    path = tmp_path / "f"
    path.write_bytes(lzma.compress(LINES))
    assert read_both(path)[0] == [str(number) for number in NUMBERS]


def test_a_mark_of_byte_order_is_no_part_of_an_id(tmp_path):
    path = tmp_path / "f"
    path.write_bytes(b"\xef\xbb\xbf7\r\n8\r\n")
    assert read_both(path) == (["7", "8"], [7, 8])
