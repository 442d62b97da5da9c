"""The page: sections of figures, each with what it is made of; what is missing is told with the command for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files

from jobs.report.markup import Content, Html, el, join

SHOWN_DIGITS = 12
"""Of a fingerprint."""


@dataclass(frozen=True)
class Source:
    """What a figure was made of."""

    command: str
    """That makes the data."""
    inputs: Mapping[str, str] = field(default_factory=dict)
    """Dataset → content fingerprint."""


@dataclass(frozen=True)
class Figure:
    """Something to look at."""

    title: str
    body: Content
    caption: str
    """What is to be seen."""
    sources: Sequence[Source]


@dataclass(frozen=True)
class Missing:
    """What would stand here."""

    what: str
    command: str
    """That makes it."""
    why: str = ""


@dataclass(frozen=True)
class Section:
    """A part of the page."""

    name: str
    """In links."""
    title: str
    intro: str
    parts: Sequence[Figure | Missing]


def panels(*content: Content, narrow: bool = False) -> Html:
    """Plots, or `narrow` ones, side by side where there is room."""
    kind = "panels narrow" if narrow else "panels"
    return el("div", [el("div", one, class_="panel") for one in content], class_=kind)


def panel(title: str, *content: Content) -> Html:
    """A plot with a heading of its own."""
    return join(el("h4", title), *content)


def table(head: Sequence[Content], rows: Sequence[Sequence[Content]], *, numbers_from: int = 1) -> Html:
    """A table; columns from `numbers_from` on are numbers."""

    def cells(tag: str, row: Sequence[Content]) -> list[Html]:
        return [el(tag, cell, class_="n" if place >= numbers_from else None) for place, cell in enumerate(row)]

    body = [el("tr", cells("td", row)) for row in rows]
    return el(
        "div", el("table", el("thead", el("tr", cells("th", head))), el("tbody", body)), class_="scroll", tabindex="0"
    )


def render(title: str, lead: Content, sections: Sequence[Section]) -> str:
    """The whole page."""
    style = files("jobs.report").joinpath("page.css").read_text(encoding="utf-8")
    numbered: list[tuple[int, Figure]] = []
    shown, number = [], 0
    for section in sections:
        parts = []
        for part in section.parts:
            if isinstance(part, Missing):
                parts.append(_missing(part))
                continue
            number += 1
            numbered.append((number, part))
            parts.append(_figure(number, part))
        shown.append(el("section", el("h2", section.title), el("p", section.intro), parts, id=section.name))
    links = [el("a", section.title, href=f"#{section.name}") for section in sections]
    links.append(el("a", "Provenance", href="#provenance"))
    body = join(
        el("header", el("h1", title), lead, el("nav", links)),
        el("main", shown, _provenance(numbered)),
    )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"{el('title', title)}<style>\n{style}</style></head>\n<body>{body}</body></html>\n"
    )


def _figure(number: int, part: Figure) -> Html:
    return el(
        "figure",
        el("h3", f"{number}. {part.title}"),
        part.body,
        el("figcaption", part.caption),
        el("details", el("summary", "made from"), [_source(source) for source in part.sources], class_="source"),
        id=f"figure-{number}",
    )


def _source(source: Source) -> Html:
    inputs = "; ".join(f"{name} {value[:SHOWN_DIGITS]}" for name, value in source.inputs.items())
    return el("p", el("code", source.command), Html("<br>") if inputs else None, inputs)


def _missing(part: Missing) -> Html:
    why = f" ({part.why})" if part.why else ""
    return el("p", f"Not here yet: {part.what}{why}. To make it: ", el("code", part.command), class_="missing")


def _provenance(numbered: Sequence[tuple[int, Figure]]) -> Html:
    """Every dataset that a figure shows, and the figures."""
    used: dict[tuple[str, str], list[int]] = {}
    for number, figure in numbered:
        for source in figure.sources:
            for entry in source.inputs.items():
                if number not in used.setdefault(entry, []):
                    used[entry].append(number)
    rows: list[list[Content]] = []
    for (name, value), numbers in sorted(used.items()):
        links = [join(el("a", str(number), href=f"#figure-{number}"), " ") for number in numbers]
        rows.append([name, el("code", value[:SHOWN_DIGITS]), links])
    told = (
        "Every dataset behind the figures, by the first digits of the fingerprint of its content. The commands stand "
        "below each figure, under “made from”. The same data gives this page byte for byte."
    )
    return el(
        "section",
        el("h2", "Provenance"),
        el("p", told),
        table(("dataset", "fingerprint", "figures"), rows, numbers_from=3),
        id="provenance",
    )
