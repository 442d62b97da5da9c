"""Carries out small mutations of the code and counts those that the tests notice: `python -m tests.mutate`.

`mutations.toml` lists them: a file, a text that occurs in it once, the text that replaces it, and the tests that must
fail then, and pass without the change. Each worker has a copy of the tree in a temporary directory, so the checkout is
never touched. The score is the share of mutations that are killed; survivors are named, and the exit code is 1 if the
score is below `--least`.
"""

from __future__ import annotations

import argparse
import ast
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from queue import SimpleQueue
from tempfile import TemporaryDirectory
from typing import Literal

ROOT = Path(__file__).parents[1]
LIST = Path(__file__).with_name("mutations.toml")
FAILED, BROKEN = 1, 3
"""Exit code of pytest if a test failed; any other but 0 means that the tests did not run as they should."""

PRELOADED = ("duckdb", "ir_measures", "pyarrow.parquet", "pytest", "scipy.stats", "torch", "transformers")
"""Libraries that are loaded once for all runs."""

Outcome = Literal["killed", "too long", "survived", "broken"]
"""Tests that run too long notice a fault that makes the code wait; on a slow machine, raise `--seconds`."""


@dataclass(frozen=True)
class Mutation:
    """One change of one file."""

    file: str
    old: str
    """Occurs once in the file."""
    new: str
    tests: str
    """Arguments of pytest."""

    def apply(self, text: str) -> str:
        """The file's text with the change.

        Raises:
            ValueError: the old text does not occur exactly once, or the result is no Python.
        """
        if text.count(self.old) != 1:
            raise ValueError(f"{self.file}: occurs {text.count(self.old)} times, not once: {self.old!r}")
        mutated = text.replace(self.old, self.new)
        if self.file.endswith(".py"):
            ast.parse(mutated)
        return mutated

    def __str__(self) -> str:
        lines = (" ".join(text.split()) for text in (self.old, self.new))
        return f"{self.file}: {' -> '.join(lines)}"


def read_mutations(path: Path = LIST) -> list[Mutation]:
    """The mutations of a list, in its order."""
    return [Mutation(**entry) for entry in tomllib.loads(path.read_text(encoding="utf-8"))["mutation"]]


@contextmanager
def copies(count: int) -> Iterator[list[Path]]:
    """Copies of the checkout's files that git knows or would add."""
    listed = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listed, cwd=ROOT, capture_output=True, check=True, text=True).stdout.split("\0")
    with TemporaryDirectory(prefix="mutations-") as directory:
        roots = [Path(directory, str(number)) for number in range(count)]
        for root in roots:
            for name in filter(None, names):
                if (ROOT / name).is_file():
                    (root / name).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copy2(ROOT / name, root / name)
        yield roots


def run_tests(root: Path, tests: str, seconds: float) -> int | None:
    """Exit code of pytest in a copy; None if it ran out of time."""
    context = get_context("forkserver")
    context.set_forkserver_preload(list(PRELOADED))
    process = context.Process(target=_pytest, args=(str(root), shlex.split(tests)))
    process.start()
    process.join(seconds)
    if process.exitcode is None and process.pid is not None:
        os.killpg(process.pid, signal.SIGKILL)
        process.join()
        return None
    return process.exitcode


def _pytest(root: str, arguments: list[str]) -> None:
    """Run pytest on a copy; the process has loaded libraries, but keeps no module of the checkout."""
    os.setsid()
    os.chdir(root)
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    sys.path[:] = [root, *(path for path in sys.path if Path(path or ".").resolve() != ROOT)]
    os.environ |= {"PYTHONPATH": root, "PYTHONDONTWRITEBYTECODE": "1", "OMP_NUM_THREADS": "1"}
    sys.dont_write_bytecode = True
    for name in [name for name in sys.modules if name.split(".")[0] == "tests"]:
        del sys.modules[name]
    code = BROKEN
    try:
        import pytest

        # Loaded libraries bring plugins of pytest along, whose assertions it cannot rewrite any more.
        fixed = ["-q", "-x", "-p", "no:cacheprovider", "-W", "ignore:Module already imported"]
        code = int(pytest.main([*fixed, *arguments]))
    finally:
        os._exit(code)


def carry_out(root: Path, mutation: Mutation, seconds: float) -> Outcome:
    """Run the mutation's tests against a copy that has the change; the copy is restored."""
    path = root / mutation.file
    text = path.read_text(encoding="utf-8")
    path.write_text(mutation.apply(text), encoding="utf-8")
    try:
        code = run_tests(root, mutation.tests, seconds)
    finally:
        path.write_text(text, encoding="utf-8")
    if code in (FAILED, None):
        return "killed" if code else "too long"
    return "survived" if code == 0 else "broken"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", metavar="TEXT", help="only mutations whose file or tests contain this")
    parser.add_argument("--jobs", type=int, default=1, help="mutations at a time")
    parser.add_argument("--seconds", type=float, default=300, help="time limit of one mutation's tests")
    parser.add_argument("--least", type=float, default=0.9, help="lowest share of killed mutations that is a success")
    parser.add_argument("--green", action="store_true", help="do not check that the tests pass without a change")
    options = parser.parse_args(arguments)
    chosen = [one for one in read_mutations() if options.only in one.file or options.only in one.tests]
    if not chosen:
        parser.error("no such mutation")
    with copies(options.jobs) as roots, ThreadPoolExecutor(options.jobs) as workers:
        free: SimpleQueue[Path] = SimpleQueue()
        for root in roots:
            free.put(root)

        def passes(tests: str) -> bool:
            root = free.get()
            try:
                return run_tests(root, tests, options.seconds) == 0
            finally:
                free.put(root)

        def work(mutation: Mutation) -> Outcome:
            if mutation.tests not in sound:
                return "broken"
            root = free.get()
            try:
                return carry_out(root, mutation, options.seconds)
            finally:
                free.put(root)

        # Tests that fail on unchanged code would kill anything.
        selections = list(dict.fromkeys(mutation.tests for mutation in chosen))
        good = [True] * len(selections) if options.green else workers.map(passes, selections)
        sound = {tests for tests, passed in zip(selections, good, strict=True) if passed}
        for tests in selections:
            if tests not in sound:
                print(f"fails without any mutation: {tests}", flush=True)

        outcomes: list[Outcome] = []
        began = time.monotonic()
        for mutation, outcome in zip(chosen, workers.map(work, chosen), strict=True):
            outcomes.append(outcome)
            print(f"{time.monotonic() - began:5.0f} s  {outcome:8}  {mutation}", flush=True)
    killed = outcomes.count("killed") + outcomes.count("too long")
    print(f"{killed} of {len(outcomes)} killed ({killed / len(outcomes):.0%}), {outcomes.count('broken')} did not run")
    return int(killed < options.least * len(outcomes))


if __name__ == "__main__":
    sys.exit(main())
