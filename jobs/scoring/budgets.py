"""The token budget of a teacher on a kind of device, tried out once and kept: `.cache/budgets/`.

Whoever is done first decides for all: workers that start together, and runs that resume, use the same batches. In a
store two that are done at the same moment may keep a budget each; it changes the last bits of scores only.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from pipeline.collection.texts import CACHE
from pipeline.fingerprint import digest_json
from pipeline.storage.atomic_files import write_if_absent
from pipeline.storage.workspace import Workspace

if TYPE_CHECKING:
    from teachers.engine.engine import CrossEncoderScorer

WORTH_TUNING = 50_000
"""Pairs from which on trying out pays."""


def settle_budget(workspace: Workspace, scorer: CrossEncoderScorer) -> int:
    """The kept budget of this teacher on this kind of device; tries it out where there is none."""
    name = digest_json([scorer.fingerprint, scorer.device_name])
    path = workspace.path(CACHE, "budgets", f"{name}.json")
    if not path.exists():
        facts = {"device": scorer.device_name, "batch_tokens": scorer.tune()}
        write_if_absent(path, json.dumps(facts).encode())
    return int(workspace.read_json(CACHE, "budgets", path.name)["batch_tokens"])
