"""Published data in and out by the command line: what it says, and how it ends."""

import json

import pytest

from tests.jobs.test_cli import prep
from tests.pipeline.imports.test_import_lists import NEWER
from tests.published_files import lines, make_scores, workspace_of_numbers, write, write_kd, write_run


@pytest.fixture
def ws(tmp_path):
    return workspace_of_numbers(tmp_path)


def test_in_and_out_and_in_again(ws, tmp_path, monkeypatch, capsys):
    scores = write_kd(tmp_path / "kd.tsv.gz", make_scores())
    lists = write(tmp_path / "hn.jsonl", lines(NEWER))
    steps = [
        (["import", "hard-negatives", lists, "--prefix", "hn-"], "retrieved/hn-bm25: 3 rows"),
        (["import", "hard-negatives", lists, "--prefix", "hn-"], "nothing to do"),
        (["import", "run", write_run(tmp_path / "a.run", make_scores()), "--system", "a"], "retrieved/a:"),
        (["import", "scores", scores, "--teacher", "t", "--as-pairs"], "from 268 rows of format kd"),
        (["import", "scores", scores, "--teacher", "t", "--as-pairs"], "nothing to do"),
        (["build-triples", "--threshold", "none"], "134"),
        (["export", "kd", "-o", tmp_path / "out", "--license", "mit"], "default: 134 rows in"),
        (["import", "scores", tmp_path / "out/train.tsv", "--teacher", "again"], "scores/again"),
        (["status"], "imported from kd.tsv.gz"),
    ]
    for step, told in steps:
        code, output, errors = prep(monkeypatch, capsys, *step, "-w", ws.root)
        assert code == 0 and told in output.replace("\n", ""), (step, output, errors)
    assert 'license: "mit"' in (tmp_path / "out/README.md").read_text()
    summary = json.loads(ws.path("summaries", "import-scores.json").read_text())
    assert summary["exit_code"] == 0 and summary["counts"]["rows"] == 268


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["import", "scores", "/no/such.pkl", "--teacher", "t"], 1, "no such file"),
        (["import", "scores", "/no/such.pkl", "--teacher", "../t"], 2, "bad name for a teacher"),
        (["import", "scores", "/no/such", "--teacher", "t", "--form", "xml"], 2, "unknown --form"),
        (["import", "hard-negatives", "/no/such.jsonl"], 1, "no such file"),
        (["import", "run", "/no/such", "--system", "a/b"], 2, "bad name for a system"),
        (["import", "beir", "/no/such"], 1, "no corpus.jsonl"),
        (["import", "ir-dataset", "no/such", "--split", "x"], None, "error: "),
        (["import", "hub", "/no/such", "--as", "prose"], 2, "unknown --as"),
        (["import", "hub", "/no/such", "--as", "scores"], 2, "--teacher is missing"),
        (["export", "xml", "-o", "/no/such"], 2, "no format 'xml'"),
        (["export", "triplet", "-o", "/no/such", "--triples", "x"], 1, "no triples 'x'"),
    ],
)
def test_wrong_calls_get_a_message_and_a_code(ws, monkeypatch, capsys, arguments, code, message):
    found, _, errors = prep(monkeypatch, capsys, *arguments, "-w", ws.root)
    assert found == (code or found) != 0 and message in errors and "Traceback" not in errors
