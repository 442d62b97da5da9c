from pipeline.collection import texts_by_content
from pipeline.collection.texts_by_content import same_texts
from pipeline.imports.msmarco import import_msmarco
from pipeline.storage.workspace import Workspace
from pipeline.tables.database import connect
from pipeline.tables.parquet import read_columns


def test_groups_ignore_case_and_white_space_and_are_cached_by_version(tmp_path, monkeypatch):
    file = tmp_path / "c"
    file.write_text("a\tIce  melts\nb\tsnow\nc\tice melts\nd\tICE MELTS \n")
    workspace = Workspace.open(str(tmp_path / "ws"), create=True)
    import_msmarco(workspace, file, [], [])
    with connect(workspace.local) as connection:
        first = same_texts(connection, workspace)
        rows = read_columns(first, ["passage_id", "text_id"]).to_pydict()
        assert sorted(zip(*rows.values(), strict=True)) == [(0, 0), (2, 0), (3, 0)]
        assert same_texts(connection, workspace) == first
        monkeypatch.setitem(texts_by_content.STATEMENTS, "collection/same_texts", 2)
        assert same_texts(connection, workspace) != first
