"""Recipes: settings of `prep train` in a TOML file, under the names of its options with underscores.

`recipes.toml` beside this module holds those of published models. An option on the command line overrides the recipe,
and the recipe overrides the option's default.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import typer

from pipeline.errors import UsageError
from pipeline.settings import Option, options_of
from students.settings import TrainSettings

FILE = Path(__file__).with_name("recipes.toml")


def recipe_names() -> list[str]:
    """Names of the recipes in `recipes.toml`."""
    return sorted(_read(FILE))


def load_recipe(name: str) -> dict[str, Any]:
    """Entries of a recipe of `recipes.toml`, or of a .toml file that holds one recipe without a name.

    Raises:
        UsageError: no such recipe, or the file cannot be read.
    """
    path = Path(name).expanduser()
    if path.suffix == ".toml":
        return _read(path)
    recipes = _read(FILE)
    if name not in recipes:
        raise UsageError(
            f"no recipe {name!r}",
            where=FILE,
            expected=f"one of: {', '.join(sorted(recipes))}",
            todo="pass one of them, or a .toml file",
        )
    return cast(dict[str, Any], recipes[name])


def resolve_options(
    context: typer.Context, where: str, entries: Mapping[str, Any], options: Mapping[str, Any]
) -> dict[str, Any]:
    """Options as the command line gives them, else as the recipe does, else with their defaults.

    Args:
        context: of the command, which knows the options on its command line.
        where: the recipe's name or file, for messages.
        entries: of the recipe, by key.
        options: of the command line, defaults included, by key.

    Raises:
        UsageError: a key that is not an option, or a value of another type than the option's or out of its range.
    """
    unknown = sorted(entries.keys() - options.keys())
    if unknown:
        raise UsageError(
            "unknown recipe key",
            where=where,
            expected="options of prep train, with underscores",
            found=", ".join(unknown),
        )
    known = {option.key: option for option in options_of(TrainSettings)}
    resolved = dict(options)
    for key, value in entries.items():
        typed = _typed(known.get(key), key, value, where)
        source = context.get_parameter_source(key)
        if source is None or source.name not in ("COMMANDLINE", "ENVIRONMENT"):
            resolved[key] = typed
    return resolved


def _typed(option: Option | None, key: str, value: Any, where: str) -> Any:
    """A recipe's value as the option's type; a whole number is also a number."""
    if option is None:
        return value
    try:
        option.check(value)
    except UsageError as error:
        raise UsageError(
            f"recipe key {key}: {error.what}", where=where, expected=error.expected, found=error.found
        ) from error
    return float(value) if option.item is float and type(value) is int else value


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError("cannot read the recipe", where=path, expected="a TOML file", found=error) from error
