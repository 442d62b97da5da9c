"""Scoring where nothing but torch, transformers, NumPy and what they themselves require is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, packages_distributions, requires
from pathlib import Path

import numpy as np
from packaging.requirements import Requirement

from teachers.engine.engine import load_scorer
from teachers.scorer import pairs_of
from teachers.settings import ScoringSettings
from tests.tiny_models import Kind

# Ours, whether or not a library requires them too.
BLOCKED = {
    "pyarrow",
    "duckdb",
    "ray",
    "datasets",
    "typer",
    "bm25s",
    "ir_measures",
    "pandas",
    "rich",
    "accelerate",
}

_SCORE = """
import sys
directory, blocked = sys.argv[1], sys.argv[2].split(",")
for name in blocked:
    sys.modules[name] = None  # import fails, and find_spec finds nothing
from teachers.engine.engine import ScoringSettings, load_scorer
from teachers.scorer import pairs_of
scorer = load_scorer(directory, ScoringSettings(max_length_tokens=20))
print(scorer.score(pairs_of([("what is ice", "frozen water"), ("ice", "")])).tolist())
loaded = {name.split(".")[0] for name, module in sys.modules.items() if module is not None}
assert not loaded & set(blocked)
assert {n for n in sys.modules if n.startswith("pipeline.")} == {
    "pipeline.errors", "pipeline.fingerprint", "pipeline.settings",
    "pipeline.tokens", "pipeline.tokens.pairs", "pipeline.tokens.truncation",
}
"""


def closure(names: list[str]) -> set[str]:
    """Distributions that the named ones need, normalised."""
    found: set[str] = set()
    while names:
        name = names.pop().lower().replace("_", "-").replace(".", "-")
        if name in found:
            continue
        found.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        wanted = [Requirement(line) for line in lines]
        names += [r.name for r in wanted if r.marker is None or r.marker.evaluate({"extra": ""})]
    return found


def test_scores_are_the_same_without_anything_else(tiny: Callable[[Kind], Path]) -> None:
    needed = closure(["torch", "transformers", "numpy"])
    others = {
        module
        for module, distributions in packages_distributions().items()
        if not any(d.lower().replace("_", "-").replace(".", "-") in needed for d in distributions)
    }
    blocked = (others | BLOCKED) - {"teachers", "pipeline"} - {m for m in others if m.startswith("_")}
    assert {"pyarrow", "duckdb", "ray", "scipy"} <= blocked
    directory = str(tiny("bert"))
    done = subprocess.run(
        [sys.executable, "-c", _SCORE, directory, ",".join(sorted(blocked))],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    scorer = load_scorer(directory, ScoringSettings(max_length_tokens=20))
    expected = scorer.score(pairs_of([("what is ice", "frozen water"), ("ice", "")]))
    np.testing.assert_allclose(json.loads(done.stdout), expected, atol=1e-6)
