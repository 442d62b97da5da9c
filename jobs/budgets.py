"""The token budget of a teacher on a kind of device, tried out once and kept: `.cache/budgets/`.

Whoever is done first decides for all: workers that start together, and runs that resume, use the same batches.
"""

from __future__ import annotations

import json
import os
import uuid
from typing import TYPE_CHECKING

from pipeline.fingerprint import digest_json
from pipeline.texts import CACHE
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from teachers.engine import CrossEncoderScorer

WORTH_TUNING = 50_000
"""Pairs from which on trying out pays."""


def settle_budget(workspace: Workspace, scorer: CrossEncoderScorer) -> int:
    """The kept budget of this teacher on this kind of device; tries it out where there is none."""
    name = digest_json([scorer.fingerprint, scorer.device_name])
    path = workspace.path(CACHE, "budgets", f"{name}.json")
    if not path.exists():
        facts = {"device": scorer.device_name, "batch_tokens": scorer.tune()}
        path.parent.mkdir(parents=True, exist_ok=True)
        mine = path.with_name(f".{name}-{uuid.uuid4().hex[:12]}")
        mine.write_text(json.dumps(facts), encoding="utf-8")
        try:
            os.link(mine, path)
        except FileExistsError:
            pass
        finally:
            mine.unlink()
    return int(workspace.read_json(CACHE, "budgets", path.name)["batch_tokens"])
