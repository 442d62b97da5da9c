"""The experiments in the repository are well-formed, and their commands and options exist."""

import shlex
import tomllib

import pytest
import typer

from jobs.cli import app
from jobs.experiment.config import read_experiment
from tests.integration.ray_nodes import ROOT

FILES = sorted((ROOT / "experiments").glob("*.toml"))
RECIPES = tomllib.loads((ROOT / "jobs" / "commands" / "recipes.toml").read_text())
VALUES = {"data": "DIR", "encoder": "NAME"}
COMMAND = typer.main.get_command(app)  # Building it takes longer than parsing.


def parse(words):
    """Parses a command line without running it."""
    command = COMMAND
    context = command.make_context("prep", list(words), resilient_parsing=False)
    while hasattr(command, "commands"):
        name, command, rest = command.resolve_command(context, [*context._protected_args, *context.args])
        context = command.make_context(name, rest, parent=context)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_command_parses(path):
    experiment = read_experiment(path, VALUES)
    assert experiment.name == path.stem and len(experiment.cells) > 5
    compared = {target for pair in experiment.comparisons for target in pair}
    assert compared <= {cell.target for cell in experiment.cells}
    for command in [
        *(f"evaluate {options}" for cell in experiment.baselines for options in cell.evaluate),
        *(stage for cell in [*experiment.baselines, *experiment.cells] for stage in cell.stages),
        *(f"train --name {cell.name} {cell.train}" for cell in experiment.cells),
        *(f"evaluate --student {cell.name} {options}" for cell in experiment.cells for options in cell.evaluate),
    ]:
        parse([*shlex.split(experiment.placed(command)), "-w", "ws"])
        if " --recipe " in command:
            assert shlex.split(command.partition(" --recipe ")[2])[0] in RECIPES
