"""Loading a trained student, or any checkpoint of a known form, for use."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pipeline.errors import ModelError
from students.architectures import architecture
from students.architectures.bert_dot import BertDot
from students.settings import STUDENT_FILE, StudentSettings
from teachers.checkpoint import resolve


def architecture_of(checkpoint: str) -> str:
    """Architecture of a checkpoint: as its student file says; a directory in sentence-transformers' form, or
    a bare encoder, is a bert_dot; a sequence classifier a bert_cat.

    Raises:
        ModelError: nothing there.
    """
    found = resolve(checkpoint)
    facts = _student_file(found.directory)
    if facts is not None:
        return str(facts["architecture"])
    names = found.config.get("architectures") or []
    is_classifier = found.is_bert_cat or any(name.endswith("ForSequenceClassification") for name in names)
    return "bert_cat" if is_classifier else "bert_dot"


def load_bert_dot(checkpoint: str, settings: StudentSettings | None = None) -> BertDot:
    """A dense student, with its own lengths, pooling and normalisation unless `settings` says otherwise.

    Raises:
        ModelError: not a dense encoder.
    """
    if architecture_of(checkpoint) != BertDot.name:
        raise ModelError("not a bert_dot student", where=checkpoint, found=architecture_of(checkpoint))
    if settings is None:
        facts = _student_file(resolve(checkpoint).directory)
        settings = (
            StudentSettings(**{**facts["settings"]["student"], "num_layers": None, "pooling": None, "normalize": None})
            if facts
            else StudentSettings()
        )
    return BertDot.from_checkpoint(checkpoint, settings)


def _student_file(directory: Path) -> dict[str, Any] | None:
    path = directory / STUDENT_FILE
    if not path.is_file():
        return None
    facts: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    architecture(facts["architecture"])
    return facts
