"""Recipes: whole settings of `prep train` by the names of its options, from the data file beside this or a user's own.

An option given on the command line wins over the recipe, and the recipe over the option's default.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast, get_args

import typer

from pipeline.errors import UsageError

FILE = Path(__file__).with_name("recipes.toml")
NOT_IN_RECIPES = frozenset(
    {"workspace", "name", "recipe", "overwrite", "num_workers", "address", "cpus_per_worker", "summary"}
)
"""Options that say where and how often, not what is trained."""


def recipe_names() -> list[str]:
    """The names in the data file."""
    return sorted(_read(FILE))


def load_recipe(named: str) -> dict[str, Any]:
    """Options of a recipe by name, or of a TOML file that holds one.

    Raises:
        UsageError: no such recipe, or a file that cannot be read.
    """
    path = Path(named).expanduser()
    if path.suffix == ".toml":
        return _read(path)
    recipes = _read(FILE)
    if named not in recipes:
        raise UsageError(
            f"no recipe {named!r}", expected=f"one of: {', '.join(sorted(recipes))}", todo="or name a .toml file"
        )
    return cast(dict[str, Any], recipes[named])


def resolve_options(context: typer.Context, kinds: Mapping[str, Any], recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The command's options: as given, else as the recipe has them, else their defaults.

    Args:
        context: of the command as it was called.
        kinds: type of each option.
        recipe: values by option.

    Raises:
        UsageError: a key that is no option, or a value of another type than the option's.
    """
    options = {name: value for name, value in context.params.items() if name not in NOT_IN_RECIPES}
    where = context.params["recipe"]
    unknown = sorted(set(recipe) - set(options))
    if unknown:
        raise UsageError(
            "unknown recipe key", where=where, expected="an option of prep train", found=", ".join(unknown)
        )
    for name, value in recipe.items():
        kind = kinds[name]
        allowed = get_args(kind) or (kind,)
        value = float(value) if float in allowed and type(value) is int else value
        if type(value) not in allowed:
            raise UsageError(f"recipe key {name}", where=where, expected=f"a value of type {kind}", found=repr(value))
        source = context.get_parameter_source(name)
        if source is None or source.name not in ("COMMANDLINE", "ENVIRONMENT"):
            options[name] = value
    return options


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError("recipe file cannot be read", where=path, found=error) from error
