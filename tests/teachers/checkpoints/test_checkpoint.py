from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForSequenceClassification

from pipeline.errors import ModelError, PrepError, UsageError
from teachers.checkpoints.checkpoint import fingerprint_of, resolve
from teachers.checkpoints.loading import quiet_loading
from teachers.engine.engine import load_scorer
from teachers.scorer import pairs_of
from teachers.settings import ScoringSettings
from tests.tiny_models import Kind, save_tiny

SETTINGS = ScoringSettings(max_length_tokens=20)
PAIRS = pairs_of([("what is ice", "frozen water"), ("ice", "")])
Tiny = Callable[[Kind], Path]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("nobody/nothing", "neither a local directory nor to be had from the Hub"),
        ("no name at all", "neither a local directory nor to be had from the Hub"),
        ("./nothing", "no such directory"),
        ("/nowhere/at/all", "no such directory"),
    ],
)
def test_names_of_nothing_are_refused(name: str, message: str) -> None:
    with pytest.raises(ModelError, match=message):
        resolve(name)


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("config.json", "not a model directory"),
        ("tokenizer.json", "no tokenizer"),
        ("model.safetensors", "no weights"),
    ],
)
def test_a_directory_that_lacks_something_is_refused(tmp_path: Path, tiny: Tiny, file: str, message: str) -> None:
    directory = shutil.copytree(tiny("bert"), tmp_path / "model")
    (directory / file).unlink()
    with pytest.raises(ModelError, match=message):
        fingerprint_of(str(directory), SETTINGS)


def test_a_local_directory_has_no_revision(tiny: Tiny) -> None:
    with pytest.raises(UsageError, match="revisions"):
        resolve(str(tiny("bert")), revision="main")


def test_weights_in_shards_count_as_a_whole(tmp_path: Path, tiny: Tiny) -> None:
    directory = shutil.copytree(tiny("bert"), tmp_path / "model")
    with quiet_loading():
        model = AutoModelForSequenceClassification.from_pretrained(directory)
        (directory / "model.safetensors").unlink()
        model.save_pretrained(directory, max_shard_size="20KB")
    shards = sorted(directory.glob("model-*.safetensors"))
    assert len(shards) > 1
    scores = load_scorer(str(directory), SETTINGS).score(PAIRS)
    assert scores.tolist() == load_scorer(str(tiny("bert")), SETTINGS).score(PAIRS).tolist()
    before = fingerprint_of(str(directory), SETTINGS)
    content = shards[-1].read_bytes()
    shards[-1].write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert fingerprint_of(str(directory), SETTINGS) != before
    shards[-1].unlink()
    with pytest.raises(ModelError, match=shards[-1].name):
        fingerprint_of(str(directory), SETTINGS)


def test_pickled_weights_load_and_score_alike(tmp_path: Path, tiny: Tiny) -> None:
    directory = shutil.copytree(tiny("bert"), tmp_path / "model")
    torch.save(load_file(directory / "model.safetensors"), directory / "pytorch_model.bin")
    (directory / "model.safetensors").unlink()
    scores = load_scorer(str(directory), SETTINGS).score(PAIRS)
    assert scores.tolist() == load_scorer(str(tiny("bert")), SETTINGS).score(PAIRS).tolist()


class Trap:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("kind", ["bert", "bert_cat"])
def test_pickles_run_no_code(tmp_path: Path, tiny: Tiny, kind: Kind) -> None:
    directory = shutil.copytree(tiny(kind), tmp_path / "model")
    (directory / "model.safetensors").unlink(missing_ok=True)
    torch.save({"weight": Trap(tmp_path / "sprung")}, directory / "pytorch_model.bin")
    with pytest.raises(ModelError, match="cannot be loaded"):
        load_scorer(str(directory), SETTINGS)
    assert not (tmp_path / "sprung").exists()


def test_code_in_a_checkpoint_is_refused(tmp_path: Path, tiny: Tiny) -> None:
    directory = shutil.copytree(tiny("bert"), tmp_path / "model")
    config = json.loads((directory / "config.json").read_text())
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    (directory / "config.json").write_text(json.dumps(config))
    (directory / "own.py").write_text("raise SystemExit('it ran')")
    with pytest.raises(ModelError, match="auto_map: code of a checkpoint is never run"):
        load_scorer(str(directory), SETTINGS)


def test_damaged_weights_are_refused(tmp_path: Path, tiny: Tiny) -> None:
    directory = shutil.copytree(tiny("bert"), tmp_path / "model")
    (directory / "model.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(PrepError, match="cannot be loaded"):
        load_scorer(str(directory), SETTINGS)


_IDENTIFY = """
import sys
from teachers.checkpoints.checkpoint import fingerprint_of, resolve
from teachers.settings import ScoringSettings
print(fingerprint_of("some/model", ScoringSettings(max_length_tokens=20)), resolve("some/model").revision)
assert not {"torch", "transformers"} & set(sys.modules), "heavy imports"
"""


@pytest.mark.parametrize("kind", ["bert", "bert_cat"])
def test_the_hubs_cache_serves_offline_and_identity_needs_no_torch(tmp_path: Path, tiny: Tiny, kind: Kind) -> None:
    commit = "0123456789abcdef0123456789abcdef01234567"
    stored = tmp_path / "models--some--model"
    shutil.copytree(tiny(kind), stored / "snapshots" / commit)
    (stored / "refs").mkdir()
    (stored / "refs" / "main").write_text(commit)
    environment = os.environ | {"HF_HUB_CACHE": str(tmp_path), "HF_HUB_OFFLINE": "1"}
    done = subprocess.run([sys.executable, "-c", _IDENTIFY], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [fingerprint_of(str(tiny(kind)), SETTINGS), commit]


def test_the_same_content_has_one_identity(tmp_path: Path, tiny: Tiny) -> None:
    again = save_tiny("roberta", tmp_path / "again")
    assert fingerprint_of(str(again), SETTINGS) == fingerprint_of(str(tiny("roberta")), SETTINGS)
