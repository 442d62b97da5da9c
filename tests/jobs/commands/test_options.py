"""The command line as a surface: every option has help and one owner, and settings survive a command line."""

import re
import subprocess
import sys
from dataclasses import MISSING, asdict
from pathlib import Path

import pytest
import typer
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from typer.main import get_command
from typer.testing import CliRunner

from jobs.cli import app
from jobs.cluster.settings import ClusterSettings, TrainCluster
from jobs.commands.options import StaleSettings, list_options, with_settings
from jobs.commands.recipes import load_recipe, recipe_names
from jobs.ranking.settings import EncodeSettings, EvaluationSettings, SearchSettings
from pipeline.errors import UsageError
from pipeline.exports.settings import ExportSettings
from pipeline.imports.score_files import FORMS
from pipeline.imports.settings import HubOptions, ListOptions, ScoreOptions
from pipeline.retrieval.settings import Bm25Settings
from pipeline.scores.settings import PairSettings
from pipeline.settings import build_settings, command_words, option_of, options_of
from pipeline.triples.settings import Resources, TripleSettings
from students.architectures import ARCHITECTURES
from students.settings import TrainSettings
from teachers.settings import ScoringSettings

# Options of one command that say where, under which name or how it reports, and shape nothing that is stored as a set.
COMMAND_ONLY = {
    "import msmarco": {"queries", "qrels", "collection", "keep_unknown"},
    "import hard-negatives": {"file"},
    "import scores": {"file", "teacher"},
    "import run": {"file", "system"},
    "import top1000": {"file", "system"},
    "import triples": {"file", "system", "texts"},
    "import beir": {"directory"},
    "import hub": {"name", "queries_split", "teacher", "system"},
    "import ir-dataset": {"name", "split"},
    "hold-out": {"name", "queries", "ids", "split"},
    "mine": {"split", "system", "student", "dtype", "k", "max_queries", "seed", "processes"},
    "score": {"teacher", "overwrite", "dry_run", "show_input"},
    "build-triples": {"teacher", "name", "audit"},
    "build-lists": {"teacher", "name", "audit", "size", "drop_short"},
    "explore-threshold": {"teacher", "first", "last", "step", "csv", "plot"},
    "train": {"name", "recipe", "targets", "overwrite", "summary"},
    "evaluate": {"latency", "summary"},
    "encode": {"student"},
    "search": {"query", "queries", "as_json"},
    "export": {"output"},
    "status": {"watch"},
    "plan": {"teacher", "machine", "pairs", "mean_tokens", "share_of_peak"},
    "verify": {"sample", "seed"},
    "experiment": {"config", "results", "values", "only", "minutes", "stages", "table_only"},
    "report": {"experiment", "values", "results", "output"},
    "demo": {"directory"},
}
OTHER_DEFAULTS = {("build-lists", "threshold"): None, ("build-lists", "strategy"): "top"}
LISTED = list(list_options(app))
KINDS = [
    *(TrainSettings, TrainCluster, ScoringSettings, ClusterSettings, TripleSettings, Resources, PairSettings),
    *(EvaluationSettings, SearchSettings, EncodeSettings, ExportSettings, ScoreOptions, ListOptions, HubOptions),
    Bm25Settings,
]


@pytest.mark.parametrize("listed", LISTED, ids=lambda listed: f"{listed.command} {listed.parameter.name}")
def test_every_option_has_help_and_one_owner(listed):
    text = listed.parameter.help or ""
    assert text.endswith(".") and "{" not in text.replace("{NAME}", "") and "[default" not in text
    others = COMMAND_ONLY.get(listed.command, set()) | {"workspace"}
    assert (listed.setting is None) == (listed.parameter.name in others)


def test_the_list_of_other_options_is_short_and_of_today():
    for command, names in COMMAND_ONLY.items():
        assert names <= {listed.parameter.name for listed in LISTED if listed.command == command}
    assert sum(map(len, COMMAND_ONLY.values())) < len(LISTED) / 3


@pytest.mark.parametrize(
    "listed", [listed for listed in LISTED if listed.setting], ids=lambda one: str(one.setting.word)
)
def test_defaults_are_those_of_the_settings(listed):
    parameter, setting = listed.parameter, listed.setting
    expected = OTHER_DEFAULTS.get((listed.command, setting.name), setting.default)
    default = parameter.default() if callable(parameter.default) else parameter.default
    if expected is MISSING:
        assert parameter.required
    elif setting.repeated or setting.named:
        assert tuple(default) == tuple(expected or ())
    elif setting.description.none:
        assert default == (setting.description.none if expected is None else f"{expected:g}")
    else:
        assert default == expected


def test_help_is_grouped_and_fits_the_terminal(monkeypatch):
    for columns in (80, 100):
        monkeypatch.setenv("COLUMNS", str(columns))
        shown = CliRunner().invoke(app, ["train", "--help"]).output
        panels = [line.rstrip(":") for line in shown.splitlines() if line.endswith(":") and not line.startswith(" ")]
        assert panels == ["Options", "Data", "Model", "Loss", "Optimisation", "Validation", "Cluster"]
        assert max(map(len, shown.splitlines())) <= columns and '"[Q]"' in shown
    many = {command: [one for one in LISTED if one.command == command] for command in COMMAND_ONLY}
    for command, options in many.items():
        named = {getattr(one.parameter, "rich_help_panel", None) for one in options} - {None}
        assert len(options) <= 14 or len(named) > 1, command


def test_help_cuts_no_option_in_two(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    for command in {option.command for option in LISTED}:
        shown = CliRunner().invoke(app, [*command.split(), "--help"]).output
        assert "--help" in shown and "\N{NON-BREAKING HYPHEN}" not in shown
        assert not re.search(r"--[a-z-]*-$", shown, re.MULTILINE), command


def test_help_loads_no_numbers_or_tables():
    heavy = "{'numpy', 'pyarrow', 'duckdb', 'bm25s', 'torch', 'transformers', 'ray', 'datasets', 'pydantic', 'rich'}"
    check = f"import sys, jobs.cli; print(sorted({heavy} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_training_settings_need_the_standard_library_alone():
    check = "import sys; before = set(sys.modules); import students.settings; "
    check += "print({name.split('.')[0] for name in set(sys.modules) - before} - set(sys.stdlib_module_names))"
    found = subprocess.run([sys.executable, "-S", "-c", check], capture_output=True, text=True, check=True)
    assert eval(found.stdout) <= {"pipeline", "students"}


def test_recipes_hold_known_settings():
    known = {option.key: option for option in options_of(TrainSettings)}
    for name in recipe_names():
        for key, value in load_recipe(name).items():
            assert key == "targets" or known[key].check(value) is None


def test_help_names_every_architecture_and_form():
    text = option_of(TrainSettings, "architecture").help
    assert all(name in text for name in ARCHITECTURES)
    assert set(option_of(ScoreOptions, "form").choices) == set(FORMS)


def parsed(kind, words):
    """The settings that a command line of these words gives."""
    taken = []

    def command(chosen):
        taken.append(chosen)

    command.__annotations__ = {"chosen": kind}
    alone = typer.Typer(rich_markup_mode=None, add_completion=False)
    alone.command()(with_settings(command))
    get_command(alone).main(words, standalone_mode=False)
    return taken[0]


def values_of(option):
    """Values of an option, some of them refused by its settings class."""
    about = option.description
    if option.name == "loss":
        return st.sampled_from(["margin_mse", "bce", "margin_mse+0.2*mnrl", "in_batch_kl"])
    if option.named:
        return st.dictionaries(st.from_regex(r"[a-z]{1,5}", fullmatch=True), numbers(about), min_size=1, max_size=3)
    if option.repeated:
        words = st.sampled_from(option.choices) if option.choices else texts()
        return st.lists(words, min_size=1, max_size=3).map(tuple)
    if option.choices:
        return st.sampled_from(option.choices)
    if option.item is bool:
        return st.just(True) if about.flag else st.booleans()
    if option.item is int:
        return st.integers(int(about.minimum or 0), 10**9)
    if option.item is float:
        return st.none() | numbers(about) if about.none else numbers(about)
    return texts().map(Path) if option.item is Path else texts()


def numbers(about):
    """Numbers within a range."""
    lowest = about.minimum if about.minimum is not None else about.above if about.above is not None else -1e6
    return st.floats(lowest, about.maximum or 1e9, exclude_min=about.above is not None)


def texts():
    """Texts that a shell can hand over."""
    return st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), min_size=1, max_size=8)


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@settings(max_examples=40, suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.too_slow])
@given(data=st.data())
def test_settings_survive_a_command_line(kind, data):
    options = {option.key: values_of(option) for option in options_of(kind)}
    required = {"init": st.just("base"), "triples": st.just("t")} if kind is TrainSettings else {}
    required |= {"form": st.sampled_from(["kd", "n-tuple"])} if kind is ExportSettings else {}
    chosen = data.draw(st.sets(st.sampled_from(sorted(options)), max_size=6)) - required.keys()
    values = data.draw(st.fixed_dictionaries({**{key: options[key] for key in chosen}, **required}))
    try:
        built = build_settings(kind, values)
    except UsageError:
        assume(False)
    assert parsed(kind, command_words(kind, asdict(built))) == built


def test_every_command_takes_whole_settings_or_says_which():
    used = {listed.setting.owner for listed in LISTED if listed.setting}
    assert used >= set(KINDS)
    trained = {listed.setting.key for listed in LISTED if listed.command == "train" and listed.setting}
    assert trained == {
        option.key for kind in (TrainSettings, TrainCluster, StaleSettings) for option in options_of(kind)
    }
