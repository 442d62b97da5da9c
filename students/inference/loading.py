"""Loading a trained student, or any checkpoint of a known form, for use."""

from __future__ import annotations

from pipeline.errors import ModelError
from students.architectures import architecture
from students.architectures.base import Student
from students.architectures.directory import read_modules
from students.architectures.published import ENCODER_PREFIX, is_published
from students.identity import student_file
from students.settings import StudentSettings
from teachers.checkpoints.checkpoint import Checkpoint, resolve
from teachers.checkpoints.loading import read_weights

_MODULES = {"MultiVectorMask": "colbert", "SpladePooling": "sparse"}


def architecture_of(checkpoint: str) -> str:
    """Architecture of a checkpoint: as its student file says, else by its form.

    A directory of sentence-transformers is told by its modules, a published state dict by its keys; a sequence
    classifier is a bert_cat, a bare encoder a bert_dot.

    Raises:
        ModelError: nothing there, or a state dict of no known form.
    """
    found = resolve(checkpoint)
    facts = student_file(found.directory)
    if facts is not None:
        return architecture(facts["architecture"]).name
    for module in read_modules(found.directory):
        if module in _MODULES:
            return _MODULES[module]
    if found.config.get("model_type") == "TK":
        return "tk"
    if is_published(found) and not found.is_bert_cat:
        return _by_keys(found)
    names = found.config.get("architectures") or []
    is_classifier = found.is_bert_cat or any(name.endswith("ForSequenceClassification") for name in names)
    return "bert_cat" if is_classifier else "bert_dot"


def load_student(checkpoint: str, settings: StudentSettings | None = None) -> Student:
    """A student with its own lengths, pooling and markers unless `settings` says otherwise, in eval mode.

    Raises:
        ModelError: nothing there, or weights that do not fit.
    """
    if settings is None:
        facts = student_file(resolve(checkpoint).directory)
        # These stand in the directory's own files.
        own = {"num_layers": None, "shared_groups": None, "pooling": None, "normalize": None}
        settings = StudentSettings(**{**facts["settings"]["student"], **own}) if facts else StudentSettings()
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
        "a state dict of no known form",
        where=checkpoint.directory,
        expected="the weights of a BERT_Cat, BERT_Dot, ColBERT or PreTTR",
        found=", ".join(sorted(state)[:4]),
    )
