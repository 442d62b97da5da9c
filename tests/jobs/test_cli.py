"""The command line as a surface: help, README, exit codes, messages, one small run through all stages."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from typer.main import get_command

from jobs.cli import app, main
from jobs.terminal.progress import progress
from tests import worlds
from tests.tiny_models import save_tiny

README = (Path(__file__).parents[2] / "README.md").read_text()


def prep(monkeypatch, capsys, *arguments):
    """Exit code, standard output and standard error of a command."""
    monkeypatch.setattr(sys, "argv", ["prep", *map(str, arguments)])
    try:
        main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    return code, *capsys.readouterr()


def commands():
    top = get_command(app).commands
    return [name for name in top if name != "import"] + [f"import {name}" for name in top["import"].commands]


@pytest.mark.parametrize("name", commands())
def test_every_command_has_help_and_stands_in_the_readme(name, monkeypatch, capsys):
    code, output, _ = prep(monkeypatch, capsys, *name.split(), "--help")
    assert code == 0 and "Usage" in output and f"prep {name}" in README
    command = get_command(app)
    for part in name.split():
        command = command.commands[part]
    shown = "".join(output.split())  # texts are wrapped, and broken at hyphens
    assert "<class" not in output
    assert all("".join((option.help or "").split()) in shown for option in command.params)


def test_help_loads_no_model_library():
    check = (
        "import sys, jobs.cli; print(sorted({'torch', 'transformers', 'ray', 'duckdb', 'datasets'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_all_stages_and_again(tmp_path, monkeypatch, capsys):
    files, ws = worlds.write_files(tmp_path), tmp_path / "ws"
    tiny = save_tiny("bert", tmp_path / "tiny")
    monkeypatch.setenv("PREP_WORKSPACE", str(ws))
    typed = f"""
        mine --k 10 --split train --split dev --processes 1
        build-pairs --pairs-per-shard 60
        train --architecture bert_cat --init {tiny} --loss bce --targets qrels --name cat --max-steps 2 --max-length 24
        score --teacher a=cat --teacher b={tiny} --max-length 24
        build-triples --threshold none
        train --init {tiny} --name dot --max-steps 2 --max-passage-length 16
        evaluate --run bm25 --teacher a --teacher b --student dot --mode rerank --mode retrieve
        status"""
    steps = [
        ["import", "msmarco", *worlds.import_options(files).split()],
        *map(str.split, typed.strip().splitlines()),
    ]
    for _ in range(2):
        for step in steps:
            code, output, errors = prep(monkeypatch, capsys, *step)
            assert code == 0, (step, output, errors)
        assert "stale" not in output and "incomplete" not in output and output.count("done") == 10
        before = {p: p.stat().st_mtime_ns for p in ws.rglob("*.parquet")}
    assert {p: p.stat().st_mtime_ns for p in ws.rglob("*.parquet")} == before
    systems = json.loads((ws / "summaries" / "evaluate.json").read_text())["systems"]
    assert [row["system"] for row in systems] == ["bm25", "a", "b", "ensemble", "dot-rerank", "dot-retrieve"]
    assert not list(ws.rglob(".tmp-*"))


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["status", "-w", "/no/such/place"], 1, "not a workspace"),
        (["mine", "-w", "{ws}", "--split", "test"], 1, "no queries of split 'test'"),
        (["mine", "-w", "{ws}", "--system", "splade"], 2, "no retriever"),
        (["mine", "-w", "{ws}", "--k", "0"], 2, "out of range"),
        (["build-pairs", "-w", "{ws}"], 1, "nothing retrieved yet"),
        (["build-triples", "-w", "{ws}", "--threshold", "high"], 2, "malformed --threshold"),
        (["build-triples", "-w", "{ws}"], 1, "no teacher has scored yet"),
        (["score", "-w", "{ws}", "--teacher", "nameless"], 2, "NAME=CHECKPOINT"),
        (["score", "-w", "{ws}", "--teacher", "a=b", "--dtype", "int4"], 2, "unknown --dtype"),
        (["train", "-w", "{ws}", "--name", "x", "--init", "y", "--loss", "hinge"], 2, "no loss 'hinge'"),
        (["evaluate", "-w", "{ws}"], 2, "nothing to evaluate"),
        (["evaluate", "-w", "{ws}", "--run", "x"], 1, "no retriever 'x'"),
        (["evaluate", "-w", "{ws}", "--student", "x"], 1, "no student 'x'"),
        (["import", "msmarco", "-w", "{ws}", "--queries", "file"], 2, "SPLIT=FILE"),
        (["import", "msmarco", "-w", "{ws}", "--queries", "../x=file"], 2, "bad name for a split"),
        (["status", "--bogus"], 2, "No such option"),
    ],
)
def test_wrong_calls_get_a_message_and_a_code(workspace, monkeypatch, capsys, arguments, code, message):
    found, _, errors = prep(monkeypatch, capsys, *(text.format(ws=workspace.root) for text in arguments))
    assert found == code and message in errors and "Traceback" not in errors


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError(28, "No space left on device"), "the disk is full"),
        (KeyboardInterrupt(), "interrupted"),
        (MemoryError(), "out of memory"),
        (ZeroDivisionError("x"), "--debug"),
    ],
)
def test_what_goes_wrong_underneath_ends_with_1_and_leaves_nothing(workspace, monkeypatch, capsys, error, message):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr("pipeline.retrieval.mining.write_part", fail)
    code, _, errors = prep(monkeypatch, capsys, "mine", "-w", workspace.root, "--processes", "1")
    assert code == 1 and message in errors and "Traceback" not in errors
    assert not workspace.parts("retrieved", "bm25") and not list(workspace.root.rglob(".tmp-*"))
    assert json.loads(workspace.path("summaries", "mine.json").read_text())["exit_code"] == 1
    monkeypatch.undo()
    assert prep(monkeypatch, capsys, "mine", "-w", workspace.root, "--processes", "1")[0] == 0


def test_a_full_disk_leaves_nothing_half_written(workspace):
    """A real one: the process may write no file beyond 64 bytes."""
    limited = "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (64, 64)); import sys; from jobs.cli import main; "
    limited += f"sys.argv = ['prep', 'mine', '-w', {str(workspace.root)!r}, '--processes', '1']; main()"
    started = time.monotonic()
    ended = subprocess.run([sys.executable, "-B", "-c", limited], capture_output=True, text=True, check=False)
    assert ended.returncode == 1 and "error:" in ended.stderr and "Traceback" not in ended.stderr, ended.stderr
    assert not workspace.parts("retrieved", "bm25") and time.monotonic() - started < 60


def test_logs_for_machines(tmp_path):
    environment = {**os.environ, "PREP_LOG": "json"}
    command = [sys.executable, "-m", "jobs.cli", "status", "-w", str(tmp_path / "none")]
    found = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    told = json.loads(found.stderr)
    assert found.returncode == 1 and told["exit_code"] == 1 and told["level"] == "error"
    assert "not a workspace" in told["message"] and told["time"].endswith("+00:00")


def test_progress_for_machines(monkeypatch, caplog):
    monkeypatch.setenv("PREP_LOG", "json")
    monkeypatch.setattr("jobs.terminal.progress.SECONDS_BETWEEN_LINES", 0)
    with caplog.at_level("INFO", "jobs.terminal.progress"), progress("score", "pairs") as meter:
        meter.plan(10)
        meter.advance(4)
    assert caplog.records[-1].fields["done"] == 4 and caplog.records[-1].fields["total"] == 10


def test_status_is_watched(tmp_path):
    workspace = worlds.imported(tmp_path)
    command = [sys.executable, "-m", "jobs.cli", "status", "--watch", "0.5", "-w", str(workspace.root)]
    watching = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"})
    try:
        for _ in range(2):  # it looks again
            while "passages" not in (line := watching.stdout.readline()):
                assert line
        watching.terminate()
        assert watching.wait(30) == 0
    finally:
        watching.kill()
        watching.communicate()
