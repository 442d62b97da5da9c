"""Loads a trained student, or any checkpoint of a known form, for inference."""

from __future__ import annotations

from pipeline.errors import ModelError
from students.architectures import ARCHITECTURES, architecture
from students.architectures.base import Student
from students.architectures.directory import read_modules
from students.architectures.published import ENCODER_PREFIX, is_published
from students.identity import student_file
from students.settings import StudentSettings
from teachers.checkpoints.checkpoint import Checkpoint, resolve
from teachers.checkpoints.loading import read_weights


def architecture_of(checkpoint: str) -> str:
    """Architecture of a checkpoint: the one that its student file names, else the one that its form shows.

    A sentence-transformers directory is recognised by its modules, a published state dict by its keys; a sequence
    classifier is a bert_cat, a bare encoder a bert_dot.

    Raises:
        ModelError: no checkpoint there, or a state dict of unknown form.
    """
    resolved = resolve(checkpoint)
    facts = student_file(resolved.directory)
    if facts is not None:
        return architecture(facts["architecture"]).name
    modules, model_type = read_modules(resolved.directory), resolved.config.get("model_type")
    for known in ARCHITECTURES.values():
        if known.known_by_module in modules or known.known_by_model_type == model_type is not None:
            return known.name
    if is_published(resolved) and not resolved.is_bert_cat:
        return _by_keys(resolved)
    names = resolved.config.get("architectures") or []
    is_classifier = resolved.is_bert_cat or any(name.endswith("ForSequenceClassification") for name in names)
    return "bert_cat" if is_classifier else "bert_dot"


def load_student(checkpoint: str, settings: StudentSettings | None = None) -> Student:
    """A student in eval mode, with the lengths, pooling and markers of its directory, or with those of `settings`.

    Raises:
        ModelError: no checkpoint there, or weights that do not fit the architecture.
    """
    if settings is None:
        facts = student_file(resolve(checkpoint).directory)
        # The model's own configuration files hold these.
        stored = {"num_layers": None, "shared_groups": None, "pooling": None, "normalize": None}
        settings = StudentSettings(**{**facts["settings"]["student"], **stored}) if facts else StudentSettings()
    return architecture(architecture_of(checkpoint)).from_checkpoint(checkpoint, settings).eval()


def _by_keys(checkpoint: Checkpoint) -> str:
    state = read_weights(checkpoint)
    if "compressor.weight" in state:
        return "colbert"
    if "_classification_layer.weight" in state and "_classification_layer.bias" not in state:
        return "prettr"
    if all(name.startswith(ENCODER_PREFIX) for name in state):
        return "bert_dot"
    raise ModelError(
        "a state dict of unknown form",
        where=checkpoint.directory,
        expected="the weights of a BERT_Cat, BERT_Dot, ColBERT or PreTTR",
        found=", ".join(sorted(state)[:4]),
    )
