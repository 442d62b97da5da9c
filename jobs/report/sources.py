"""Reconstructs the command that made a data set, from the settings stored with it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from pipeline.settings import command_words
from pipeline.triples.settings import TripleSettings
from students.settings import TrainSettings
from teachers.settings import ScoringSettings

_WORKSPACE = " -w WORKSPACE"


def command(words: str) -> str:
    """Completes a command of `prep`; the reader fills in the workspace.

    >>> command("mine --system bm25")
    'prep mine --system bm25 -w WORKSPACE'
    """
    return f"prep {words}{_WORKSPACE}"


def triples_command(name: str, settings: Mapping[str, Any]) -> str:
    """The command that built a triple set."""
    words = ["build-triples", "--name", name, *command_words(TripleSettings, settings, always=["threshold"])]
    words += [word for teacher in settings["teachers"] for word in ("--teacher", teacher)]
    return command(shlex.join(words))


def train_command(name: str, settings: Mapping[str, Any]) -> str:
    """The command that trained a student."""
    words = ["train", "--name", name]
    if settings.get("triples") is None and settings.get("lists") is None:
        words += ["--targets", "qrels"]
    words += command_words(TrainSettings, settings, always=["architecture", "loss"])
    return command(shlex.join(words))


def score_command(teacher: str, footer: Mapping[str, Any], extra: Mapping[str, Any]) -> str:
    """The command that scored the pairs with a teacher, or imported its scores."""
    if "imported_from" in footer:
        return command(f"import scores {shlex.quote(str(footer['imported_from']))} --teacher {teacher}")
    words = ["score", "--teacher", f"{teacher}={extra.get('teacher', 'CHECKPOINT')}"]
    shaping = {name: footer[name] for name in ("max_length_tokens", "dtype") if name in footer}
    return command(shlex.join([*words, *command_words(ScoringSettings, shaping, always=shaping)]))
