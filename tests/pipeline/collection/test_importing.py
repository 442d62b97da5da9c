"""Imports that were killed, or whose tables lost files since: nothing is lost, and the next import completes it."""

import json
import shutil
import subprocess
import sys

import pytest

from pipeline.collection.hold_out import hold_out
from pipeline.errors import WorkspaceError
from pipeline.imports.hard_negatives import read_lists
from pipeline.imports.lists import ListOptions, file_source, import_lists
from pipeline.imports.msmarco import import_msmarco
from pipeline.storage.workspace import MANIFEST, Workspace
from pipeline.tables.parts import content_fingerprint, read_footers
from tests import worlds

TABLES = ("passages", "queries", "qrels")
KILLED = """
import os, sys
from pathlib import Path
from pipeline.imports.hard_negatives import read_lists
from pipeline.imports.lists import ListOptions, file_source, import_lists
from pipeline.storage.workspace import Workspace

steps, rename = int(sys.argv[3]), Path.rename

def counted(path, target):
    global steps
    steps -= 1
    if steps < 0:
        os._exit(9)
    return rename(path, target)

Path.rename = counted
workspace = Workspace.open(sys.argv[1])
source = file_source(Path(sys.argv[2]), "hard-negatives", read_lists)
import_lists(workspace, source, ListOptions(add_positives=True, overwrite=True))
"""


def again(directory, workspace, *names):
    """Import the collection of `worlds` once more, or some of its files."""
    files = worlds.write_files(directory)
    taken = {
        name: [(split, files[split + end]) for split in ("train", "dev")]
        for name, end in (("queries", ""), ("qrels", ".qrels"))
    }
    return import_msmarco(
        workspace,
        files["collection"] if "passages" in names or not names else None,
        taken["queries"] if "queries" in names or not names else [],
        taken["qrels"] if "qrels" in names or not names else [],
    )


def contents(workspace):
    return {name: content_fingerprint(read_footers(workspace.parts(name))) for name in TABLES}


@pytest.mark.parametrize("lost", [("qrels",), ("queries",), ("passages",), ("queries", "qrels"), TABLES])
@pytest.mark.parametrize("older", [False, True])
def test_an_import_whose_tables_were_removed_is_made_again(tmp_path, lost, older):
    workspace = worlds.imported(tmp_path)
    before = contents(workspace)
    if older:  # which recorded no numbers of rows
        manifest = workspace.read_json(MANIFEST)
        workspace.write_json({key: value for key, value in manifest.items() if key != "rows"}, MANIFEST)
    assert again(tmp_path, workspace).unchanged
    for name in lost:
        shutil.rmtree(workspace.path(name))
    assert not again(tmp_path, workspace).unchanged and contents(workspace) == before
    assert again(tmp_path, workspace).unchanged and len(workspace.read_json(MANIFEST)["imports"]) == 1


def test_texts_that_might_get_other_ids_are_not_filled_in(tmp_path, monkeypatch):
    monkeypatch.setattr("pipeline.collection.importing.PASSAGES_PER_PART", 30)
    workspace = worlds.imported(tmp_path)
    before = contents(workspace)
    (tmp_path / "more").write_text("new\tquery\n")
    last = workspace.parts("passages")[-1]
    last.unlink()
    assert again(tmp_path, workspace).passages == 20 and contents(workspace) == before
    workspace.parts("passages")[1].unlink()
    with pytest.raises(WorkspaceError, match="remove all files of the table"):
        again(tmp_path, workspace)
    shutil.rmtree(workspace.path("passages"))
    assert again(tmp_path, workspace).passages == worlds.PASSAGES and contents(workspace) == before
    import_msmarco(workspace, None, [("test", tmp_path / "more")], [])
    shutil.rmtree(workspace.path("queries"))
    with pytest.raises(WorkspaceError, match="'queries' are missing"):
        again(tmp_path, workspace)


def test_judgements_removed_after_a_hold_out_come_back(tmp_path):
    workspace = worlds.imported(tmp_path)
    hold_out(workspace, "tune", "train", 3)
    before = contents(workspace)
    shutil.rmtree(workspace.path("qrels"))
    again(tmp_path, workspace)
    assert contents(workspace) == before


def test_judgements_of_imported_lists_come_back(tmp_path):
    workspace, path = worlds.imported(tmp_path), tmp_path / "lists.jsonl"
    path.write_text(json.dumps({"qid": "q0", "pos": ["p7"], "neg": {"a": ["p14"], "b": ["p21"]}}) + "\n")

    def take():
        return import_lists(workspace, file_source(path, "hard-negatives", read_lists), ListOptions(add_positives=True))

    take()
    assert take().unchanged
    shutil.rmtree(workspace.path("qrels"))
    assert not take().unchanged and workspace.parts("qrels")


def test_lists_with_judgements_killed_at_any_rename_lose_nothing(tmp_path):
    """Judgements of both imports are there after every kill, and all lists after the next run."""
    whole, path = worlds.imported(tmp_path), tmp_path / "lists.jsonl"
    judged = sum(footer.rows for footer in read_footers(whole.parts("qrels")))
    for passage in ("p7", "p14"):  # each run replaces the lists of the one before
        lines = [{"qid": "q0", "pos": [passage, "p28", "p35"], "neg": {"a": ["p49"], "b": ["p56"]}}]
        path.write_text("".join(json.dumps(line) + "\n" for line in lines))
        if passage == "p7":
            options = ListOptions(add_positives=True)
            added = import_lists(whole, file_source(path, "hard-negatives", read_lists), options).judgements
    assert added
    for steps in range(12):
        shutil.copytree(whole.root, tmp_path / str(steps))
        arguments = [tmp_path / str(steps), path, str(steps)]
        ended = subprocess.run([sys.executable, "-c", KILLED, *arguments], check=False)
        workspace = Workspace.open(str(tmp_path / str(steps)))
        rows = sum(footer.rows for footer in read_footers(workspace.parts("qrels")))
        assert rows >= judged + added and workspace.names("retrieved") == ["a", "b"]
        options = ListOptions(add_positives=True, overwrite=True)
        import_lists(workspace, file_source(path, "hard-negatives", read_lists), options)
        origins = {read_footers(workspace.parts("retrieved", name))[0].recipe.settings["origin"] for name in "ab"}
        assert len(origins) == 1
        if ended.returncode == 0:
            break
    assert ended.returncode == 0 and steps > 4
