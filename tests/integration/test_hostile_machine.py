"""Disks that are full or may not be written to, clocks that jump: each stage says so, and nothing is lost."""

import os
import shlex
import subprocess
import sys
from contextlib import contextmanager

import pytest

from jobs.checks.status import workspace_status
from jobs.cli import main
from pipeline.storage.workspace import Workspace
from pipeline.tables.parts import read_footers
from tests import worlds
from tests.tiny_models import save_tiny

SETS = ("passages", "queries", "qrels", "retrieved/bm25", "pairs", "scores/t", "triples/default", "lists/default")
MEGABYTES = 64
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning")


def stages(given, location):
    """All commands that write into a workspace, in order."""
    files, tiny = worlds.write_files(given), save_tiny("bert", given / "tiny")
    short = "--max-steps 2 --batch-size 4 --max-length 24 --max-query-length 8 --max-passage-length 16"
    lines = [
        f"import msmarco {worlds.import_options(files)}",
        "mine --system bm25 --k 10 --split train --split dev --processes 1",
        "build-pairs --pairs-per-shard 60",
        f"score --teacher t={tiny} --max-length 24",
        "build-triples --threshold none --processes 1",
        "build-lists --size 4 --processes 1",
        f"train --name student --init {tiny} --loss margin_mse --triples default {short}",
        "encode --student student",
        "evaluate --split dev --run bm25 --student student --depth 10",
        f"export margin -o {location.parent / 'export'}",
    ]
    return [f"{line} -w {location}" for line in lines]


def prep(line):
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(sys, "argv", ["prep", *shlex.split(line)])
        try:
            main()
        except SystemExit as end:
            return end.code or 0
    return 0


def made(location):
    """Contents and recipes of all tables, the weights, and the state of every stage."""
    workspace = Workspace.open(str(location))
    found = {
        name: [(f.fingerprint, f.content) for f in read_footers(workspace.parts(*name.split("/")))] for name in SETS
    }
    found["weights"] = workspace.path("students", "student", "model.safetensors").read_bytes()
    found["export"] = [path.read_bytes() for path in sorted((location.parent / "export").rglob("*.parquet"))]
    return found, [(stage.name, stage.state) for stage in workspace_status(workspace)]


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    directory = tmp_path_factory.mktemp("undisturbed")
    for line in stages(directory, directory / "ws"):
        assert prep(line) == 0
    return made(directory / "ws")


@pytest.fixture
def disk(tmp_path):
    """A small disk of its own."""
    place = tmp_path / "disk"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={MEGABYTES}m", "tmpfs", str(place)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("mounting takes root")
    yield place
    subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def full(disk, left):
    """The disk with so many bytes left."""
    filler = disk / "filler"
    with filler.open("wb") as stream:
        free = os.statvfs(disk).f_bavail * os.statvfs(disk).f_frsize
        os.posix_fallocate(stream.fileno(), 0, free - left)
    yield
    filler.unlink()


@contextmanager
def read_only(disk):
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    yield
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)


def test_a_full_disk_costs_nothing_but_time(disk, tmp_path, undisturbed, capsys):
    stopped = 0
    for line in stages(tmp_path, disk / "ws"):
        for left in (0, 40_000):
            with full(disk, left):
                code = prep(line)
            told = capsys.readouterr().err
            if code == 0 and left:  # as little is enough
                break
            assert "disk is full" in told or "No space left" in told, (line, left, told)
            stopped += 1
        else:
            assert prep(line) == 0, line
    assert made(disk / "ws") == undisturbed and stopped > 12


def test_a_disk_that_may_not_be_written_to_is_told_of(disk, tmp_path, undisturbed, capsys):
    for line in stages(tmp_path, disk / "ws"):
        with read_only(disk):
            assert prep(line) == 1, line
        told = capsys.readouterr().err
        assert "no permission to read or write" in told and str(disk) in told and "Traceback" not in told, (line, told)
        assert prep(line) == 0, line
    assert made(disk / "ws") == undisturbed


def test_clocks_that_jump_change_nothing(tmp_path, undisturbed):
    for number, line in enumerate(stages(tmp_path, tmp_path / "ws")):
        assert prep(line) == 0
        moment = (0, 4_000_000_000)[number % 2]  # 1970 and 2096
        for path in (tmp_path / "ws").rglob("*"):
            os.utime(path, (moment, moment))
    assert made(tmp_path / "ws") == undisturbed
    assert all(prep(line) == 0 for line in stages(tmp_path, tmp_path / "ws") if "export" not in line)
    assert made(tmp_path / "ws") == undisturbed
