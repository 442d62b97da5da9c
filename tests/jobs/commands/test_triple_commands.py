import json
import shlex
import signal
import subprocess
import sys
import time

import pytest

from jobs.cluster.settings import ClusterSettings
from jobs.cluster.triples import actor_runner
from pipeline.storage.atomic_files import temporary_name
from pipeline.storage.workspace import Workspace
from pipeline.triples.build import Resources, TripleSettings, build_triples, scratch
from pipeline.triples.sets import load_set
from tests import worlds
from tests.jobs.test_cli import prep


@pytest.fixture(scope="module")
def graded(tmp_path_factory):
    return worlds.graded(tmp_path_factory.mktemp("commands"))


def files(workspace, *dataset):
    return {path.name: path.read_bytes() for path in workspace.parts(*dataset)}


def test_build_triples_takes_every_option(graded, monkeypatch, capsys, tmp_path):
    typed = """build-triples --threshold 0 --threshold-on 2 --anchor min --relative-margin 0.1 --min-score -9
        --max-score 9 --rank-from 1 --rank-to 9 --max-margin-std 8 --negatives-per-query 4 --negatives-per-system 3
        --strategy top --collapse-duplicates --ensemble weighted --weight a=2 --weight b=1 --weight c=1 --seed 3
        --processes 1 --threads 1 --memory-limit 300MB --name all"""
    code, output, error = prep(monkeypatch, capsys, *typed.split(), "-w", graded.root, "--temp-directory", tmp_path)
    assert (code, error) == (0, "") or code == 0, error
    assert "read again: all" in output and "negatives of bm25" in output
    facts = json.loads((graded.root / "summaries" / "build-triples.json").read_text())
    assert facts["audited"] == facts["funnel"]["triples"] == facts["rows"]
    options = TripleSettings(
        0.0,
        threshold_on="2",
        anchor="min",
        relative_margin=0.1,
        min_score=-9.0,
        max_score=9.0,
        rank_from=1,
        rank_to=9,
        max_margin_std=8.0,
        negatives_per_query=4,
        negatives_per_system=3,
        strategy="top",
        collapse_duplicates=True,
        ensemble="weighted",
        weights={"a": 2.0, "b": 1.0, "c": 1.0},
        seed=3,
    )
    assert build_triples(graded, options, name="all").unchanged
    saved = json.loads((graded.path("triples", "all") / "statistics.json").read_text())
    assert saved["funnel"] == facts["funnel"] and saved["ensemble"]["weights"] == {"a": 2.0, "b": 1.0, "c": 1.0}
    code, output, _ = prep(monkeypatch, capsys, "status", "-w", graded.root)
    assert code == 0 and "triples/all" in output and "stale" not in output


def test_lists_and_thresholds(graded, monkeypatch, capsys, tmp_path):
    code, output, error = prep(monkeypatch, capsys, "build-lists", "--size", 4, "-w", graded.root)
    assert code == 0 and "lists of at most 4 passages" in output and "read again: all" in output, error
    code, output, _ = prep(monkeypatch, capsys, "status", "-w", graded.root)
    assert code == 0 and "lists/default" in output and "size 4" in output and "stale" not in output
    typed = ["--to", 2, "--csv", tmp_path / "t.csv", "--plot", tmp_path / "t.png"]
    code, output, error = prep(monkeypatch, capsys, "explore-threshold", *typed, "-w", graded.root)
    assert code == 0 and "relevant taken as negative" in output, error
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert lines[0] == "threshold,triples,queries,held_out,held_out_of" and len(lines) == 6
    assert (tmp_path / "t.png").read_bytes().startswith(b"\x89PNG")


@pytest.fixture
def unlike(tmp_path):
    """Two teachers that agree, on scales that differ by a factor of 50."""
    workspace = worlds.scored(worlds.paired(worlds.imported(tmp_path)), {"a": 1})
    worlds.scored(workspace, {"b": 1}, spread=200)
    return workspace


@pytest.mark.parametrize(
    "typed",
    [
        "build-triples --threshold 2 --seed 4",
        "build-triples --threshold 0 --max-score 500 --min-score -900",
        "build-triples --threshold none --ensemble weighted --weight a=1 --weight b=2",
        "build-lists --size 4 --threshold 2",
        "build-lists --size 3 --drop-short --strategy random",
        "explore-threshold --to 1",
    ],
)
def test_teachers_of_mixed_scales_are_warned_of_with_a_command_that_mends_it(unlike, monkeypatch, capsys, typed):
    for _ in range(1 if "explore" in typed else 2):  # also if the set is up to date
        code, output, error = prep(monkeypatch, capsys, *typed.split(), "-w", unlike.root)
        assert code == 0 and "WARNING: the spreads of the teachers differ by a factor of 50 (" in output, error
        (command,) = [line.strip() for line in output.splitlines() if line.startswith("  prep ")]
    assert ("with --min-score, --max-score chosen again" in output) == ("--max-score" in typed)
    words = shlex.split(command)
    assert words[:2] == ["prep", typed.split()[0]] and words[words.index("--ensemble") + 1] == "zscore"
    code, output, error = prep(monkeypatch, capsys, *words[1:])
    assert code == 0 and "WARNING" not in output, error
    if "explore" not in typed:
        dataset, options = typed.split()[0].removeprefix("build-"), shlex.split(typed)
        settings = load_set(unlike, dataset, "default")[1][0].recipe.settings
        assert settings["ensemble"] == "zscore" and settings["teachers"] == ["a", "b"]
        size = {"build-lists --size 4": 4, "build-lists --size 3": 3}.get(" ".join(options[:3]))
        assert settings["layout"] == ({} if size is None else {"size": size, "drop_short": "--drop-short" in options})
        assert settings["seed"] == (4 if "--seed" in options else 0)
        assert (settings["threshold"] is None) == ("none" in options or "--drop-short" in options)
        assert 0 <= (settings["threshold"] or 0) < 1


@pytest.mark.parametrize("typed", ["build-triples --threshold none", "build-lists", "explore-threshold --to 1"])
def test_teachers_that_do_not_correlate_are_warned_of(graded, monkeypatch, capsys, typed):
    _, output, error = prep(monkeypatch, capsys, *typed.split(), "-w", graded.root)
    assert "WARNING: teachers do not correlate (a and b" in output and "--ensemble zscore" in output, error
    code, output, error = prep(monkeypatch, capsys, *typed.split(), "--teacher", "a", "-w", graded.root)
    assert code == 0 and "WARNING" not in output, error


@pytest.mark.parametrize(
    "typed",
    [
        "build-triples --weight a",
        "build-triples --ensemble weighted --weight a=much",
        "build-triples --memory-limit plenty",
        "build-triples --strategy best",
        "build-triples --threshold nan",
        "build-lists --size 1",
        "explore-threshold --step 0",
        "explore-threshold --plot table.txt",
    ],
)
def test_bad_words_are_usage_errors(graded, monkeypatch, capsys, typed):
    code, _, error = prep(monkeypatch, capsys, *typed.split(), "-w", graded.root)
    assert code == 2 and error and "Traceback" not in error


def test_ray_actors_give_the_same_bytes(graded, monkeypatch):
    monkeypatch.setattr("pipeline.triples.build.TRIPLES_PER_PART", 60)
    build_triples(graded, TripleSettings(None), name="here", resources=Resources(processes=1))
    cluster = ClusterSettings(num_actors=2, cpus_per_actor=0.5, gpus_per_actor=0.0)
    made = build_triples(graded, TripleSettings(None), name="there", runner=actor_runner(cluster))
    assert made.parts > 2 and files(graded, "triples", "here") == files(graded, "triples", "there")


BUILD = """
import sys
from pipeline.triples import build as triples
from pipeline.storage.workspace import Workspace
triples.TRIPLES_PER_PART = 60
triples.build_triples(Workspace.open(sys.argv[1]), triples.TripleSettings(None), name="cut")
"""


@pytest.mark.parametrize("sign", ["spill/*.rows", "triples/*.parquet"])
def test_killed_in_either_pass_and_run_again(graded, monkeypatch, sign):
    monkeypatch.setattr("pipeline.triples.build.TRIPLES_PER_PART", 60)
    build_triples(graded, TripleSettings(None), name="whole")
    for path in graded.parts("triples", "cut"):
        path.unlink()
    with subprocess.Popen([sys.executable, "-c", BUILD, str(graded.root)]) as run:
        while run.poll() is None and not list(graded.root.glob(f".tmp-build-triples-*/{sign}")):
            time.sleep(0.001)
        run.send_signal(signal.SIGKILL)
    assert run.returncode == -signal.SIGKILL and not graded.parts("triples", "cut")
    build_triples(graded, TripleSettings(None), name="cut")
    assert files(graded, "triples", "cut") == files(graded, "triples", "whole")
    assert not list(graded.root.glob(".tmp-*"))


def test_what_a_killed_build_left_under_the_temporary_directory_goes(graded, tmp_path):
    """The next build of the workspace removes it; what another workspace or another program has there stays."""
    other = Workspace.open(str(tmp_path / "other"), create=True)
    resources, left = Resources(processes=1, temp_directory=tmp_path / "temp"), []
    for workspace in (graded, other):
        killed = scratch(workspace, resources, workspace.root / temporary_name("build-triples"))
        left.append(killed.__enter__())
        (left[-1] / "shard-00000.rows").write_bytes(b"left")
    (tmp_path / "temp" / "foreign").touch()
    build_triples(graded, TripleSettings(None), name="elsewhere", resources=resources)
    assert sorted((tmp_path / "temp").iterdir()) == sorted([left[1], tmp_path / "temp" / "foreign"])
    assert (left[1] / "shard-00000.rows").read_bytes() == b"left"
    build_triples(graded, TripleSettings(None), name="usual", resources=Resources(processes=1))
    assert files(graded, "triples", "elsewhere") == files(graded, "triples", "usual")


@pytest.mark.parametrize("words", ["build-triples --threshold 0", "build-lists --size 3"])
def test_a_build_killed_in_its_audit_is_audited_by_the_next(graded, monkeypatch, capsys, words):
    typed, dataset = [*words.split(), "--name", "unread", "-w", graded.root], words[6:].split()[0]
    with monkeypatch.context() as patch:
        patch.setattr("pipeline.triples.audit._filtered_again", lambda *a: (_ for _ in ()).throw(KeyboardInterrupt))
        assert prep(patch, capsys, *typed)[0] == 1
    assert graded.parts(dataset, "unread")
    code, output, _ = prep(monkeypatch, capsys, *typed)
    assert code == 0 and "already up to date" in output and "read again: all" in output
    code, output, _ = prep(monkeypatch, capsys, *typed)
    assert code == 0 and "already up to date" in output and "read again" not in output
    path = graded.parts(dataset, "unread")[0]
    path.with_name("audited.json").write_text('{"content": "of another set"}')
    assert "read again: all" in prep(monkeypatch, capsys, *typed)[1]
