"""The report: every section shows the data, hostile texts stay texts, and missing data is named with its command."""

import itertools
import json
import re
import tomllib
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from jinja2 import UndefinedError
from markupsafe import Markup
from typer.testing import CliRunner

from jobs.cli import app
from jobs.experiment.run import Row, Sample
from jobs.experiment.tables import ALPHA, ComparedPair, Condition, ResultLine
from jobs.report import triples as triples_report
from jobs.report.build import build_report
from jobs.report.markup import call, render
from jobs.report.page import Source
from jobs.report.plot import Axis, Plot
from jobs.report.queries import _bars
from jobs.report.result_rows import MOST_COMPARED, Change, Results, _compare_all, workspace_results
from jobs.report.results import findings, results_section
from jobs.training.stage import train_student
from pipeline.evaluation.significance import Comparison, holm
from pipeline.imports.msmarco import import_msmarco
from pipeline.storage.workspace import Workspace
from pipeline.triples.build import TripleSettings, build_triples
from students.settings import StudentSettings, TrainSettings
from tests import worlds
from tests.tiny_models import save_tiny

HOSTILE = "</details></main><script>alert('x')</script>&amp;<img src=x onerror=alert(1)>"
ROOT = Path(__file__).parents[3]
SECTIONS = ["results", "queries", "teachers", "triples", "training", "provenance"]


def prep(*arguments):
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """A collection whose every text is an attack, with two teachers, triples and two students, evaluated."""
    directory = tmp_path_factory.mktemp("report")
    files = worlds.write_files(directory)
    for name in ("collection", "train", "dev"):
        lines = files[name].read_text().splitlines()
        files[name].write_text("".join(f"{line} {HOSTILE}\n" for line in lines))
    workspace = Workspace.open(str(directory / "ws"), create=True)
    splits = ([(split, files[f"{split}{kind}"]) for split in ("train", "dev")] for kind in ("", ".qrels"))
    import_msmarco(workspace, files["collection"], *splits)
    worlds.scored(worlds.paired(workspace), {"a": 1, "b": 2})
    build_triples(workspace, TripleSettings(0.0))
    prep("explore-threshold", "-w", workspace.root, "--from", -5, "--to", 5)
    init = str(save_tiny("bert", directory / "tiny"))
    shape = StudentSettings(max_query_tokens=8, max_passage_tokens=16)
    for seed, name in enumerate(("bert_dot", "colbert")):
        settings = TrainSettings(
            name, init, "margin_mse", "default", max_steps=3, student=shape, seed=seed, eval_steps=2
        )
        train_student(workspace, name, settings)
    students = ("--student", "bert_dot", "--student", "colbert")
    prep("evaluate", "-w", workspace.root, "--run", "bm25", "--teacher", "a", "--teacher", "b", *students, "--latency")
    return workspace


@pytest.fixture(scope="module")
def page(world):
    prep("report", "-w", world.root)
    return world.path("report.html").read_text()


class Tags(HTMLParser):
    """Checks that elements are closed in order, and collects them and their text."""

    def __init__(self, page):
        super().__init__()
        self.stack, self.seen, self.text = [], [], []
        self.feed(page)
        assert not self.stack

    def handle_starttag(self, tag, attrs):
        self.seen.append((tag, dict(attrs)))
        if tag not in ("meta", "br"):
            self.stack.append(tag)

    def handle_endtag(self, tag):
        assert self.stack.pop() == tag

    def handle_data(self, data):
        self.text.append(data)


def test_the_latency_of_an_earlier_training_is_not_shown(world):
    def timed():
        return {line.system for (line,) in workspace_results(world).paths}

    assert timed() == {"bert_dot-rerank", "colbert-rerank"}
    kept = world.read_json("runs", "dev-colbert.latency.json")
    world.write_json({**kept, "inputs": {"students/colbert": "another"}}, "runs", "dev-colbert.latency.json")
    assert timed() == {"bert_dot-rerank"}
    world.write_json(kept, "runs", "dev-colbert.latency.json")


def test_stale_runs_are_named_and_not_compared(world, tmp_path):
    facts = world.read_json("runs", "dev-a.json")
    world.write_json(facts | {"inputs": facts["inputs"] | {"scores/a": "others"}}, "runs", "dev-a.json")
    found = workspace_results(world)
    prep("report", "-w", world.root, "-o", tmp_path / "page.html")
    world.write_json(facts, "runs", "dev-a.json")
    assert [(run, why) for run, _, why in found.stale] == [("dev-a.run", "changed since: scores/a")]
    assert "a" not in {line.system for line in found.lines} and "b" in {line.system for line in found.lines}
    assert "changed since: scores/a" in (tmp_path / "page.html").read_text()
    assert not workspace_results(world).stale


def test_splits_and_grades_are_compared_apart(world, tmp_path):
    before = {path.name for path in (world.root / "runs").iterdir()}
    options = ("--run", "bm25", "--teacher", "a", "--teacher", "b")
    prep("evaluate", "-w", world.root, "--split", "train", *options, "--relevance-level", 2)
    copied = tmp_path / "copied.run"
    copied.write_bytes(world.path("runs", "train-bm25.run").read_bytes())
    prep("evaluate", "-w", world.root, "--split", "train", "--run", copied, "--relevance-level", 2)
    found = workspace_results(world)
    prep("report", "-w", world.root, "-o", tmp_path / "page.html")
    commands = [world.read_json("runs", f"train-{name}.json")["command"] for name in ("a", "copied")]
    for path in (world.root / "runs").iterdir():
        if path.name not in before:
            path.unlink()
    assert {line.sample for line in found.lines} == {Sample("dev", None, 1), Sample("train", None, 2)}
    assert all("--relevance-level 2" in command for command in commands) and f"--run {copied}" in commands[1]
    asked = {line.sample: len(line.rows[0].values) for line in found.lines}
    for one in found.compared:
        assert one.queries == asked[one.condition.sample] >= one.comparison.wins + one.comparison.losses
    page = (tmp_path / "page.html").read_text()
    assert f"{worlds.DEV} of dev" in page and "of train, grade 2 up" in page
    assert "rerank of dev" in page and "rerank of train" in page


def test_every_section_and_figure_is_there(page):
    tags = Tags(page)
    assert [attrs["id"] for tag, attrs in tags.seen if tag == "section"] == SECTIONS
    assert "Not available" not in page
    titles = re.findall(r"<h3>\d+\. ([^<:]+)", page)
    assert titles == [
        "Results",
        "Comparisons",
        "Latency against effectiveness",
        "Change by query",
        "Best and worst queries",
        "Scores of judged and unjudged pairs, by teacher",
        "Agreement of the teachers",
        "Margins of candidates and triples",
        "What each threshold keeps",
        "The funnel",
        "Loss by step",
        "Validation by step",
    ]
    assert page.count("<figcaption>") == page.count("Data and commands</summary>") == len(titles)
    for svg in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        assert "nan" not in svg.lower().replace("finan", "") and "inf " not in svg


def test_nothing_is_loaded_and_nothing_runs(page):
    kinds = {tag for tag, _ in Tags(page).seen}
    assert not kinds & {"script", "link", "img", "iframe", "object", "embed"}
    attributes = {name for _, attrs in Tags(page).seen for name in attrs}
    assert not {name for name in attributes if name.startswith("on")} and "src" not in attributes
    assert "url(" not in page and "@import" not in page
    links = [attrs["href"] for tag, attrs in Tags(page).seen if tag == "a"]
    targets = {attrs["id"] for _, attrs in Tags(page).seen if "id" in attrs}
    assert links and {link.removeprefix("#") for link in links} <= targets


def test_hostile_texts_are_shown_as_texts(page):
    assert "<script" not in page and "onerror=alert(1)>" not in page
    assert page.count("&lt;script&gt;") > 4
    assert HOSTILE in "".join(Tags(page).text)


def test_the_same_data_gives_the_same_bytes(world, page, tmp_path):
    prep("report", "-w", world.root, "-o", tmp_path / "again.html")
    assert (tmp_path / "again.html").read_text() == page


def test_the_best_of_those_that_differ_is_bold(page):
    results = page[page.index("<table") : page.index("</table>")]
    bold = {row.split("<td>")[2].partition("<")[0]: row.count('"best"') for row in results.split("<tr>")[2:]}
    assert bold.pop("b") == 2 and set(bold.values()) == {0}  # all that re-rank have the same recall


def test_figures_are_those_of_the_data(world, page):
    facts = json.loads(world.path("runs", "dev-bm25.json").read_text())
    assert f'<td class="n"><span>{facts["means"]["Recall@100"]:.3f}</span></td>' in page
    assert facts["command"] == "prep evaluate --split dev --depth 1000 --run bm25" and facts["command"] in page
    footer = json.loads(world.path("triples", "default", "statistics.json").read_text())
    assert f'<span class="count">{footer["funnel"]["triples"]:,}</span>' in page
    assert "prep build-triples --name default --threshold 0 --teacher a --teacher b" in page
    assert "prep train --name bert_dot --architecture bert_dot" in page


def test_missing_figures_name_their_command(workspace):
    prep("report", "-w", workspace.root)
    page = workspace.path("report.html").read_text()
    assert [attrs["id"] for tag, attrs in Tags(page).seen if tag == "section"] == SECTIONS
    commands = re.findall(r'<p class="missing">.*?<code>prep ([a-z-]+)', page)
    assert commands == [
        "evaluate",
        "evaluate",
        "evaluate",
        "build-pairs",
        "build-triples",
        "explore-threshold",
        "train",
    ]


def test_incomplete_scores_are_named(paired):
    worlds.scored(paired, {"a": 1, "b": 2})
    paired.parts("scores", "b")[0].unlink()
    prep("report", "-w", paired.root)
    page = paired.path("report.html").read_text()
    assert "scores of b" in page and "run again: prep score --teacher b=CHECKPOINT" in page
    assert "a · architecture not recorded" in page


def cautions(workspace):
    return re.findall(r'<p class="caution">(.*?)</p>', build_report(workspace))


def test_teachers_on_mixed_scales_are_warned_of(paired, monkeypatch):
    worlds.scored(paired, {"a": 1})
    worlds.scored(paired, {"b": 1}, spread=200)
    build_triples(paired, TripleSettings(3.0, min_score=-99.0), name="mean")
    build_triples(paired, TripleSettings(None, ensemble="zscore"), name="scaled")
    found = cautions(paired)
    assert len(found) == 2 and all("differ by a factor of 50" in text for text in found)
    assert "mean of all teachers" in found[0] and "triples mean" in found[1]
    assert "prep build-triples --name mean --threshold 0." in found[1] and "--ensemble zscore" in found[1]
    assert "choose --min-score again" in found[1]
    # Sets of earlier versions do not record the spreads: today's scores have them.
    recorded = triples_report.usable_set

    def earlier(workspace, dataset, name):
        paths, footers = recorded(workspace, dataset, name)
        extra = {key: value for key, value in footers[0].extra.items() if key not in ("spreads", "zscore_threshold")}
        return paths, [replace(footers[0], extra=extra), *footers[1:]]

    monkeypatch.setattr(triples_report, "usable_set", earlier)
    assert len(found := cautions(paired)) == 2
    assert "differ by a factor of 50" in found[1] and "choose --min-score, --threshold again" in found[1]


def test_runs_of_another_training_are_not_shown_for_it(world, tmp_path):
    """The experiment's rows say what its runs must measure."""
    config = tmp_path / "x.toml"
    config.write_text(
        'name = "x"\nstages = []\ncompare = [["T1", "labels"]]\n[train]\noptions = ""\n[evaluate]\noptions = ""\n'
        '[[student]]\nname = "bert_dot"\noptions = ""\n[[target]]\nname = "T1"\noptions = ""\n'
        '[[target]]\nname = "labels"\noptions = ""\n[[target]]\nname = "another"\noptions = ""\n[[grid]]\n'
        'students = ["bert_dot"]\ntargets = ["T1", "labels", "another"]\nseeds = [1]\n'
    )
    means = {"MRR@10": 0.5, "nDCG@10": 0.5, "Recall@100": 0.5}
    for target, value in (("T1", 1.0), ("labels", 0.0), ("another", 0.0)):
        cell = {"student": "bert_dot", "target": target, "seed": 1, "train": "  ", "evaluate": [""]}
        cell |= {"encode": None, "stages": []}
        row = {"system": "bm25" if value else "a", "mode": "rerank", "student": "bert_dot", "target": target, "seed": 1}
        row |= {"means": means, "values": [value] * worlds.DEV, "latency_ms": 5.0}
        path = tmp_path / "x" / f"bert_dot-{target}-s1.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(json.dumps({"cell": cell, "rows": [row]}))
    prep("report", "-w", world.root, "--experiment", config, "-o", tmp_path / "page.html")
    page = (tmp_path / "page.html").read_text()
    assert "the run files in this workspace are not those that were measured" in page
    assert "T1 against labels: better for bert_dot (rerank +1.000)." in page
    assert "bert_dot · T1" in page and "prep experiment" in page
    assert re.findall(r"<circle[^>]*><title>(\w+)", page) == ["labels", "T1", "another"]  # joined ones first


def test_findings_say_where_left_is_better_than_right():
    def one(student, mode, difference, p, other="labels"):
        place = Condition(student, mode, Sample("dev", None, 1))
        return ComparedPair(place, "T2", other, 1, 9, Comparison(difference, 0, 0, p, p), p)

    grid = [one("tk", "rerank", 0.2, 0.5), one("colbert", "rerank", 0.1, 0.001), one("colbert", "retrieve", 0.3, 0.001)]
    grid += [one("prettr", "rerank", -0.1, 0.001), one("", "rerank", 0.2, 0.001, other="bm25")]
    assert findings(Results("MRR@10", [], grid, [], [], [])) == [
        "T2 against labels: better for colbert (rerank +0.100, retrieve +0.300); worse for prettr (rerank -0.100); "
        "no significant difference for tk (rerank +0.200).",
        "T2 against bm25: better (rerank +0.200).",
    ]


def row(system, values, mode="rerank"):
    return Row(system, mode, "", "", None, {"MRR@10": sum(values) / len(values)}, values)


def test_systems_are_compared_with_each_other_with_adjusted_p_values():
    rows = [row("bm25", [0.0] * 8, "first stage"), row("a", [0.25] * 8), row("b", [0.5] * 8)]
    compared = _compare_all(rows)
    assert [(pair.left, pair.right) for pair in compared] == [("a", "bm25"), ("b", "bm25"), ("b", "a")]
    assert [pair.comparison.difference for pair in compared] == [0.25, 0.5, 0.25]
    alone = [pair.comparison.randomisation for pair in compared]
    assert [pair.adjusted_p for pair in compared] == holm(alone) != alone
    assert max(alone) < ALPHA and not any(pair.significant for pair in compared)
    (only,) = _compare_all(rows[:2])
    assert only.adjusted_p == only.comparison.randomisation and only.significant
    many = [row(f"s{i}", [i / 20] * 8) for i in range(MOST_COMPARED + 1)]
    assert {pair.right for pair in _compare_all(many)} == {"s0"} and len(_compare_all(many[1:])) == 28


def test_the_page_counts_wins_ties_and_losses(workspace):
    values = [0.5, 0.5, 0.5, 0.1, 0.5, 0.0], [0.25, 0.25, 0.0, 0.4, 0.5, 0.0]
    rows = [row("bm25", values[1], "first stage"), row("a", values[0])]
    compared = _compare_all(rows)
    lines = [ResultLine(one.system, "", one.mode, [one], []) for one in rows]
    change = Change("a against bm25", "a", "bm25", *map(np.array, values), rows[0].sample, (Path("x"), Path("y")), ())
    results = Results("MRR@10", lines, compared, [change], [Source("prep evaluate", {})], [])
    table = results_section(results, "prep evaluate").parts[1]
    assert "a - bm25" in table.body and "3 / 2 / 1" in table.body and "+0.117" in table.body
    bars = _bars(results)
    assert "3 queries gain, 1 lose, 2 are unchanged" in bars.body


def test_an_undefined_p_value_is_no_number():
    (pair,) = _compare_all([row("bm25", [0.0] * 8, "first stage"), row("a", [0.5] * 8)])
    lines = [ResultLine(name, "", "rerank", [row(name, [0.5] * 8)], []) for name in ("a", "bm25")]
    results = Results("MRR@10", lines, [pair], [], [Source("prep evaluate", {})], [])
    body = results_section(results, "prep evaluate").parts[1].body
    assert "undefined" in body and "nan" not in body


def test_templates_escape_all_but_markup():
    cells = ["<", Markup("<b>")]
    assert '<td class="n">&lt;</td><td class="n"><b></td>' in call("parts.html", "table", ["", '"'], [cells], 0)
    with pytest.raises(UndefinedError):
        render("page.html", title="no sections")


def test_templates_are_package_data():
    """The wheel has them: every file beside the code is matched by a pattern of pyproject.toml."""
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]["jobs.report"]
    package = ROOT / "jobs" / "report"
    packed = {path for pattern in patterns for path in package.glob(pattern)}
    assert {path for path in package.rglob("*") if path.suffix in (".html", ".svg", ".css")} == packed != set()


def test_names_beside_dots_do_not_overlap():
    plot = Plot(Axis("x", 0, 10), Axis("y", 0, 10))
    words = ["labels", "T1", "T2", *(f"other{i}" for i in range(9))]
    for i, word in enumerate(words):
        plot.dot((5.0, 5 + 0.2 * i), 0, word)
    assert re.findall(r"<title>(\w+)</title></circle>", plot.svg("told")) == words
    found = re.findall(r'<text x="([\d.]+)" y="([\d.]+)" class="note">(\w+)', plot.svg("told"))
    boxes = [(float(x), float(y) - 11, float(x) + 7.5 * len(word), float(y) + 3) for x, y, word in found]
    assert 3 < len(boxes) < len(words)
    for one, other in itertools.combinations(boxes, 2):
        assert one[2] <= other[0] or other[2] <= one[0] or one[3] <= other[1] or other[3] <= one[1]


def test_axes_have_round_ticks_and_hold_their_values():
    assert Axis("x", 0, 10).ticks(5) == [0, 2, 4, 6, 8, 10]
    assert Axis("x", -0.31, 0.33).ticks(4) == pytest.approx([-0.2, 0, 0.2])
    assert Axis("x", 3, 800, log=True).ticks(9) == [5, 10, 20, 50, 100, 200, 500]
    plot = Plot(Axis.decades("ms", [2.0, 900.0]), Axis.over("y", [0.5, 0.5]))
    plot.line([(2.0, 0.5), (900.0, 0.5)], 0)
    xs = [float(x) for x in re.findall(r"[ML]([\d.]+) ", plot.svg("told"))]
    assert 54 < xs[0] < xs[1] < 406
