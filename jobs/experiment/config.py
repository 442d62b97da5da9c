"""An experiment as a TOML file says it: stages, then a grid of students, targets and seeds.

Commands are those of the command line, without `prep` and `-w`. `{name}` in them stands for a value: a setting, if it
stands under `[set]` in the file, and part of what a cell is; else a place that is given with `--set name=value`, like
the directory of the data, which differs from machine to machine. `{here}` is the file's own directory. The own stages
of a target or a baseline run only when one of its cells does. A file that `extends` another has all entries of that one
but those that it gives itself.
"""

from __future__ import annotations

import re
import shlex
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, UsageError
from pipeline.names import check_name

_PLACEHOLDER = re.compile(r"\{(\w+)\}")
_KEYS = {"name", "extends", "set", "stages", "train", "evaluate", "baseline", "student", "target", "grid", "compare"}


@dataclass(frozen=True)
class Cell:
    """One student, trained to one target with one seed; or a baseline, which is only evaluated and has no student."""

    student: str
    target: str
    seed: int
    train: str
    """The training command's options."""
    evaluate: list[str]
    """Options of each evaluation."""
    encode: str | None
    """Options of `encode` before that, so that several evaluations share the passages; None goes without."""
    stages: list[str]
    """Commands that come first, in order: those of the experiment, then its target's. Other teachers, another cell."""

    @property
    def name(self) -> str:
        """Of the student in the workspace, and of the result's file."""
        return f"{self.student}-{self.target}-s{self.seed}" if self.student else f"baseline-{self.seed}"


@dataclass(frozen=True)
class Experiment:
    """What is to be run."""

    name: str
    cells: list[Cell]
    comparisons: list[tuple[str, str]]
    """Pairs of targets: is the first better than the second, for each student."""
    baselines: list[Cell]
    """Evaluations of retrievers and teachers."""
    measure: str
    """What comparisons are made of."""
    places: Mapping[str, str]
    """Values that differ from machine to machine; commands hold their names."""

    def placed(self, command: str) -> str:
        """A command as it is run here."""
        return _PLACEHOLDER.sub(lambda match: shlex.quote(self.places[match[1]]), command)


def read_experiment(path: Path, values: Mapping[str, str]) -> Experiment:
    """Read a file, with values for its placeholders.

    Raises:
        InputError: not TOML, unknown or missing keys, a cell twice, or files that extend each other.
        UsageError: a placeholder without a value.
    """
    facts = _read(path)
    settings = facts.get("set", {})
    places = {name: value for name, value in values.items() if name not in settings} | {"here": str(path.parent)}
    fill = _Filler({**settings, **{name: values[name] for name in settings.keys() & values.keys()}}, places, path)
    try:
        _only(facts["train"], {"options"}, path)
        _only(facts["evaluate"], {"options", "measure"}, path)
        stages = [fill(stage) for stage in facts["stages"]]
        found = Experiment(
            check_name("experiment", facts["name"]),
            _cells(facts, stages, fill, path),
            [(one, other) for one, other in facts.get("compare", [])],
            _baselines(facts, stages, fill, path),
            facts["evaluate"].get("measure", "MRR@10"),
            places,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError("not an experiment", where=path, found=f"{type(error).__name__}: {error}") from error
    twice = sorted(name for name, count in Counter(cell.name for cell in found.cells).items() if count > 1)
    if twice:
        raise InputError("a cell stands twice in the grid", where=path, found=", ".join(twice))
    return found


def _read(path: Path, *extending: Path) -> dict[str, Any]:
    """A file's entries, over those of the file that it extends."""
    if path.resolve() in extending:
        raise InputError("experiments extend each other", where=path)
    try:
        facts = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError("not an experiment", where=path, expected="a TOML file", found=error) from error
    _only(facts, _KEYS, path)
    extended = facts.pop("extends", None)
    if extended is None:
        return facts
    return {**_read(path.parent / str(extended), path.resolve(), *extending), **facts}


def _cells(facts: dict[str, Any], stages: list[str], fill: _Filler, path: Path) -> list[Cell]:
    students = _named(facts["student"], {"name", "options", "evaluate", "encode"}, path)
    targets = _named(facts["target"], {"name", "options", "stages"}, path)
    cells = []
    for part in facts["grid"]:
        for seed, student, target in product(part["seeds"], part["students"], part["targets"]):
            train = (facts["train"]["options"], students[student]["options"], targets[target]["options"])
            evaluate = [(facts["evaluate"]["options"], own) for own in _list(students[student].get("evaluate", ""))]
            cells.append(
                Cell(
                    student,
                    target,
                    seed,
                    fill(" ".join(train)),
                    [fill(" ".join(parts).strip()) for parts in evaluate],
                    fill(students[student]["encode"]) if "encode" in students[student] else None,
                    [*stages, *(fill(stage) for stage in targets[target].get("stages", []))],
                )
            )
    return cells


def _baselines(facts: dict[str, Any], stages: list[str], fill: _Filler, path: Path) -> list[Cell]:
    cells = []
    for number, baseline in enumerate(facts.get("baseline", []), 1):
        _only(baseline, {"options", "stages"}, path)
        own = [*stages, *(fill(stage) for stage in baseline.get("stages", []))]
        options = f"{facts['evaluate']['options']} {baseline['options']}"
        cells.append(Cell("", "", number, "", [fill(options)], None, own))
    return cells


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@dataclass(frozen=True)
class _Filler:
    """Puts settings for their placeholders; those of places stay."""

    settings: Mapping[str, Any]
    places: Mapping[str, str]
    path: Path

    def __call__(self, text: str) -> str:
        missing = sorted(set(_PLACEHOLDER.findall(text)) - self.settings.keys() - self.places.keys())
        if missing:
            raise UsageError(
                f"no value for {', '.join(missing)}", where=self.path, todo=f"give --set {missing[0]}=VALUE"
            )
        return _PLACEHOLDER.sub(lambda match: str(self.settings.get(match[1], match[0])), text)


def _named(entries: list[dict[str, Any]], known: set[str], path: Path) -> dict[str, dict[str, Any]]:
    for entry in entries:
        _only(entry, known, path)
    return {check_name("student or target", entry["name"]): entry for entry in entries}


def _only(facts: Mapping[str, Any], known: set[str], path: Path) -> None:
    unknown = sorted(facts.keys() - known)
    if unknown:
        raise InputError("unknown keys", where=path, expected=", ".join(sorted(known)), found=", ".join(unknown))
