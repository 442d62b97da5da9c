"""Directories that replace others: killed at any step, nothing is lost, and the next run goes on."""

import subprocess
import sys

import pytest

from pipeline.storage.published_sets import OLD, current_version, replace_directory, restore, staged_directory
from pipeline.storage.workspace import Workspace

KILLED = """
import os, shutil, sys
from pathlib import Path
from pipeline.storage import atomic_files, published_sets

steps = int(sys.argv[2])

def counted(call):
    def step(*arguments, **options):
        global steps
        steps -= 1
        if steps < 0:
            os._exit(9)
        return call(*arguments, **options)
    return step

for name in ("rename", "replace", "mkdir", "exists"):
    setattr(Path, name, counted(getattr(Path, name)))
shutil.rmtree = counted(shutil.rmtree)
root = Path(sys.argv[1])
{work}
"""
WORKS = {
    "replace": 'published_sets.replace_directory(root / ".tmp-import-0123456789ab" / "set", root / "sets" / "set")',
    "staged": """
with published_sets.staged_directory(root / "sets" / "set", replace=True) as staged:
    (staged / "file").write_text("new")
    (staged / "other").write_text("new")""",
}


def make(directory, text):
    directory.mkdir(parents=True)
    for name in ("file", "other"):
        (directory / name).write_text(text)


def texts(directory):
    return [(directory / name).read_text() for name in ("file", "other")]


@pytest.mark.parametrize("work", WORKS)
def test_killed_at_any_step_the_old_or_the_new_version_is_there(tmp_path, work):
    seen = []
    for steps in range(40):
        root = tmp_path / str(steps)
        root.mkdir()
        workspace = Workspace.open(str(root / "ws"), create=True)
        make(workspace.root / "sets" / "set", "old")
        make(workspace.root / ".tmp-import-0123456789ab" / "set", "new")
        script = KILLED.format(work=WORKS[work])
        ended = subprocess.run([sys.executable, "-c", script, workspace.root, str(steps)], check=False)
        assert ended.returncode in (0, 9)
        seen.append((workspace.root / "sets" / "set").exists())
        if steps % 2:  # whichever way it is read
            assert Workspace.open(str(workspace.root)).names("sets") == ["set"]
        found = texts(workspace.current_path("sets", "set"))
        assert found in (["old", "old"], ["new", "new"])
        with staged_directory(workspace.root / "sets" / "set", replace=True) as staged:
            for name in ("file", "other"):
                (staged / name).write_text("next")
        assert texts(workspace.current_path("sets", "set")) == ["next", "next"]
        assert not list((workspace.root / "sets").glob(f"{OLD}*"))
        if ended.returncode == 0:
            break
    assert ended.returncode == 0 and not all(seen)  # a kill between the renames was among them


def test_an_error_between_the_renames_gives_the_old_version_back(tmp_path):
    make(tmp_path / "set", "old")
    with pytest.raises(FileNotFoundError):
        replace_directory(tmp_path / "missing", tmp_path / "set")
    assert texts(tmp_path / "set") == ["old", "old"] and [path.name for path in tmp_path.iterdir()] == ["set"]


def test_a_reader_that_restores_in_between_does_not_stop_the_writer(tmp_path, monkeypatch):
    make(tmp_path / "set", "old")
    make(tmp_path / "staged", "new")
    rename, reads = type(tmp_path).rename, []

    def watched(path, target):
        made = rename(path, target)
        if target.name.startswith(OLD) and len(reads) < 2:
            reads.append(texts(current_version(tmp_path / "set")))
        return made

    monkeypatch.setattr(type(tmp_path), "rename", watched)
    replace_directory(tmp_path / "staged", tmp_path / "set")
    assert reads == [["old", "old"]] * 2 and texts(tmp_path / "set") == ["new", "new"]
    assert [path.name for path in tmp_path.iterdir()] == ["set"]


def test_an_old_version_never_takes_the_place_of_a_new_one(tmp_path):
    make(tmp_path / f"{OLD}set", "old")
    make(tmp_path / "set", "new")
    restore(tmp_path / "set")
    assert texts(tmp_path / "set") == ["new", "new"]
