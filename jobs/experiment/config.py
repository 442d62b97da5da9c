"""Reads an experiment, a TOML file with stages and a grid of students, targets and seeds.

Commands in the file are those of the command line, without `prep` and `-w`. `{name}` in a command is a placeholder. Its
value is a setting if `[set]` in the file has the name: settings belong to a cell, and changing one makes other cells.
Otherwise it is a local value, such as the directory of the data, which differs from machine to machine and comes from
`--set name=value`. `{here}` is the directory of the file. Stages of a target or a baseline run only if one of its cells
does. A file that `extends` another takes over its entries and replaces those that it has itself.
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
    """A student trained for a target with a seed, or a baseline, which has no student and is only evaluated."""

    student: str
    target: str
    seed: int
    train: str
    """Options of `train`."""
    evaluate: list[str]
    """Options of each `evaluate`."""
    encode: str | None
    """Options of `encode`, which runs before the evaluations so that they share the passages; None skips it."""
    stages: list[str]
    """Commands that run before, in order: those of the experiment, then those of the target. They are part of the cell:
    with other teachers it is another cell."""

    @property
    def name(self) -> str:
        """Name of the student in the workspace, and of the file with the result."""
        return f"{self.student}-{self.target}-s{self.seed}" if self.student else f"baseline-{self.seed}"


@dataclass(frozen=True)
class Experiment:
    """The cells of an experiment, and how they are compared."""

    name: str
    cells: list[Cell]
    comparisons: list[tuple[str, str]]
    """Pairs of targets to compare, for each student: is the first better than the second?"""
    baselines: list[Cell]
    """Evaluations of retrievers and teachers."""
    measure: str
    """Measure of the comparisons, such as MRR@10."""
    places: Mapping[str, str]
    """Values that differ from machine to machine, by placeholder; commands keep the placeholder."""

    def placed(self, command: str) -> str:
        """The command with its local values, as it runs on this machine."""
        return _PLACEHOLDER.sub(lambda match: shlex.quote(self.places[match[1]]), command)


def read_experiment(path: Path, values: Mapping[str, str]) -> Experiment:
    """Read an experiment's file, with values for its placeholders.

    Raises:
        InputError: not TOML, unknown or missing keys, two cells of one name, or files that extend each other.
        UsageError: a placeholder without a value.
    """
    entries = _read(path)
    settings = entries.get("set", {})
    places = {name: value for name, value in values.items() if name not in settings} | {"here": str(path.parent)}
    fill = _Filler({**settings, **{name: values[name] for name in settings.keys() & values.keys()}}, places, path)
    try:
        _only(entries["train"], {"options"}, path)
        _only(entries["evaluate"], {"options", "measure"}, path)
        stages = [fill(stage) for stage in entries["stages"]]
        experiment = Experiment(
            check_name("experiment", entries["name"]),
            _cells(entries, stages, fill, path),
            [(first, second) for first, second in entries.get("compare", [])],
            _baselines(entries, stages, fill, path),
            entries["evaluate"].get("measure", "MRR@10"),
            places,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(
            "not an experiment",
            where=path,
            expected=f"the keys {', '.join(sorted(_KEYS))}, with their tables",
            found=f"{type(error).__name__}: {error}",
        ) from error
    twice = sorted(name for name, count in Counter(cell.name for cell in experiment.cells).items() if count > 1)
    if twice:
        raise InputError(
            "the grid has a cell twice", where=path, found=", ".join(twice), todo="remove one of its entries"
        )
    return experiment


def _read(path: Path, *extending: Path) -> dict[str, Any]:
    """The entries of a file, and of the file that it extends where it has none."""
    if path.resolve() in extending:
        raise InputError("experiments extend each other", where=path)
    try:
        entries = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError("not an experiment", where=path, expected="a TOML file", found=error) from error
    _only(entries, _KEYS, path)
    extended = entries.pop("extends", None)
    if extended is None:
        return entries
    return {**_read(path.parent / str(extended), path.resolve(), *extending), **entries}


def _cells(entries: dict[str, Any], stages: list[str], fill: _Filler, path: Path) -> list[Cell]:
    students = _named(entries["student"], {"name", "options", "evaluate", "encode"}, path)
    targets = _named(entries["target"], {"name", "options", "stages"}, path)
    cells = []
    for part in entries["grid"]:
        for seed, student, target in product(part["seeds"], part["students"], part["targets"]):
            train = (entries["train"]["options"], students[student]["options"], targets[target]["options"])
            evaluate = [(entries["evaluate"]["options"], more) for more in _list(students[student].get("evaluate", ""))]
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


def _baselines(entries: dict[str, Any], stages: list[str], fill: _Filler, path: Path) -> list[Cell]:
    cells = []
    for number, baseline in enumerate(entries.get("baseline", []), 1):
        _only(baseline, {"options", "stages"}, path)
        commands = [*stages, *(fill(stage) for stage in baseline.get("stages", []))]
        options = f"{entries['evaluate']['options']} {baseline['options']}"
        cells.append(Cell("", "", number, "", [fill(options)], None, commands))
    return cells


def _list(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


@dataclass(frozen=True)
class _Filler:
    """Replaces placeholders of settings by their values; placeholders of local values stay."""

    settings: Mapping[str, Any]
    places: Mapping[str, str]
    path: Path

    def __call__(self, text: str) -> str:
        missing = sorted(set(_PLACEHOLDER.findall(text)) - self.settings.keys() - self.places.keys())
        if missing:
            raise UsageError(
                f"no value for {', '.join(missing)}", where=self.path, todo=f"pass --set {missing[0]}=VALUE"
            )
        return _PLACEHOLDER.sub(lambda match: str(self.settings.get(match[1], match[0])), text)


def _named(entries: list[dict[str, Any]], known: set[str], path: Path) -> dict[str, dict[str, Any]]:
    for entry in entries:
        _only(entry, known, path)
    return {check_name("student or target", entry["name"]): entry for entry in entries}


def _only(entries: Mapping[str, Any], known: set[str], path: Path) -> None:
    unknown = sorted(entries.keys() - known)
    if unknown:
        raise InputError("unknown keys", where=path, expected=", ".join(sorted(known)), found=", ".join(unknown))
