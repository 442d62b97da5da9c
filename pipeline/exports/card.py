"""The card of an exported data set: a README.md that says how to load it and what it was made from."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pipeline.triples.funnel import Funnel


@dataclass(frozen=True)
class Config:
    """A configuration of a data set, as `datasets.load_dataset` names it."""

    name: str
    files: str
    """Glob pattern, relative to the card."""
    rows: int
    options: dict[str, Any] | None = None
    """Further options of the loader, such as the separator of a table."""


@dataclass(frozen=True)
class Origin:
    """What the rows were made from."""

    dataset: str
    """Triple set or lists of the workspace, such as `triples/default`."""
    settings: Mapping[str, Any]
    """Settings that made the set."""
    fingerprint: str
    """Fingerprint of the set's recipe."""
    teachers: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    """Name → settings in the footers of its scores."""
    funnel: Funnel | None = None
    warnings: Sequence[str] = ()
    """Sentences about teachers whose scores should not be averaged as they are."""


def card(
    title: str,
    usage: str,
    configs: Sequence[Config],
    origin: Origin,
    licence: str,
    left_out: Mapping[str, int],
    fingerprint: str,
) -> str:
    """The text of README.md.

    Args:
        title: heading.
        usage: how its trainer reads the files.
        configs: configurations of the data set.
        origin: what the rows were made from.
        licence: of the data, as the Hub names it.
        left_out: what was left out → how much of it.
        fingerprint: of the files.
    """
    body = _body(title, usage, configs, origin, left_out, fingerprint)
    return "\n".join(["---", *_front_matter(configs, licence, fingerprint), "---", "", *body, ""])


def is_card(text: str) -> bool:
    """Whether `card` wrote the text: it names the recipe of the rows."""
    return re.search(r"^Made of `[^`\n]+`, recipe `[0-9a-f]{32}`:$", text, re.MULTILINE) is not None


def _front_matter(configs: Sequence[Config], licence: str, fingerprint: str) -> list[str]:
    """Lines of YAML; values are written as JSON, which is valid YAML.

    `datasets` 5 caches the rows of a directory by its last name and the configurations of its card, not by the files.
    The fingerprint in each configuration makes it read an export that was replaced.
    """
    lines = [f"license: {json.dumps(licence)}", "task_categories:", '- "text-ranking"', "tags:", '- "distillation"']
    lines.append("configs:")
    for config in configs:
        lines += [f"- config_name: {json.dumps(config.name)}", f"  description: {json.dumps(fingerprint)}"]
        lines.append("  data_files:")
        lines += ['  - split: "train"', f"    path: {json.dumps(config.files)}"]
        lines += [f"  {key}: {json.dumps(value)}" for key, value in (config.options or {}).items()]
    return lines


def _body(
    title: str,
    usage: str,
    configs: Sequence[Config],
    origin: Origin,
    left_out: Mapping[str, int],
    fingerprint: str,
) -> list[str]:
    lines = [f"# {title}", "", "| configuration | rows |", "|---|---:|"]
    lines += [f"| `{config.name}` | {config.rows:,} |" for config in configs]
    for what, count in left_out.items():
        if count:
            lines += ["", f"{count:,} {what} were left out."]
    lines += [
        "",
        "Scores are raw logits. Load it with `datasets.load_dataset(DIRECTORY)`. Its trainer reads it so:",
        "",
        usage,
        "",
        f"Fingerprint of the files: `{fingerprint}`. Exports with the same fingerprint have the same bytes.",
    ]
    lines += ["", "## Teachers", ""]
    lines += ["| teacher | fingerprint | what is known of it |", "|---|---|---|"]
    for name, facts in origin.teachers.items():
        known = ", ".join(f"{key} {value}" for key, value in facts.items() if key != "fingerprint")
        lines.append(f"| {_cell(name)} | `{facts.get('fingerprint', '')}` | {_cell(known)} |")
    for warning in origin.warnings:
        lines += ["", f"**Warning:** {warning}."]
    lines += ["", "## Filters", "", f"Made of `{origin.dataset}`, recipe `{origin.fingerprint}`:", ""]
    lines += ["| setting | value |", "|---|---|"]
    shown = {key: value for key, value in origin.settings.items() if key != "sql"}
    lines += [f"| {_cell(key)} | {_cell(value)} |" for key, value in shown.items()]
    if origin.funnel is not None:
        lines += ["", "## Funnel", "", "| | count |", "|---|---:|"]
        for label, count, is_loss in origin.funnel.lines():
            lines.append(f"| {'- ' if is_loss else ''}{label} | {count:,} |")
    return lines


def _cell(value: object) -> str:
    """Text without line breaks and separators of a Markdown table."""
    return " ".join(str(value).replace("|", "\\|").split())
