import os
import time

import pytest

from pipeline.errors import PrepError, UsageError, WorkspaceError
from pipeline.storage.published_sets import staged_directory
from pipeline.storage.workspace import Workspace, atomic_write, replace_directory


def test_a_file_appears_whole_or_not_at_all(tmp_path):
    path = tmp_path / "new" / "file"
    with pytest.raises(OSError, match="disk"), atomic_write(path) as stream:
        stream.write(b"half")
        raise OSError("no disk")
    assert list(path.parent.iterdir()) == []
    with atomic_write(path) as stream:
        stream.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole" and len(list(path.parent.iterdir())) == 1


def test_replacing_a_directory_keeps_nothing_of_the_old(tmp_path):
    for name in ("old", "new"):
        (tmp_path / name).mkdir()
        (tmp_path / name / name).touch()
    replace_directory(tmp_path / "new", tmp_path / "old")
    assert [p.name for p in tmp_path.iterdir()] == ["old"] and [p.name for p in (tmp_path / "old").iterdir()] == ["new"]


def test_newer_foreign_and_remote_workspaces_are_refused(tmp_path):
    with pytest.raises(WorkspaceError, match="not a workspace"):
        Workspace.open(str(tmp_path))
    (tmp_path / "other").touch()
    with pytest.raises(WorkspaceError, match="not empty"):
        Workspace.open(str(tmp_path), create=True)
    newer = Workspace.open(str(tmp_path / "ws"), create=True)
    newer.write_json({"schema_version": 99}, "workspace.json")
    with pytest.raises(WorkspaceError, match="newer version") as error:
        Workspace.open(f"file://{tmp_path}/ws")
    assert "99" in str(error.value)
    with pytest.raises(UsageError, match="unknown type of store"):
        Workspace.open("ftp://host/ws")


def test_a_stage_runs_once_at_a_time_and_clears_up_after_a_killed_run(tmp_path):
    workspace = Workspace.open(str(tmp_path / "ws"), create=True)
    left, other = (workspace.path(f".tmp-build-{end}") for end in ("0123456789ab", "2-0123456789ab"))
    left.mkdir()
    other.mkdir()
    with workspace.exclusive("build"):
        assert not left.exists() and other.exists()
        with pytest.raises(WorkspaceError, match="another run"), workspace.exclusive("build"):
            pass
    with workspace.exclusive("build"):
        pass


def test_errors_cross_process_borders():
    import pickle

    error = pickle.loads(pickle.dumps(WorkspaceError("what", where="here", found=3, todo="do")))
    assert isinstance(error, PrepError) and str(error) == "here: what\n  found:    3\n  to do:    do"


KILLED = ("0123456789ab", "0123456789ab-old", "2-0123456789ab", "ba9876543210")
"""Two of the name, one of another, one whose run goes on."""


def test_what_killed_runs_left_beside_a_directory_goes_after_a_day(tmp_path):
    left = [tmp_path / f".tmp-cache[1]-{end}" for end in KILLED]
    for path in left:
        path.mkdir()
        (path / "part").touch()
        two_days_ago = time.time() - 2 * 86_400
        os.utime(path / "part", (two_days_ago, two_days_ago))
        os.utime(path, (two_days_ago, two_days_ago))
    (left[3] / "part").touch()
    with staged_directory(tmp_path / "cache[1]") as staged:
        (staged / "part").touch()
    assert sorted(tmp_path.iterdir()) == sorted([left[2], left[3], tmp_path / "cache[1]"])
