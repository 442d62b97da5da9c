import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import app
from pipeline.errors import InputError
from pipeline.imports.hub.data_set import HubTable
from pipeline.storage.workspace import Workspace
from tests.pipeline.imports.test_import_lists import stored as stored_lists
from tests.pipeline.imports.test_import_scores import stored
from tests.published_files import PASSAGES, QUERIES, make_scores, positive, workspace_of_numbers


def save(directory, **configs):
    """A data set with one configuration for each table, laid out as on the hub."""
    head = ["---", "configs:"]
    for name, columns in configs.items():
        (directory / name).mkdir(parents=True)
        table = pa.table(columns)
        cut = len(table) // 2 + 1
        for number, half in enumerate(filter(len, (table.slice(0, cut), table.slice(cut)))):
            pq.write_table(half, directory / name / f"train-{number:05d}-of-00002.parquet")
        head += [f"- config_name: {name}", "  data_files:", "  - split: train", f"    path: {name}/*.parquet"]
    (directory / "README.md").write_text("\n".join([*head, "---", ""]))
    return str(directory)


@pytest.fixture
def published(tmp_path):
    """The schemas of sentence-transformers/msmarco and its relatives."""
    scores = make_scores()
    rows = [(q, p, s) for q, passages in scores.items() for p, s in passages.items()]
    return save(
        tmp_path / "published",
        corpus={"passage_id": [str(p) for p in PASSAGES], "passage": [f"text {p}" for p in PASSAGES]},
        queries={"query_id": [str(q) for q in QUERIES], "query": [f"query {q}" for q in QUERIES]},
        passage={"pid": list(PASSAGES), "text": [f"text {p}" for p in PASSAGES]},
        query={"qid": list(QUERIES), "text": [f"query {q}" for q in QUERIES]},
        mse={
            "query_id": [str(r[0]) for r in rows],
            "passage_id": [str(r[1]) for r in rows],
            "score": [r[2] for r in rows],
        },
        list={
            "query_id": list(scores),
            "corpus_id": [list(passages) for passages in scores.values()],
            "score": [list(passages.values()) for passages in scores.values()],
        },
        ids={
            "query": [11, 12, 13, 999],
            "positive": [positive(q) for q in (11, 12, 13, 14)],
            "negative_1": [150, 151, 152, 153],
            "negative_2": [160, 5, 162, 163],
        },
        margins={"query_id": ["10"], "positive_id": ["1"], "negative_id": ["2"], "score": [1.0]},
        beir={"_id": ["d1", "d2", "d3"], "title": ["t", None, ""], "text": ["x", "y", "z"]},
    )


def prep(*arguments):
    return app(args=[str(argument) for argument in arguments], standalone_mode=False)


@pytest.mark.parametrize(("passages", "queries"), [("corpus", "queries"), ("passage", "query")])
def test_a_collection_with_ids_as_strings_or_numbers(tmp_path, published, passages, queries, capsys):
    prep("import", "hub", published, "--config", passages, "-w", tmp_path / "ws")
    prep("import", "hub", published, "--config", queries, "--queries-split", "dev", "-w", tmp_path / "ws")
    assert "added 80 passages" in capsys.readouterr().out.replace("\n", " ")
    ws = Workspace.open(str(tmp_path / "ws"))
    rows = pq.read_table(ws.path("passages")).select(["external_id", "text"]).to_pylist()
    assert rows == [{"external_id": str(p), "text": f"text {p}"} for p in PASSAGES]
    assert set(map(tuple, pq.read_table(ws.path("queries")).column("splits").to_pylist())) == {("dev",)}


@pytest.mark.parametrize("config", ["mse", "list"])
def test_scores_of_pairs_and_of_lists(tmp_path, published, config, capsys):
    ws = workspace_of_numbers(tmp_path)
    for expected in ("scores/t:", "nothing to do"):
        prep("import", "hub", published, "--config", config, "--teacher", "t", "--as-pairs", "-w", ws.root)
        assert expected in capsys.readouterr().out
    assert stored(ws) == make_scores()


def test_triples_of_ids(tmp_path, published, capsys):
    ws = workspace_of_numbers(tmp_path)
    prep("import", "hub", published, "--config", "ids", "--system", "mined", "-w", ws.root)
    output = capsys.readouterr().out
    assert stored_lists(ws, "mined") == {11: [150, 160], 12: [151], 13: [152, 162]}
    assert "2 rows name a query" in output and "1 rows name a passage" in output


@pytest.mark.parametrize(
    ("config", "message"),
    [("margins", "holds margins of two passages"), ("beir", "cannot tell"), ("nothing", "cannot be read")],
)
def test_a_table_of_unclear_content_or_none_is_refused(published, config, message):
    with pytest.raises(InputError, match=message):
        _ = HubTable(published, config).kind


def test_a_title_comes_before_its_passage(published):
    table = HubTable(published, "beir")
    assert [text for batch in table.texts("passages") for text in batch.column("text").to_pylist()] == ["t x", "y", "z"]
    assert [text for batch in table.texts("queries") for text in batch.column("text").to_pylist()] == ["x", "y", "z"]


def test_identity_is_the_bytes(published, tmp_path):
    assert (
        HubTable(published, "mse").content == HubTable(published, "mse").content != HubTable(published, "list").content
    )


def test_offline_the_hub_is_an_error_with_a_message():
    with pytest.raises(InputError, match="cannot be found on the hub"):
        _ = HubTable("sentence-transformers/no-such-data-set").content
