"""What an installed wheel holds: every module and every data file of the four rooms."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.ray_nodes import ROOT

ROOMS = ("pipeline", "teachers", "students", "jobs")


def files_below(directory: Path) -> set[str]:
    return {
        str(path.relative_to(directory))
        for room in ROOMS
        for path in (directory / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.fixture(scope="module")
def installed(tmp_path_factory) -> Path:
    """The rooms as a wheel brings them, built from a copy of the source."""
    source, target = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("installed")
    for room in ROOMS:
        shutil.copytree(ROOT / room, source / room, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--no-build-isolation"]
    subprocess.run([*pip, "--no-compile", "--target", str(target), str(source)], check=True, timeout=300)
    return target


def test_nothing_is_left_behind(installed):
    assert files_below(installed) == files_below(ROOT)


def test_it_runs_without_the_checkout(installed, tmp_path):
    script = (
        "import sys, jobs.cli, pipeline.tables.database as database\n"
        "from jobs.commands.recipes import recipe_names\n"
        "assert database.__file__.startswith(sys.argv[1]), database.__file__\n"
        "assert recipe_names() and database.sql('triples/kept')\n"
        "jobs.cli.app(['--help'])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, str(installed)],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(installed)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0 and "build-triples" in done.stdout, done.stderr
