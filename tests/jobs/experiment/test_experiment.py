"""Experiments: cells run once, are compared with paired tests, and malformed files are refused."""

import json
import shutil
from dataclasses import replace

import pytest

from jobs.cli import app
from jobs.experiment.config import read_experiment
from jobs.experiment.run import Row
from jobs.experiment.tables import ALPHA, compare_targets, markdown, result_lines
from pipeline.errors import InputError, UsageError, WorkspaceError
from tests import worlds
from tests.tiny_models import save_tiny

CONFIG = """
name = "small"
stages = ["score --teacher t={teacher} --max-length 24"]
[set]
steps = 2
[train]
options = "--architecture bert_dot --init {student} --max-steps {steps} --batch-size 4"
[[student]]
name = "dot"
options = "--max-passage-length 16"
evaluate = ["--mode rerank --max-queries 4 --latency --latency-queries 2", "--mode retrieve"]
encode = "--dtype float32"
[[target]]
name = "T1"
options = "--loss margin_mse --triples default"
stages = ["build-triples --threshold none"]
[[target]]
name = "labels"
options = "--loss ranknet --triples default"
[[grid]]
students = ["dot"]
targets = ["T1"]
seeds = [1, 2]
[[grid]]
students = ["dot"]
targets = ["labels"]
seeds = [2]
[evaluate]
options = "--depth 5"
[[baseline]]
options = "--run bm25"
[[baseline]]
options = "--teacher u"
stages = ["score --teacher u={teacher} --max-length 24"]
"""
COMPARE = 'compare = [["T1", "labels"]]\n'


def write_config(directory):
    path = directory / "small.toml"
    path.write_text(COMPARE + CONFIG)
    return path


@pytest.fixture
def config(tmp_path):
    return write_config(tmp_path)


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """Options that name a tiny teacher and a tiny student."""
    directory = tmp_path_factory.mktemp("models")
    paths = [save_tiny("bert", directory / name, seed=seed) for seed, name in enumerate(("teacher", "student"))]
    return ["--set", f"teacher={paths[0]}", "--set", f"student={paths[1]}"]


@pytest.fixture(scope="module")
def first_cell(models, tmp_path_factory):
    """A workspace and results in which one cell has run."""
    directory = tmp_path_factory.mktemp("grid")
    workspace = worlds.paired(worlds.imported(directory))
    run(write_config(directory), workspace, models, "--only", "T1-s1")
    return workspace, directory / "small"


@pytest.fixture
def grid(first_cell, config):
    """The shared workspace, with a copy of the results beside the config."""
    workspace, results = first_cell
    shutil.copytree(results, config.parent / "small")
    return workspace


def run(config, workspace, models, *more):
    assert not app(args=["experiment", str(config), "-w", str(workspace.root), *models, *more], standalone_mode=False)


def test_a_grid_runs_once_and_grows(config, grid, models, capsys):
    results, workspace = config.parent / "small", grid
    assert {path.stem for path in results.glob("*.json")} == {"dot-T1-s1"}
    before = (results / "dot-T1-s1.json").read_bytes()
    run(config, workspace, models)
    assert (results / "dot-T1-s1.json").read_bytes() == before
    table = (results / "results.md").read_text()
    assert "| bm25 |  | first stage | 8 of dev | 1 |" in table and "| dot | T1 | rerank | 4 of dev | 2 |" in table
    assert "| dot | T1 | retrieve | 8 of dev | 2 |" in table and "T1 - labels" in table
    assert "identical order, by the fingerprint of their ids: T1, labels (" in table
    cell = json.loads((results / "dot-labels-s2.json").read_text())
    reranked, retrieved = cell["rows"]
    assert (len(reranked["values"]), len(retrieved["values"])) == (4, worlds.DEV) and cell["train_seconds"] > 0
    assert reranked["latency_ms"] > 0 and retrieved["latency_ms"] is None
    assert sum(retrieved["values"]) / worlds.DEV == pytest.approx(retrieved["means"]["MRR@10"], abs=1e-4)
    assert "triples/default" in cell["inputs"]
    assert "dot-labels-s2" in workspace.names("encoded")
    assert "T1" in workspace.path("report.html").read_text()
    capsys.readouterr()
    run(config, workspace, models, "--set", "steps=1", "--minutes", "0")
    assert "0 cells run, 3 still to be run" in capsys.readouterr().out  # other commands, other results


def test_a_student_is_not_trained_again_for_another_evaluation(config, grid, models):
    row = config.parent / "small" / "dot-T1-s1.json"
    before, weights = json.loads(row.read_text()), grid.path("students/dot-T1-s1/model.safetensors")
    trained = weights.stat().st_mtime_ns
    config.write_text(config.read_text().replace("--depth 5", "--depth 4"))
    run(config, grid, models, "--only", "dot-T1-s1")
    after = json.loads(row.read_text())
    assert weights.stat().st_mtime_ns == trained and "--depth 4" in after["cell"]["evaluate"][0]
    assert (after["train_seconds"], after["fingerprint"]) == (before["train_seconds"], before["fingerprint"])
    row.unlink()
    run(config, grid, models, "--only", "dot-T1-s1")
    assert json.loads(row.read_text())["train_seconds"] is None


def test_a_result_from_another_machine_is_up_to_date(config, tmp_path):
    """Paths are not part of a cell's identity; settings are."""
    here, there = (read_experiment(config, {"teacher": "x", "student": f"{place} y"}) for place in "ab")
    assert here.cells == there.cells and "{student}" in here.cells[0].train and "'b y'" in there.placed("{student}")
    other = read_experiment(config, {"teacher": "x", "student": "y", "steps": "9"})
    assert "--max-steps 9" in other.cells[0].train and other.cells != here.cells
    assert here.placed("{here}") == str(tmp_path)
    config.write_text(config.read_text().replace("--max-length 24", "--max-length 9"))
    scored = read_experiment(config, {"teacher": "x", "student": "y"})
    assert all(
        one != two for one, two in zip(scored.cells + scored.baselines, here.cells + here.baselines, strict=True)
    )


def test_without_stages_the_workspace_is_used_as_it_is(config, workspace, models):
    worlds.paired(workspace)
    with pytest.raises(WorkspaceError, match="no triples 'default'"):
        run(config, workspace, models, "--no-stages", "--only", "dot-T1-s1")


def test_comparisons_are_over_seeds_and_queries(config):
    experiment = read_experiment(config, {"teacher": "x", "student": "y"})
    rows = [
        Row("dot", "rerank", "dot", target, seed, {"MRR@10": 0.5}, values)
        for target, seed, values in (
            ("T1", 1, [1.0, 0.0, 0.5]),
            ("T1", 2, [1.0, 1.0, 0.5]),
            ("labels", 1, [0.0, 0.0, 0.5]),
            ("labels", 2, [0.0, 0.0, 0.5]),
            ("labels", 3, [1.0, 1.0, 1.0]),
        )
    ]
    (found,) = compare_targets(experiment, rows)
    assert found.seeds == 2 and found.comparison.difference == pytest.approx((1 + 0.5 + 0) / 3)
    assert (found.comparison.wins, found.comparison.losses) == (2, 0)
    assert "+0.500 | 2 / 0" in markdown(experiment, rows, [found])


def test_other_queries_or_grades_are_other_lines(config):
    experiment = read_experiment(config, {"teacher": "x", "student": "y"})
    asked = [("dev", None, 1, 0.5), ("dev", 2, 1, 0.25), ("dl19", None, 1, 1.0), ("dl19", None, 2, 0.75)]
    rows = [
        Row(
            "dot",
            "rerank",
            "dot",
            target,
            1,
            {"MRR@10": value * gain},
            [value * gain] * 8,
            split,
            most,
            None,
            "",
            level,
        )
        for split, most, level, value in asked
        for target, gain in (("labels", 0.5), ("T1", 1.0))
    ]
    compared = compare_targets(experiment, rows)
    assert [pair.comparison.difference for pair in compared] == [0.25, 0.125, 0.5, 0.375]
    lines = result_lines(rows, compared)
    assert len(lines) == 8 and all(len(line.rows) == 1 for line in lines)
    table = markdown(experiment, rows, compared)
    assert "| rerank | 8 of dl19, grade 2 up | 1 | 0.750 |" in table
    assert "| rerank | 8 of dl19, grade 2 up | T1 - labels | 1 | +0.375 |" in table


def test_values_use_the_grade_of_the_evaluation(config, grid, models):
    config.write_text(config.read_text().replace("--depth 5", "--depth 5 --relevance-level 2"))
    run(config, grid, models, "--only", "dot-T1-s1")
    for row in json.loads((config.parent / "small" / "dot-T1-s1.json").read_text())["rows"]:
        assert row["relevance_level"] == 2
        assert sum(row["values"]) / len(row["values"]) == pytest.approx(row["means"]["MRR@10"], abs=1e-4)
        assert row["means"]["MRR@10"] < 1


def test_significance_is_marked_on_the_better_target_only(config):
    experiment = read_experiment(config, {"teacher": "x", "student": "y"})
    for better, worse in (("T1", "labels"), ("labels", "T1")):
        rows = [
            Row("dot", "rerank", "dot", better, 1, {"MRR@10": 1.0}, [1.0] * 30),
            Row("dot", "rerank", "dot", worse, 1, {"MRR@10": 0.5}, [0.5] * 30),
        ]
        marked = {line.target: line.better_than for line in result_lines(rows, compare_targets(experiment, rows))}
        assert marked == {better: [worse], worse: []}


def test_p_values_are_adjusted_for_all_comparisons(config):
    experiment = replace(
        read_experiment(config, {"teacher": "x", "student": "y"}),
        comparisons=[("T1", "labels"), ("T2", "labels"), ("T2", "T1")],
    )
    # With 8 queries that all change alike, 2 of 256 flips are as far from 0: below 0.01 alone, not among three.
    gains = {"labels": 0.0, "T1": 0.25, "T2": 0.5}
    rows = [Row("dot", "rerank", "dot", target, 1, {"MRR@10": gain}, [gain] * 8) for target, gain in gains.items()]
    compared = compare_targets(experiment, rows)
    alone = [pair.comparison.randomisation for pair in compared]
    assert all(p == pytest.approx(2 / 256, rel=0.3) and p < ALPHA for p in alone)
    assert [pair.adjusted_p for pair in compared] == pytest.approx(holm_by_definition(alone))
    assert not any(pair.significant for pair in compared)
    assert all(not line.better_than for line in result_lines(rows, compared))
    text = markdown(experiment, rows, compared)
    assert "Holm for 3 comparisons" in text and f"| undefined | {alone[0]:.2g} | {compared[0].adjusted_p:.2g} |" in text
    (single,) = compare_targets(replace(experiment, comparisons=[("T1", "labels")]), rows)
    assert single.adjusted_p == single.comparison.randomisation and single.significant


def holm_by_definition(p_values):
    """Holm's step-down procedure as it is defined: the k-th smallest p of m times m - k + 1, made monotone."""
    ascending = sorted(p_values)
    steps = [min(1.0, p * (len(ascending) - k)) for k, p in enumerate(ascending)]
    return [max(steps[: ascending.index(p) + 1]) for p in p_values]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda text: text + "[unknown]\n", "unknown keys"),
        (lambda text: text.replace("name = ", "name = = "), "a TOML file"),
        (lambda text: text.replace("seeds = [1, 2]", "seeds = [1, 1]"), "the grid has a cell twice"),
        (
            lambda text: text.replace('options = "--loss ranknet', 'encode = ""\noptions = "--loss ranknet'),
            "unknown keys",
        ),
        (lambda text: text.replace('targets = ["labels"]', 'targets = ["T9"]'), "T9"),
        (lambda text: text.replace('options = "--depth 5"', 'options = ""\nbaselines = "--run bm25"'), "unknown keys"),
        (lambda text: 'train = "x"\n' + text.replace("[train]", "[set.x]"), "not an experiment"),
        (lambda text: 'extends = "small.toml"\n' + text, "extend each other"),
    ],
)
def test_bad_files(config, change, message):
    config.write_text(change(config.read_text()))
    with pytest.raises(InputError, match=message):
        read_experiment(config, {"teacher": "x", "student": "y"})


def test_a_file_that_extends_another_gives_what_differs(config, tmp_path):
    other = tmp_path / "tuning.toml"
    other.write_text('name = "tuning"\nextends = "small.toml"\n[evaluate]\noptions = "--split tune"\n')
    places = {"teacher": "x", "student": "y"}
    base, found = read_experiment(config, places), read_experiment(other, places)
    assert found.name == "tuning" and found.comparisons == base.comparisons
    assert [cell.stages for cell in found.cells] == [cell.stages for cell in base.cells]
    assert all("--split tune" in options for cell in found.cells for options in cell.evaluate)


def test_a_placeholder_without_a_value(config):
    with pytest.raises(UsageError, match="no value for teacher"):
        read_experiment(config, {"student": "y"})
