# ruff: noqa: E501
"""Every published layout comes in rightly by one command, or is refused by the name of its column.

The texts are those of `TEXTS`; what comes in is compared with the values of the rows, read by a plain loop.
"""

import bz2
import gzip
import json
import lzma

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from jobs.cli import app
from pipeline.errors import InputError, UsageError
from pipeline.imports.msmarco import import_msmarco
from pipeline.storage.workspace import Workspace
from tests.published_files import lines, write

QUERIES = {"1": "how do ticks spread", "2": "what lowers a fever"}
PASSAGES = {
    "11": "Ticks pass it on while they feed.",
    "12": "Rest and water bring a fever down.",
    "13": "The station sells tickets.",
    "007": "A fever is a rise of temperature.",
}
Q1, Q2 = QUERIES.values()
P11, P12, P13, P7 = PASSAGES.values()
SCORES = {("1", "11"): 7.25, ("1", "13"): -9.5, ("2", "12"): 6.75, ("2", "007"): 1.5}
JUDGED = {("1", "11"), ("2", "12")}


@pytest.fixture
def ws(tmp_path):
    tables = {"c": PASSAGES, "q": QUERIES}
    for name, table in tables.items():
        write(tmp_path / name, "".join(f"{key}\t{text}\n" for key, text in table.items()).encode())
    write(tmp_path / "r", b"1\t0\t11\t1\n2\t0\t12\t1\n")
    made = Workspace.open(str(tmp_path / "ws"), create=True)
    import_msmarco(made, tmp_path / "c", [("train", tmp_path / "q")], [("train", tmp_path / "r")])
    return made


def prep(*arguments):
    return app(args=[str(argument) for argument in arguments], standalone_mode=False)


def save(directory, rows, name="train.jsonl"):
    directory.mkdir()
    write(directory / name, lines(rows))
    return directory


def joined(ws, dataset, columns):
    return duckdb.sql(
        f"SELECT q.external_id, p.external_id, {columns} FROM '{ws.path(*dataset)}/*.parquet' "
        f"JOIN '{ws.path('queries')}/*.parquet' q USING (query_id) "
        f"JOIN '{ws.path('passages')}/*.parquet' p USING (passage_id) ORDER BY ALL"
    ).fetchall()


def doc(key, **more):
    return {"docid": key, "title": "", "text": PASSAGES[key], **more}


SCORED = {
    "pairs": [{"query_id": q, "passage_id": p, "score": s} for (q, p), s in SCORES.items()],
    "lists": [
        {"query_id": 1, "document_ids": ["11", "13"], "scores": [7.25, -9.5]},
        {"query_id": 2, "document_ids": ["12", "007"], "scores": [6.75, 1.5]},
    ],
    "lists as strings": [
        {"query_id": 1, "document_ids": "[11, 13]", "scores": "[7.25, -9.5]"},
        {"query_id": 2, "document_ids": '["12", "007"]', "scores": "[6.75, 1.5]"},
    ],
    "tevatron": [
        {"query_id": "1", "query": Q1, "positive_passages": [doc("11", score=7.25)], "negative_passages": [doc("13", score=-9.5)]},
        {"query_id": "2", "query": Q2, "positive_passages": [doc("12", score=6.75)], "negative_passages": [doc("007", score=1.5)]},
    ],
    "hotchpotch": [
        {"qid": 1, "pos": ["11"], "neg": ["13"], "pos.score": [7.25], "neg.score": [-9.5]},
        {"qid": 2, "pos": ["12"], "neg": ["007"], "pos.score": [6.75], "neg.score": [1.5]},
    ],
}  # fmt: skip
SCORED_TEXTS = {
    "ettin": [
        {"query": QUERIES[q], "document": PASSAGES[p], "label": s} for (q, p), s in SCORES.items()
    ],
    "logits": [
        {"query": Q1, "documents": [P11, P13], "scores": [7.25, -9.5]},
        {"query": Q2, "documents": [P12, P7], "scores": [6.75, 1.5]},
    ],
    "flag embedding": [
        {"query": Q1, "pos": [P11], "neg": [P13], "pos_scores": [7.25], "neg_scores": [-9.5]},
        {"query": Q2, "pos": [P12], "neg": [P7], "pos_scores": [6.75], "neg_scores": [1.5]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("layout", SCORED)
def test_scores_by_id(ws, tmp_path, layout):
    prep("import", "hub", save(tmp_path / "d", SCORED[layout]), "--teacher", "t", "--as-pairs", "-w", ws.root)
    assert {row[:2]: row[2] for row in joined(ws, ["scores", "t"], "score")} == SCORES


@pytest.mark.parametrize("layout", SCORED_TEXTS)
def test_scores_by_text_come_in_with_texts_and_are_refused_without(ws, tmp_path, layout, capsys):
    command = [
        "import",
        "hub",
        save(tmp_path / "d", SCORED_TEXTS[layout]),
        "--teacher",
        "t",
        "--as-pairs",
        "-w",
        ws.root,
    ]
    with pytest.raises(InputError, match=r"column '(query|document|documents|pos|neg)' holds texts|--texts") as error:
        prep(*command)
    assert "--texts" in str(error.value) and not ws.names("scores") and not ws.names("retrieved")
    prep(*command, "--texts")
    assert {row[:2]: row[2] for row in joined(ws, ["scores", "t"], "score")} == SCORES


LISTS = {
    "rlhn": [
        {"query_id": "1", "query": Q1, "positive_passages": [doc("11")], "negative_passages": [doc("13"), doc("12")]},
        {"query_id": "2", "query": Q2, "positive_passages": [doc("12")], "negative_passages": [doc("007"), doc("13")]},
    ],
    "ids": [
        {"query_id": 1, "positive_ids": [11], "negative_ids": [13, 12]},
        {"query_id": 2, "positive_ids": ["12"], "negative_ids": ["007", "13"]},
    ],
    "nanobeir": [
        {"query-id": "1", "positive-corpus-ids": ["11"], "bm25-ranked-ids": ["13", "12"]},
        {"query-id": "2", "positive-corpus-ids": ["12"], "bm25-ranked-ids": ["007", "13"]},
    ],
    "top_ranked": [{"query-id": "1", "corpus-ids": ["13", "12"]}, {"query-id": "2", "corpus-ids": ["007", "13"]}],
    "triples": [
        {"query": "1", "positive": "11", "negative_1": "13", "negative_2": "12"},
        {"query": "2", "positive": "12", "negative_1": "007", "negative_2": "13"},
    ],
    "mined tuples": [
        {"query": Q1, "positive": P11, "negative_1": P13, "negative_2": P12},
        {"query": Q2, "positive": P12, "negative_1": P7, "negative_2": P13},
    ],
    "flag embedding": [{"query": Q1, "pos": [P11], "neg": [P13, P12]}, {"query": Q2, "pos": [P12], "neg": [P7, P13]}],
    "cornstack": [
        {"query": Q1, "document": P11, "negatives": [P13, P12]}, {"query": Q2, "document": P12, "negatives": [P7, P13]},
    ],
}  # fmt: skip


@pytest.mark.parametrize("layout", LISTS)
def test_lists_of_negatives(ws, tmp_path, layout, capsys):
    rows = LISTS[layout]
    texts = (
        ["--texts"]
        if any(" " in str(value) for name, value in rows[0].items() if name in ("positive", "pos", "document"))
        else []
    )
    command = ["import", "hub", save(tmp_path / "d", rows), "--system", "s", "-w", ws.root]
    if texts:
        with pytest.raises(InputError, match="holds texts, not ids") as error:
            prep(*command)
        assert "--texts" in str(error.value)
    prep(*command, *texts)
    ranked = [(q, p) for q, p, rank in sorted(joined(ws, ["retrieved", "s"], "rank"), key=lambda row: (row[0], row[2]))]
    assert ranked == [("1", "13"), ("1", "12"), ("2", "007"), ("2", "13")]
    output = capsys.readouterr().out
    assert "not among the judgements" not in output
    assert ("columns that were not used: query" in output.replace("\n", " ")) == (layout == "rlhn")


def test_positives_beside_scores_become_judgements(ws, tmp_path):
    rows = [
        {"query_id": "1", "document_ids": ["11", "13"], "scores": [7.25, -9.5], "positive_ids": ["11", "13"]},
        {"query_id": "2", "document_ids": ["12", "007"], "scores": [6.75, 1.5], "positive_ids": ["007"]},
    ]
    options = ["--teacher", "t", "--as-pairs", "--add-positives", "-w", ws.root]
    prep("import", "hub", save(tmp_path / "d", rows), *options)
    judged = {row[:2] for row in joined(ws, ["qrels"], "grade")}
    assert judged == JUDGED | {("1", "13"), ("2", "007")}
    assert {row[:2]: row[2] for row in joined(ws, ["scores", "t"], "score")} == SCORES
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "f.parquet")
    prep("import", "scores", tmp_path / "f.parquet", "--teacher", "u", *options[2:])
    assert {row[:2]: row[2] for row in joined(ws, ["scores", "u"], "score")} == SCORES


@pytest.mark.parametrize("number", [int, float, str])
def test_judgements_of_mteb_are_judgements(ws, tmp_path, number, capsys):
    rows = [
        {"query-id": "1", "corpus-id": "13", "score": number(2)},
        {"query-id": "2", "corpus-id": "007", "score": number(0)},
        {"query-id": "2", "corpus-id": "gone", "score": number(1)},
    ]
    prep("import", "hub", save(tmp_path / "d", rows), "-w", ws.root)
    judged = {row[:2]: row[2] for row in joined(ws, ["qrels"], "grade")}
    assert judged == {**dict.fromkeys(JUDGED, 1), ("1", "13"): 2, ("2", "007"): 0}
    assert "1 judgements are of passages that are not in the collection" in capsys.readouterr().out.replace("\n", " ")


@pytest.mark.parametrize("name", ["score", "label", "labels", "scores"])
def test_whole_numbers_are_grades_or_scores_as_the_user_says(ws, tmp_path, name):
    rows = [{"query_id": q, "passage_id": p, name: n} for n, (q, p) in enumerate(SCORES, -1)]
    directory = save(tmp_path / "d", rows)
    options = ["--teacher", "t", "--as-pairs", "-w", ws.root]
    with pytest.raises(InputError, match=f"column '{name}' holds whole numbers.*\n.*\n.*\n.*--as qrels or --as scores"):
        prep("import", "hub", directory, *options)
    prep("import", "hub", directory, "--as", "scores", *options)
    assert [row[2] for row in joined(ws, ["scores", "t"], "score")] == [-1.0, 0.0, 2.0, 1.0]
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "f.parquet")
    with pytest.raises(InputError, match="whole numbers"):
        prep("import", "scores", tmp_path / "f.parquet", "--teacher", "u", *options[2:])
    assert ws.names("scores") == ["t"]


REFUSED = {
    "margins": ([{"query_id": "1", "positive_id": "11", "negative_id": "13", "score": 9.25}], "column 'score' holds margins"),
    "triples with a margin": ([{"query": "1", "positive": "11", "negative": "13", "margin": 9.25}], "column 'margin' holds scores"),
    "scores of one side": ([{"query": "1", "pos": ["11"], "neg": ["13"], "neg_scores": [1.5]}], "column 'neg_scores' holds scores"),
    "two scores": ([{"query_id": "1", "passage_id": "11", "score": 1.5, "label": 1}], "several columns may hold the score"),
    "negatives beside scores": (
        [{"query_id": "1", "passage_id": "11", "score": 1.5, "negative_ids": ["13"]}], "column 'score' holds scores",
    ),
    "positives beside queries": ([{"query_id": "1", "query": Q1, "gold_answers": ["x"]}], "cannot tell"),
    "excluded": ([{"qid": "1", "gold_ids": ["11"], "excluded_ids": ["13"]}], "column 'excluded_ids' holds positives or"),
    "scores of queries": ([{"query_id": "1", "query": Q1, "score": 1.5}], "cannot tell"),
    "too few scores": ([{"qid": "1", "pos": ["11"], "neg": ["13"], "pos_scores": [1.5, 2.5], "neg_scores": [1.5]}], "row 1 has not a score"),
    "a float for an id": ([{"query_id": 1.0, "passage_id": "11", "score": 1.5}], "wrong types"),
    "a null for an id": ([{"query_id": None, "passage_id": "11", "score": 1.5}, {"query_id": "1", "passage_id": "11", "score": 1.5}], "row 1 has a null"),
    "two ids": ([{"query_id": "1", "passage_id": "11", "docid": "12", "score": 1.5}], "several columns may hold the passage"),
    "two ids of passages": ([{"docid": "11", "id": 3, "passage": P11}], "several columns may hold the id"),
    "two texts": ([{"docid": "11", "text": P11, "contents": "x"}], "several columns may hold the text"),
    "no id": ([{"text": P11, "url": "u"}], "cannot tell"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read_whole_is_refused_by_name(ws, tmp_path, case):
    rows, message = REFUSED[case]
    directory = save(tmp_path / "d", rows)
    with pytest.raises(InputError, match=message):
        prep("import", "hub", directory, "--teacher", "t", "--system", "s", "--as-pairs", "-w", ws.root)
    assert not ws.names("scores") and not ws.names("retrieved")


PACK = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
NAMES = ["007", "7", "7.0", "1e3", "NA", "null", "None", "true", "2020-01-01", str(2**53 + 1), str(2**64), "+1", '"x"']


def csv(names):
    def quoted(text):
        return '"' + text.replace('"', '""') + '"' if '"' in text else text

    texts = [f'text, "of" \n{name}' for name in names]
    rows = (f"{quoted(name)},{quoted(text)}\r\n" for name, text in zip(names, texts, strict=True))
    return "passage_id,text\r\n" + "".join(rows)


def jsonl(names):
    return "".join(json.dumps({"passage_id": name, "text": f'text, "of" \n{name}'}) + "\n" for name in names)


@pytest.mark.parametrize("end", PACK)
@pytest.mark.parametrize(
    ("name", "make"),
    [("a.csv", csv), ("a.tsv", lambda n: csv(n).replace(",", "\t").replace("text\t ", "text, ")), ("a.jsonl", jsonl),
     ("a.json", lambda names: "[" + ",\n".join(jsonl(names).splitlines()) + "]")],
)  # fmt: skip
def test_ids_and_texts_as_they_are_written(tmp_path, name, make, end):
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / f"{name}{end}").write_bytes(PACK[end](b"\xef\xbb\xbf" + make(NAMES).encode()))
    prep("import", "hub", tmp_path / "d", "-w", tmp_path / "ws")
    rows = duckdb.sql(
        f"SELECT external_id, text FROM '{tmp_path}/ws/passages/*.parquet' ORDER BY passage_id"
    ).fetchall()
    assert rows == [(name, f'text, "of" \n{name}') for name in NAMES]


def test_numbers_of_json_are_written_as_integers(tmp_path):
    rows = [{"passage_id": n, "text": "x"} for n in (7, "007", 2**53 + 1, 2**70)]
    prep("import", "hub", save(tmp_path / "d", rows), "-w", tmp_path / "ws")
    found = duckdb.sql(f"SELECT external_id FROM '{tmp_path}/ws/passages/*.parquet' ORDER BY passage_id").fetchall()
    assert [name for (name,) in found] == ["7", "007", str(2**53 + 1), str(2**70)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"a.csv": csv(["1"]), "b.jsonl": jsonl(["2"])}, "files of the data set would be left out"),
        ({"a.csv": csv(["1"]), "more/b.parquet": "x"}, "files of the data set would be left out"),
        ({"a.jsonl": jsonl(["1"]), "b.zip": "PK\x03\x04"}, "it is a zip archive"),
        ({"a.txt": "text\n"}, "files of format 'text'"),
        (
            {
                "a.csv": csv(["1"]),
                "test.csv": csv(["2"]),
                "README.md": "---\nconfigs:\n- config_name: x\n  skiprows: 1\n  data_files: a.csv\n---\n",
            },
            "sets 'skiprows'",
        ),
        ({"a.csv": "passage_id,text,text\n1,a,b\n"}, "bad header"),
        ({"a.csv": "passage_id,text\n1,a,b\n"}, "a row before line 3 is malformed"),
        ({"a.csv": 'passage_id,text\n1,"a\n'}, "cannot be read"),
        ({"a.jsonl": jsonl(["1"]) + "{"}, "line 2 is malformed"),
        ({"a.jsonl": '{"passage_id": "1", "passage_id": "2", "text": "x"}\n'}, "a key appears twice"),
        ({"a.jsonl": jsonl(["1"]) + '{"passage_id": "2"}\n'}, "row 2 has no text"),
        ({"a.jsonl": jsonl(["1 "])}, "id with white space"),
        ({"a.csv": csv([""])}, "empty id"),
    ],
)
def test_no_file_and_no_row_of_a_data_set_is_left_out(tmp_path, files, message):
    for name, text in files.items():
        (tmp_path / "d" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "d" / name).write_bytes(text.encode())
    with pytest.raises((InputError, UsageError), match=message):
        prep("import", "hub", tmp_path / "d", "-w", tmp_path / "ws")


def test_the_readme_says_which_files_and_which_separator(tmp_path, capsys):
    (tmp_path / "d").mkdir()
    head = "---\nconfigs:\n- config_name: x\n  sep: ';'\n  data_files: a.csv\n- config_name: y\n  data_files: b.jsonl\n---\n"
    files = {"README.md": head, "a.csv": "passage_id;text\n007;x\n", "b.jsonl": jsonl(["2"]), "c.csv": "x"}
    for name, text in files.items():
        (tmp_path / "d" / name).write_text(text)
    prep("import", "hub", tmp_path / "d", "--config", "x", "-w", tmp_path / "ws")
    assert "columns that were not used: the file c.csv" in capsys.readouterr().out.replace("\n", " ")
    found = duckdb.sql(f"SELECT external_id, text FROM '{tmp_path}/ws/passages/*.parquet'").fetchall()
    assert found == [("007", "x")]
