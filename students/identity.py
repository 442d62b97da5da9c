"""The identity of a student, read from the files of its checkpoint: loads no weights and imports no torch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.fingerprint import digest_file, digest_json
from students.settings import STUDENT_FILE
from teachers.checkpoints.checkpoint import Checkpoint, resolve
from teachers.checkpoints.definition import SEPARATE
from teachers.checkpoints.inputs import is_moved_by_padding

_SHAPING = ("modules.json", "*/config.json", "*/*.safetensors", "*/pytorch_model.bin")


def student_file(directory: Path) -> dict[str, Any] | None:
    """The content of `prep.json`, which says how a student was trained; None for other checkpoints."""
    path = directory / STUDENT_FILE
    if not path.is_file():
        return None
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return facts


def reads_apart(checkpoint: Checkpoint) -> bool:
    """Whether a checkpoint's files say that it encodes query and passage separately.

    False for a bare encoder, whose files do not say: naming it as a teacher may be a mistake.
    """
    return checkpoint.definition.family in SEPARATE


def apart_fingerprint(checkpoint: str | Checkpoint, dtype: str, prompts: tuple[str, str] | None = None) -> str:
    """Identity of the scores that a student gives as a teacher; see `student_fingerprint`."""
    return digest_json(["times the scale of training", student_fingerprint(checkpoint, dtype, prompts)])


def student_fingerprint(checkpoint: str | Checkpoint, dtype: str, prompts: tuple[str, str] | None = None) -> str:
    """Identity of a student's states and scores: weights, tokenizer, modules, lengths, prompts, arithmetic.

    Prompts are those of the model unless others are given.
    """
    found = resolve(checkpoint)
    own = found.definition
    used = own.prompts if prompts is None else prompts
    reading = own.reading() | ({"prompts": list(used)} if any(used) else {})
    facts = student_file(found.directory) or {}
    files = sorted(path for pattern in _SHAPING for path in found.directory.glob(pattern))
    modules = {path.relative_to(found.directory).as_posix(): digest_file(path) for path in files}
    shape = facts.get("settings", {}).get("student")
    made_by = [found.weights_hash, found.tokenizer_hash, modules, facts.get("architecture"), shape, dtype]
    if is_moved_by_padding(found.config):
        made_by.append("unpadded")
    return digest_json([*made_by, reading] if reading else made_by)
