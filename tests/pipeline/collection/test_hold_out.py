import pytest

from pipeline.collection.hold_out import HELD_OUT, hold_out
from pipeline.collection.selection import select_queries, view_tables
from pipeline.errors import InputError, UsageError, WorkspaceError
from pipeline.imports.msmarco import import_msmarco
from pipeline.storage.workspace import MANIFEST, Workspace
from pipeline.tables.database import connect


@pytest.fixture
def workspace(tmp_path) -> Workspace:
    """Forty train queries, of which the last ten are not judged."""
    (tmp_path / "c.tsv").write_text("p\tpassage\n")
    (tmp_path / "q.tsv").write_text("".join(f"{n}\tquery {n}\n" for n in range(40)))
    (tmp_path / "r.tsv").write_text("".join(f"{n}\t0\tp\t1\n" for n in range(30)))
    made = Workspace.open(str(tmp_path / "ws"), create=True)
    import_msmarco(made, tmp_path / "c.tsv", [("train", tmp_path / "q.tsv")], [("train", tmp_path / "r.tsv")])
    return made


def ids(workspace: Workspace, split: str, sample: int | None = None) -> set[int]:
    with connect(workspace.local / "spill") as database:
        view_tables(database, workspace, "queries")
        return set(select_queries(database, workspace, split, sample).ids.tolist())


def test_the_sample_of_train_stays_as_it_was(workspace):
    before = ids(workspace, "train", 20)
    assert hold_out(workspace, "tune", "train", 10)
    assert ids(workspace, "train", 20) == before
    held = ids(workspace, "tune")
    assert len(held) == 10
    assert held | before == set(range(30))
    assert ids(workspace, "train") == set(range(40)) - held


def test_once_is_enough_and_another_size_is_refused(workspace):
    hold_out(workspace, "tune", "train", 10)
    (part,) = workspace.parts("queries")
    before = part.read_bytes()
    assert not hold_out(workspace, "tune", "train", 10)
    assert part.read_bytes() == before
    with pytest.raises(WorkspaceError, match="exists already"):
        hold_out(workspace, "tune", "train", 11)
    with pytest.raises(WorkspaceError, match="exists already"):
        hold_out(workspace, "train", "train", 3)


@pytest.mark.parametrize("count", [0, 30, 31])
def test_neither_nothing_nor_all(workspace, count):
    with pytest.raises(UsageError, match="fewer than 30"):
        hold_out(workspace, "tune", "train", count)


def test_queries_of_a_file_move(workspace, tmp_path):
    path = tmp_path / "ids.txt"
    path.write_text("3\n39\n3\n")
    assert hold_out(workspace, "tune", "train", path) == 2
    assert ids(workspace, "tune") == {3, 39}
    assert ids(workspace, "train") == set(range(40)) - {3, 39}
    assert not hold_out(workspace, "tune", "train", path)
    path.write_text("3\n38\n")
    with pytest.raises(WorkspaceError, match="exists already"):
        hold_out(workspace, "tune", "train", path)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("3\n41\n", InputError, "41"),
        ("3\tquery 3\n", InputError, "malformed|1 tab-separated"),
        ("", InputError, "empty"),
        ("".join(f"{n}\n" for n in range(40)), UsageError, "fewer than 40"),
    ],
)
def test_files_that_name_no_part_of_the_split(workspace, tmp_path, text, kind, message):
    (tmp_path / "ids.txt").write_text(text)
    with pytest.raises(kind, match=message):
        hold_out(workspace, "tune", "train", tmp_path / "ids.txt")
    assert ids(workspace, "train") == set(range(40))


def test_a_later_import_leaves_them_out(workspace, tmp_path):
    hold_out(workspace, "tune", "train", 10)
    held, rest = ids(workspace, "tune"), ids(workspace, "train")
    (tmp_path / "more.tsv").write_text((tmp_path / "q.tsv").read_text() + "40\tnew\n")
    import_msmarco(workspace, None, [("train", tmp_path / "more.tsv"), ("all", tmp_path / "q.tsv")], [])
    assert ids(workspace, "tune") == held
    assert ids(workspace, "train") == rest | {40}
    assert ids(workspace, "all") == set(range(40))


def test_a_later_import_may_judge_them(workspace, tmp_path):
    (tmp_path / "ids.txt").write_text("38\n39\n")
    hold_out(workspace, "tune", "train", tmp_path / "ids.txt")
    (tmp_path / "ids.txt").write_text("39\n")
    hold_out(workspace, "test", "tune", tmp_path / "ids.txt")
    (tmp_path / "r2.tsv").write_text("".join(f"{n}\t0\tp\t1\n" for n in range(40)))
    added = import_msmarco(workspace, None, [("train", tmp_path / "q.tsv")], [("train", tmp_path / "r2.tsv")])
    assert added.qrels == 10 and ids(workspace, "train") == set(range(38))
    assert (ids(workspace, "tune"), ids(workspace, "test")) == ({38}, {39})
    with pytest.raises(InputError, match="not in the split"):
        import_msmarco(workspace, None, [], [("test", tmp_path / "r2.tsv")])


def test_cut_short_before_the_table_it_is_done_again(workspace, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(
            "pipeline.collection.hold_out.write_part", lambda *a, **k: (_ for _ in ()).throw(OSError("killed"))
        )
        with pytest.raises(OSError, match="killed"):
            hold_out(workspace, "tune", "train", 10)
    assert HELD_OUT in workspace.read_json(MANIFEST)
    assert ids(workspace, "train") == set(range(40))
    assert hold_out(workspace, "tune", "train", 10)
    assert len(ids(workspace, "tune")) == 10
    assert len(ids(workspace, "train")) == 30
