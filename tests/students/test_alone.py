"""Training where nothing but torch, transformers, accelerate, NumPy and what they themselves require is installed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, packages_distributions, requires

import numpy as np
from packaging.requirements import Requirement

from tests.tiny_models import save_tiny

# Ours, whether or not a library requires them too.
BLOCKED = {"pyarrow", "duckdb", "ray", "datasets", "typer", "bm25s", "ir_measures", "pandas", "rich", "scipy"}

_TRAIN = """
import json, sys
from pathlib import Path
init, checkpoints, blocked = *sys.argv[1:3], sys.argv[3].split(",")
for name in blocked:
    sys.modules[name] = None  # import fails, and find_spec finds nothing
import numpy as np
from students.settings import StudentSettings, TrainSettings
from students.token_rows import TextRows, Tokens
from students.training.batches import Batch, ShuffledParts
from students.training.loop import train
from teachers.checkpoints.checkpoint import resolve
from teachers.checkpoints.loading import load_tokenizer

tokenizer = load_tokenizer(resolve(init))
texts = TextRows.of(tokenizer, [f"river {i} lake" for i in range(24)]).texts
query = np.arange(12, dtype=np.int32)
scores = np.stack([query * 0.5, -query * 0.5], 1).astype(np.float32)
rows = Batch(query, np.stack([query, query + 12], 1), scores, np.zeros(12, np.float32))
parts = [rows.take(slice(0, 7)), rows.take(slice(7, 12))]
source = ShuffledParts(parts.__getitem__, [7, 5], seed=0)
student = StudentSettings(max_query_tokens=8, max_passage_tokens=12, max_length_tokens=20)
settings = TrainSettings(
    "bert_dot", init, "margin_mse+0.1*mnrl", "in memory",
    batch_size=4, max_steps=4, save_steps=2, learning_rate=1e-3, student=student,
)
trained = train(settings, source, Tokens(texts, texts), Path(checkpoints))
trained.student.save(Path(checkpoints))
print(json.dumps([trained.steps, trained.losses]))
loaded = {name.split(".")[0] for name, module in sys.modules.items() if module is not None}
assert not loaded & set(blocked), loaded & set(blocked)
"""


def closure(names: list[str]) -> set[str]:
    """Distributions that the named ones need, normalised."""
    needed: set[str] = set()
    while names:
        name = names.pop().lower().replace("_", "-").replace(".", "-")
        if name in needed:
            continue
        needed.add(name)
        try:
            lines = requires(name) or []
        except PackageNotFoundError:
            continue
        required = [Requirement(line) for line in lines]
        names += [r.name for r in required if r.marker is None or r.marker.evaluate({"extra": ""})]
    return needed


def test_a_student_trains_from_arrays_without_anything_else(tmp_path):
    init = save_tiny("bert", tmp_path / "tiny")
    needed = closure(["torch", "transformers", "accelerate", "numpy"])
    others = {
        module
        for module, distributions in packages_distributions().items()
        if not any(d.lower().replace("_", "-").replace(".", "-") in needed for d in distributions)
    }
    blocked = (others | BLOCKED) - {"students", "teachers", "pipeline"} - {m for m in others if m.startswith("_")}
    done = subprocess.run(
        [sys.executable, "-c", _TRAIN, str(init), str(tmp_path / "out"), ",".join(sorted(blocked))],
        capture_output=True,
        text=True,
        env=os.environ | {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr
    steps, losses = json.loads(done.stdout)
    assert steps == 4 and len(losses) == 4 and np.isfinite([loss for _, loss in losses]).all()
    assert (tmp_path / "out" / "model.safetensors").is_file()
