"""Reconstructs the command that made a data set, from the settings stored with it."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import Any

from pipeline.settings import command_words, option_of
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


def triples_command(name: str, settings: Mapping[str, Any], dataset: str = "triples") -> str:
    """The command that built a set of triples or lists."""
    words, left_out = [f"build-{dataset}", "--name", name], []
    if dataset == "lists":
        layout = settings["layout"]
        words += ["--size", str(layout["size"]), *(["--drop-short"] if layout["drop_short"] else [])]
        left_out = ["negatives_per_query", "pairs"]
    always = ["threshold", "strategy"] if dataset == "lists" else ["threshold"]
    words += command_words(TripleSettings, settings, always=always, without=left_out)
    words += [word for teacher in settings["teachers"] for word in ("--teacher", teacher)]
    return command(shlex.join(words))


def zscore_command(
    name: str,
    settings: Mapping[str, Any],
    spreads: Mapping[str, float],
    threshold: float | None,
    dataset: str = "triples",
) -> tuple[str, list[str]] | None:
    """The command that builds a set again with the mean of z-scores instead of raw logits; None if it has z-scores.

    Args:
        name: of the set.
        settings: that it was built with, with its teachers.
        spreads: of the teachers' logits; those that spread by 0 are left out of the command.
        threshold: on the scale of z-scores, if it is known.
        dataset: "triples" or "lists".

    Returns:
        The command, and the options with bounds in raw logits that it leaves out, since they have no equivalent.
    """
    if settings["ensemble"] == "zscore":
        return None
    bounds = ("min_score", "max_score", "max_margin_std", "relative_margin")
    left_out = [bound for bound in bounds if settings.get(bound) is not None]
    if settings["threshold"] is not None and threshold is None:
        left_out.append("threshold")
    changed = {**settings, **dict.fromkeys(bounds), "ensemble": "zscore", "weights": None, "threshold": threshold}
    changed["teachers"] = [teacher for teacher in settings["teachers"] if spreads.get(teacher, 1) > 0]
    words = [option_of(TripleSettings, bound).word for bound in left_out]
    return triples_command(name, changed, dataset), words


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
