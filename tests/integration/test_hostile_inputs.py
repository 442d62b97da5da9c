"""Hostile and broken input files: each is refused with a message, and leaves the workspace as it was.

The table `HOSTILE` lists files made by hand; the tests after it cut and change the bytes of sound files at random.
"""

import gzip
import os
import pickle
import shutil
import struct
import zlib
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from jobs.checks.verify import verify
from pipeline.errors import PrepError
from pipeline.imports.msmarco import import_msmarco
from pipeline.imports.scores import ScoreOptions, import_scores
from pipeline.storage.workspace import Workspace
from tests import published_files
from tests.jobs.test_cli import prep

GZIP = b"\x1f\x8b"
BOMB = gzip.compress(b"0" * 50_000_000)
DEEP = b"[" * 200_000


class Runs:
    """Makes a file if it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def parquet(**columns) -> bytes:
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns), sink)
    return sink.getvalue().to_pybytes()


COLLECTION = "import msmarco --collection {file}"
QUERIES = "import msmarco --queries more={file}"
QRELS = "import msmarco --qrels train={file}"
SCORES = "import scores {file} --teacher t --as-pairs --form "
LISTS = "import hard-negatives {file}"
RUN = "import run {file} --system s"
TOP1000 = "import top1000 {file} --system s"
TRIPLES = "import triples {file} --system s"

HOSTILE = {
    "collection: no tab": (COLLECTION, b"p1 text\n", "2 tab-separated fields"),
    "collection: three columns": (COLLECTION, b"p900\ttext\tmore\n", "got 3"),
    "collection: an empty id": (COLLECTION, b"\ttext\n", "empty id"),
    "collection: one id, two texts": (COLLECTION, b"p900\tone\np900\ttwo\n", "a second text"),
    "collection: bytes that are no UTF-8": (COLLECTION, b"p900\t\xff\xfe\n", "invalid UTF8"),
    "collection: a NUL in the id": (COLLECTION, b"p9\x0000\n", "line 1 is malformed"),
    "collection: gzip cut short": (COLLECTION, gzip.compress(b"p900\ttext\n" * 999)[:-9], "Truncated compressed"),
    "collection: a gzip header alone": (COLLECTION, b"\x1f\x8b\x08", "Truncated compressed"),
    "collection: an image": (COLLECTION, b"\x89PNG\r\n\x1a\n" + bytes(range(256)), "line 1 is malformed"),
    "collection: words for a terminal": (COLLECTION, b"\x1b]0;owned\x07\x1b[2J\n", "line 1 is malformed"),
    "queries: one id, two texts": (QUERIES, b"q900\tone\nq900\ttwo\n", "a second text"),
    "queries: another text for a known id": (QUERIES, b"10\tanother\n", "a second text"),
    "queries: a split that is a path": (
        "import msmarco --queries ../up={file}",
        b"q900\tone\n",
        "bad name for a split",
    ),
    "qrels: an unknown query": (QRELS, b"q900\t0\t100\t1\n", "unknown query"),
    "qrels: an unknown passage": (QRELS, b"10\t0\tp900\t1\n", "unknown passage"),
    "qrels: a grade in words": (QRELS, b"10\t0\t100\thigh\n", "a bad grade"),
    "qrels: a grade beyond int8": (QRELS, b"10\t0\t100\t1000\n", "a bad grade"),
    "qrels: two grades for a pair": (QRELS, b"10\t0\t101\t1\n10\t0\t101\t2\n", "one grade for a pair"),
    "qrels: three columns": (QRELS, b"10\t100\t1\n", "4 fields"),
    "scores: a pickle that runs a command": (SCORES + "pickle", "runs", "a class or function"),
    "scores: a pickle of a class": (SCORES + "pickle", pickle.dumps({10: {100: np.float32(1)}}), "a class or function"),
    "scores: a pickle cut short": (SCORES + "pickle", pickle.dumps({10: {100: 1.0}})[:-3], "the end of the file"),
    "scores: a pickle of a list": (SCORES + "pickle", pickle.dumps([1, 2]), "the opcode EMPTY_LIST"),
    "scores: a pickle of NaN": (SCORES + "pickle", pickle.dumps({10: {100: float("nan")}}), "no finite float32"),
    "scores: a pickle that asks for 4 GB": (
        SCORES + "pickle",
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 32) + b"x.",
        "a value of 4294967296 bytes",
    ),
    "scores: a pickle within itself": (SCORES + "pickle", b"\x80\x04}\x94K\x0ah\x00s.", "a dict used twice"),
    "scores: a kd line of four fields": (SCORES + "kd", b"1.0\t2.0\t10\t100\n", "5 tab-separated fields"),
    "scores: a kd line of words": (SCORES + "kd", b"high\tlow\t10\t100\t101\n", "a bad positive_score"),
    "scores: infinity in kd": (SCORES + "kd", b"inf\t2.0\t10\t100\t101\n", "no finite float32"),
    "scores: JSON too deep": (SCORES + "colbert", DEEP, "recursion depth"),
    "scores: a number beyond all floats": (SCORES + "colbert", b"[10, [100, 1e999]]\n", "no finite float32"),
    "scores: an object where a list belongs": (SCORES + "colbert", b'{"10": 1}\n', "[query, [passage, score], …]"),
    "scores: a run without scores": (SCORES + "run", b"10 Q0 100 1 high tag\n", "a bad score"),
    "scores: Parquet cut short": (
        SCORES + "parquet",
        parquet(query_id=["10"], passage_id=["100"], score=[1.0])[:-20],
        "unreadable Parquet file",
    ),
    "scores: Parquet of other columns": (SCORES + "parquet", parquet(a=[1], b=[2]), "not a table of scores"),
    "scores: Parquet of words": (
        SCORES + "parquet",
        parquet(query_id=["10"], passage_id=["100"], score=["high"]),
        "wrong types",
    ),
    "scores: a teacher that is a path": (
        "import scores {file} --teacher ../../t --as-pairs --form kd",
        b"1\t2\t10\t100\t101\n",
        "bad name for a teacher",
    ),
    "lists: text": (LISTS, b"no json\n", "a JSON value"),
    "lists: a bare number": (LISTS, b"10\n", "a JSON object"),
    "lists: no query": (LISTS, b'{"pos": [100], "neg": {"bm25": [101]}}\n', "line 1 is malformed"),
    "lists: a system that is a path": (
        LISTS,
        b'{"qid": 10, "pos": [100], "neg": {"../../up": [101]}}\n',
        "cannot be a file's name",
    ),
    "lists: a passage that is an object": (
        LISTS,
        b'{"qid": 10, "pos": [100], "neg": {"bm25": [{}]}}\n',
        "a passage id",
    ),
    "lists: JSON too deep": (LISTS, b'{"qid": ' + DEEP, "recursion depth"),
    "lists: one line without end, zipped": (LISTS, BOMB, "line 1 is too long"),
    "lists: half a character": (
        LISTS,
        b'{"qid": 10, "pos": ["\\ud800"], "neg": {"bm25": [101]}}\n',
        "a JSON value in UTF-8",
    ),
    "run: NaN": (RUN, b"10 Q0 100 1 nan tag\n", "no finite float32"),
    "run: four columns": (RUN, b"10 100 1 1.0\n", "6 fields"),
    "run: a system that is a path": (
        "import run {file} --system ../s",
        b"10 Q0 100 1 1.0 tag\n",
        "bad name for a system",
    ),
    "top1000: two columns": (TOP1000, b"10\t100\n", "4 tab-separated fields"),
    "triples: two columns": (TRIPLES, b"10\t100\n", "3 fields"),
    "triples: nothing": (TRIPLES, b"", "empty file"),
    "a run to evaluate, of unknown ids": (
        "evaluate --split train --run {file}",
        b"q900 Q0 p900 1 1.0 tag\n",
        "unknown query",
    ),
    "a run to evaluate, of text": ("evaluate --split train --run {file}", b"hello\n", "6 fields"),
    "an experiment that is no TOML": ("experiment {file}", b"[[[[", "a TOML file"),
    "an experiment of unknown keys": ("experiment {file}", b"[workspace]\nrun = 'rm -rf'\n", "unknown keys"),
}


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    return published_files.workspace_of_numbers(tmp_path_factory.mktemp("hostile"))


def state(workspace) -> dict[str, int]:
    """Checksums of all files of a workspace but locks and run summaries."""
    files = (path for path in workspace.root.rglob("*") if path.is_file() and not path.name.startswith(".lock"))
    kept = (path for path in files if "summaries" not in path.parts)
    return {str(path.relative_to(workspace.root)): zlib.crc32(path.read_bytes()) for path in kept}


def command(typed: str, file: Path, workspace) -> list[str]:
    return [word.replace("{file}", str(file)) for word in typed.split()] + ["-w", str(workspace.root)]


def test_the_table_is_long_enough():
    assert len(HOSTILE) >= 50


@pytest.mark.parametrize("what", HOSTILE)
def test_is_refused_and_leaves_nothing(world, monkeypatch, capsys, tmp_path, what):
    typed, content, message = HOSTILE[what]
    file, trace = tmp_path / ("given.gz" if content[:2] == GZIP else "given"), tmp_path / "was-run"
    file.write_bytes(pickle.dumps(Runs(trace)) if content == "runs" else content)
    before, beside = state(world), sorted(world.root.parent.iterdir())
    code, _, error = prep(monkeypatch, capsys, *command(typed, file, world))
    assert code in (1, 2) and message in error and "report it" not in error, error
    assert len(error) < 2_000 and all(character.isprintable() or character == "\n" for character in error)
    assert state(world) == before and sorted(world.root.parent.iterdir()) == beside and not trace.exists()


def read_as(form: str, workspace, path: Path) -> None:
    """Import a file in a format."""
    if form in published_files.WRITERS:
        import_scores(workspace, path, "t", ScoreOptions(form, as_pairs=True))
    elif form == "collection":
        import_msmarco(workspace, path, [], [])
    else:
        import_msmarco(workspace, None, [("train", path)] if form == "queries" else [], [("train", path)])


def sound(form: str, directory: Path) -> Path:
    """Write a valid file in a format."""
    if form in published_files.WRITERS:
        write, name = published_files.WRITERS[form]
        return write(directory / name, published_files.make_scores())
    lines = {"collection": "p{}\tsome text\n", "queries": "q{}\tsome text\n", "qrels": "10\t0\t{}\t1\n"}[form]
    path = directory / form
    path.write_text("".join(lines.format(number) for number in range(101, 140)))
    return path


FORMS = ["collection", "queries", "qrels", *published_files.WRITERS]
DAMAGE = st.lists(
    st.tuples(
        st.sampled_from(["cut", "change", "insert", "drop", "repeat"]),
        st.floats(0, 1, exclude_max=True),
        st.sampled_from([b"\x00", b"\xff", b"\n", b"\r", b"\t", b'"', b"-", b"9", b"[", b"}", b".", b"\xed\xa0\x80"])
        | st.binary(min_size=1, max_size=4),
    ),
    min_size=1,
    max_size=4,
)


FEW_EXAMPLES = settings(
    max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)


def damaged(content: bytes, damage) -> bytes:
    for kind, share, more in damage:
        at = int(share * len(content))
        rest = {"cut": b"", "change": more + content[at + len(more) :], "insert": more + content[at:]}
        rest |= {"drop": content[at + len(more) :], "repeat": content[at // 2 :]}
        content = content[:at] + rest[kind]
    return content


@pytest.mark.parametrize("form", FORMS)
@FEW_EXAMPLES
@given(damage=DAMAGE)
def test_a_damaged_file_is_read_or_refused(world, tmp_path_factory, form, damage):
    directory = tmp_path_factory.mktemp("damaged")
    workspace = Workspace.open(str(shutil.copytree(world.root, directory / "ws")))
    path = sound(form, directory)
    packed = path.suffix == ".gz" and damage[0][1] < 0.5  # half of them are damaged under their packing
    content = damaged(gzip.decompress(path.read_bytes()) if packed else path.read_bytes(), damage)
    path.write_bytes(gzip.compress(content, 1) if packed else content)
    before = state(workspace)
    try:
        read_as(form, workspace, path)
    except PrepError:
        assert state(workspace) == before
    shutil.rmtree(directory)


@FEW_EXAMPLES
@given(damage=DAMAGE, number=st.integers(0, 99))
def test_a_damaged_workspace_is_reported(world, tmp_path_factory, damage, number):
    directory = tmp_path_factory.mktemp("damaged")
    workspace = Workspace.open(str(shutil.copytree(world.root, directory / "ws")))
    files = sorted(path for path in workspace.root.rglob("*.*") if path.suffix in (".parquet", ".json"))
    path = files[number % len(files)]
    rows = pq.read_table(path) if path.suffix == ".parquet" else None
    path.write_bytes(damaged(path.read_bytes(), damage))
    try:
        problems = verify(Workspace.open(str(workspace.root)), sample=0).problems
        assert problems or rows is None or rows.equals(pq.read_table(path))
    except PrepError as error:
        assert str(path) in str(error)
    shutil.rmtree(directory)
