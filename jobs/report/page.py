"""The page: an opening, then sections of figures with their sources. Whatever is missing names the command for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from markupsafe import Markup

from jobs.report.markup import Content, call
from jobs.report.markup import render as render_template


@dataclass(frozen=True)
class Source:
    """What a figure is made from."""

    command: str
    """The command that makes the data."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Dataset → content fingerprint."""


@dataclass(frozen=True)
class Figure:
    """A titled figure: plots, a table or a list."""

    title: str
    body: Markup
    caption: str
    """How to read the figure."""
    sources: Sequence[Source]


@dataclass(frozen=True)
class Missing:
    """A figure that cannot be shown yet."""

    what: str
    command: str
    """The command that makes what is missing."""
    why: str = ""


@dataclass(frozen=True)
class Caution:
    """A warning about the data that a section shows."""

    text: str
    command: str | None = None
    """The command that does it better."""


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    name: str
    """The target of links to the section."""
    title: str
    intro: str
    parts: Sequence[Figure | Missing | Caution]


@dataclass(frozen=True)
class Opening:
    """What the page says before its sections."""

    text: str
    counts: Sequence[tuple[str, int]]
    """What the workspace holds: label and number."""
    findings_intro: str = ""
    findings: Sequence[str] = ()


def panels(*contents: Markup, narrow: bool = False) -> Markup:
    """Plots or small tables side by side, as far as the window is wide enough."""
    return call("parts.html", "panels", contents, narrow)


def panel(title: str, *contents: Content) -> Markup:
    """A plot or a small table under its heading."""
    return call("parts.html", "panel", title, contents)


def table(head: Sequence[Content], rows: Sequence[Sequence[Content]], *, numbers_from: int = 1) -> Markup:
    """A table; the columns from `numbers_from` on are aligned as numbers."""
    return call("parts.html", "table", head, rows, numbers_from)


def render(title: str, opening: Opening, sections: Sequence[Section]) -> str:
    """Renders the whole page, with its figures numbered and an index of their datasets."""
    figures: list[Figure] = []
    numbered = []
    for section in sections:
        parts: list[tuple[int, Figure | Missing | Caution]] = []
        for part in section.parts:
            if isinstance(part, Figure):
                figures.append(part)
            parts.append((len(figures) if isinstance(part, Figure) else 0, part))
        numbered.append((section, parts))
    datasets = _datasets(figures)
    return str(render_template("page.html", title=title, opening=opening, sections=numbered, datasets=datasets))


def _datasets(figures: Sequence[Figure]) -> list[tuple[tuple[str, str], list[int]]]:
    """Every dataset and its fingerprint, with the numbers of the figures that it is shown in."""
    used: dict[tuple[str, str], list[int]] = {}
    for number, figure in enumerate(figures, 1):
        for source in figure.sources:
            for dataset in source.inputs.items():
                if number not in used.setdefault(dataset, []):
                    used[dataset].append(number)
    return sorted(used.items())
