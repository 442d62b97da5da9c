"""Loads a trained student, or any checkpoint of a known form, for inference."""

from __future__ import annotations

from typing import Any

from pipeline.errors import ModelError
from students.architectures import ARCHITECTURES, architecture
from students.architectures.base import Student
from students.architectures.published import ENCODER_PREFIX, is_published
from students.settings import STUDENT_FILE, StudentSettings
from teachers.checkpoints.checkpoint import Checkpoint, resolve
from teachers.checkpoints.cross_encoder import learned_positions
from teachers.checkpoints.definition import Family
from teachers.checkpoints.loading import read_weights


def architecture_of(checkpoint: str | Checkpoint) -> str:
    """Architecture of a checkpoint: the one that its student file names, else the one of its family.

    A published state dict is recognised by its keys; a bare encoder is a bert_dot.

    Raises:
        ModelError: no checkpoint there, or a family that no architecture loads.
    """
    resolved = resolve(checkpoint)
    definition = resolved.definition
    if definition.trained_here:
        return architecture(definition.facts["architecture"]).name
    definition.check_starts()
    if definition.family in _ARCHITECTURES:
        return _ARCHITECTURES[definition.family]
    model_type = resolved.config.get("model_type")
    for known in ARCHITECTURES.values():
        if known.known_by_model_type == model_type is not None:
            return known.name
    return _by_keys(resolved) if is_published(resolved) else "bert_dot"


_ARCHITECTURES = {
    Family.CLASSIFIER: "bert_cat",
    Family.BERT_CAT: "bert_cat",
    Family.BI_ENCODER: "bert_dot",
    Family.MULTI_VECTOR: "colbert",
    Family.SPARSE: "sparse",
}


def load_student(checkpoint: str | Checkpoint, settings: StudentSettings | None = None) -> Student:
    """A student in eval mode, with the lengths, prompts and markers of its directory, or with those of `settings`.

    Raises:
        ModelError: no checkpoint there, or weights that do not fit the architecture.
    """
    found = resolve(checkpoint)
    found.definition.check_starts()
    student = architecture(architecture_of(found)).from_checkpoint(found, settings or _settings_of(found)).eval()
    if settings is None:
        student.read(found.definition)
        _check_positions(found, student)
    return student


def _check_positions(checkpoint: Checkpoint, student: Student) -> None:
    """Refuse a model whose texts can be longer than its positions, or get other positions in a padded batch."""
    positions, longest = learned_positions(student.encoder), student.settings.max_passage_tokens
    longest = max(longest, student.settings.max_query_tokens)
    if positions is not None and student.tokenizer.padding_side != "right":
        raise ModelError(
            "its tokenizer pads on the left, where padding moves the positions of a text",
            where=checkpoint.directory,
            expected="padding_side right",
            found=student.tokenizer.padding_side,
        )
    stated = not checkpoint.definition.trained_here and checkpoint.definition.max_length_tokens is not None
    if stated and positions is not None and longest > positions:
        raise ModelError(
            "its files state a longer text than it has positions for",
            where=checkpoint.directory,
            expected=f"{positions} tokens or less",
            found=longest,
            todo="lower max_seq_length, or model_max_length in tokenizer_config.json",
        )


def _settings_of(checkpoint: Checkpoint) -> StudentSettings:
    """Those of training here; of other checkpoints the limits that their files state."""
    definition = checkpoint.definition
    if definition.trained_here:
        # The model's own configuration files hold these.
        stored = {"num_layers": None, "shared_groups": None, "pooling": None, "normalize": None}
        try:
            return StudentSettings(**{**definition.facts["settings"]["student"], **stored})
        except (KeyError, TypeError) as error:
            raise ModelError(
                "not a student file of this version", where=checkpoint.directory / STUDENT_FILE, found=error
            ) from error
    limits = {"query": definition.query_tokens, "passage": definition.passage_tokens}
    stated: dict[str, Any] = {f"max_{side}_tokens": limit for side, limit in limits.items() if limit is not None}
    return StudentSettings(**stated)


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
