"""Reconstructs the command that made a data set, from the settings stored with it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from dataclasses import MISSING, fields
from typing import Any

from pipeline.triples.settings import TripleSettings
from students.settings import StudentSettings, TrainSettings

_SHORT = {
    "max_query_tokens": "max_query_length",
    "max_passage_tokens": "max_passage_length",
    "max_length_tokens": "max_length",
}
_WORKSPACE = " -w WORKSPACE"


def command(words: str) -> str:
    """Completes a command of `prep`; the reader fills in the workspace.

    >>> command("mine --system bm25")
    'prep mine --system bm25 -w WORKSPACE'
    """
    return f"prep {words}{_WORKSPACE}"


def triples_command(name: str, settings: Mapping[str, Any]) -> str:
    """The command that built a triple set."""
    words = [f"build-triples --name {name}"]
    threshold = settings["threshold"]
    words.append(f"--threshold {'none' if threshold is None else f'{threshold:g}'}")
    words += _options(settings, TripleSettings, skipped={"threshold", "weights"})
    words += [f"--weight {teacher}={weight}" for teacher, weight in (settings.get("weights") or {}).items()]
    words += [f"--teacher {teacher}" for teacher in settings["teachers"]]
    return command(" ".join(words))


def train_command(name: str, settings: Mapping[str, Any]) -> str:
    """The command that trained a student."""
    words = [f"train --name {name}"]
    if settings.get("triples") is None and settings.get("lists") is None:
        words.append("--targets qrels")
    words += _options(settings, TrainSettings, skipped={"student"})
    return command(" ".join(words + _options(settings["student"], StudentSettings, skipped=set())))


def score_command(teacher: str, footer: Mapping[str, Any], extra: Mapping[str, Any]) -> str:
    """The command that scored the pairs with a teacher, or imported its scores."""
    if "imported_from" in footer:
        return command(f"import scores {shlex.quote(str(footer['imported_from']))} --teacher {teacher}")
    checkpoint = shlex.quote(str(extra.get("teacher", "CHECKPOINT")))
    words = [f"score --teacher {teacher}={checkpoint}"]
    if "dtype" in footer:
        words.append(f"--dtype {footer['dtype']}")
    if "max_length_tokens" in footer:
        words.append(f"--max-length {footer['max_length_tokens']}")
    return command(" ".join(words))


def _options(settings: Mapping[str, Any], settings_class: Any, *, skipped: set[str]) -> list[str]:
    """Words of the command line for all settings that differ from their defaults."""
    words = []
    for field in fields(settings_class):
        if field.name in skipped or field.name not in settings:
            continue
        value = settings[field.name]
        default = None if field.default is MISSING else field.default
        if value is None or value == default:
            continue
        option = "--" + _SHORT.get(field.name, field.name).replace("_", "-")
        if isinstance(value, bool):
            words.append(option if value else option.replace("--", "--no-", 1))
        else:
            words.append(f"{option} {shlex.quote(f'{value:g}' if isinstance(value, float) else str(value))}")
    return words
