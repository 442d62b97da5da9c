"""Section: how the teachers score, and how far they agree."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jobs.report.markup import Content, Html, el, join
from jobs.report.page import Figure, Missing, Section, Source, panel, panels, table
from jobs.report.plot import Axis, Plot, legend
from jobs.report.sources import score_command
from pipeline.errors import PrepError
from pipeline.scores.pairs import PairSet, load_pairs
from pipeline.scores.scores import ScoreSet, load_scores
from pipeline.storage.workspace import Workspace
from pipeline.triples.agreement import Agreement, score_agreement

_KINDS = (("judged relevant", 0), ("not judged", 1), ("judged not relevant", 5))
_SCORE = "prep score --teacher NAME=CHECKPOINT -w WORKSPACE"
_NONE = "no complete scores of a teacher"
INTRO = (
    "A teacher is a cross-encoder: it reads a query and a passage together and gives one number, a raw logit; higher "
    "is more relevant. Teachers are useful together when each is good and they err on different pairs."
)


def teachers_section(workspace: Workspace) -> Section:
    """Distributions and agreement of all teachers whose scores are complete."""
    return Section("teachers", "Teachers", INTRO, _parts(workspace))


def _parts(workspace: Workspace) -> list[Figure | Missing]:
    try:
        pairs = load_pairs(workspace)
    except PrepError as error:
        return [Missing("the teachers' scores", "prep build-pairs -w WORKSPACE", error.what)]
    scores, missing = [], []
    for name in workspace.names("scores"):
        try:
            scores.append(load_scores(workspace, pairs, name))
        except PrepError as error:
            missing.append(Missing(f"scores of {name}", error.todo or _SCORE, error.what))
    if not scores:
        return [*missing, Missing("the teachers' scores", _SCORE, _NONE)]
    found = score_agreement(scores)
    sources = [
        Source(
            score_command(one.teacher, one.footers[0].recipe.settings, one.footers[0].extra),
            {f"scores/{one.teacher}": one.content, "pairs": pairs.content},
        )
        for one in scores
    ]
    parts: list[Figure | Missing] = [_distributions(found, pairs, scores, sources)]
    if len(scores) > 1:
        parts.append(_agreement(found, sources))
    else:
        parts.append(Missing("agreement of the teachers", _SCORE, "it takes two"))
    return [*parts, *missing]


def _distributions(found: Agreement, pairs: PairSet, scores: Sequence[ScoreSet], sources: list[Source]) -> Figure:
    counts = (found.relevant, found.unjudged, found.irrelevant)
    there = [(name, series, rows) for (name, series), rows in zip(_KINDS, counts, strict=True) if rows.sum()]
    highest = max(float((rows / rows.sum(axis=1, keepdims=True)).max()) for _, _, rows in there)
    plots = []
    titles = [f"{one.teacher} · {_form(one)}" for one in scores]
    if len(scores) > 1:
        titles.append("mean of the teachers")
    for place, title in enumerate(titles):
        plot = Plot(
            Axis("score, raw logit", float(found.edges[0]), float(found.edges[-1])),
            Axis("share of the pairs of a kind", 0, 1.08 * highest, share=True),
        )
        for _, series, rows in reversed(there):
            plot.area([float(e) for e in found.edges], [float(v) for v in rows[place] / rows[place].sum()], series)
        told = f"Scores of {title}: shares of relevant and other pairs by score"
        plots.append(panel(title, plot.svg(told)))
    middles = [_median(found.relevant[-1], found.edges), _median(found.unjudged[-1], found.edges)]
    caption = (
        f"Each curve is the share of its kind at each score ({found.pairs:,} pairs, {found.shards} of "
        f"{len(pairs.paths)} shards; all panels have one scale). The further the relevant pairs lie to the right of "
        "the others, the better the teacher tells them apart; where the curves overlap it is unsure, or a relevant "
        "passage has not been judged."
    )
    if all(middle is not None for middle in middles):
        caption += f" Medians of the mean: {middles[0]:.2f} for relevant, {middles[1]:.2f} for unjudged pairs."
    body = join(legend([(f"{name} ({int(rows[0].sum()):,})", series) for name, series, rows in there]), panels(*plots))
    return Figure("Scores of judged and unjudged pairs, by teacher", body, caption, sources)


def _form(scores: ScoreSet) -> str:
    """Architecture and length of a teacher, as far as its files say."""
    footer = scores.footers[0]
    settings, form = footer.recipe.settings, footer.extra.get("form")
    if "imported_from" in settings:
        return "imported"
    known = [form.removesuffix("ForSequenceClassification") if form else None, _layers(footer.extra.get("teacher"))]
    known.append(f"{settings['max_length_tokens']} tokens" if "max_length_tokens" in settings else None)
    return ", ".join(filter(None, known)) or "of unknown form"


def _layers(checkpoint: str | None) -> str | None:
    """Depth of a teacher whose directory is there."""
    path = Path(checkpoint or "") / "config.json"
    if not path.is_file():
        return None
    config = json.loads(path.read_text(encoding="utf-8"))
    layers, groups = config.get("num_hidden_layers"), config.get("num_hidden_groups")
    if not layers:
        return None
    return f"{layers} layers" + (f" of {groups} kinds" if groups else "")


def _median(counts: np.ndarray, edges: np.ndarray) -> float | None:
    if not counts.sum():
        return None
    place = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    return float((edges[place] + edges[place + 1]) / 2)


def _agreement(found: Agreement, sources: list[Source]) -> Figure:
    names = found.teachers
    body: list[Content] = [panel("Correlation of scores (Pearson)", _matrix(names, found.correlations, "{:.2f}"))]
    best = []
    if found.candidates:
        percent = "{:.1%}"
        body.append(panel("Same order of a relevant and another passage", _matrix(names, found.alike, percent)))
        rows = [(name, percent.format(value)) for name, value in zip([*names, "mean"], found.right, strict=True)]
        body.append(panel("Relevant passage above the other", table(("teacher", "of the candidates"), rows)))
        best.append(
            f" Counted over {found.candidates:,} candidates, each a relevant passage and another of its query; the "
            f"mean of the teachers orders {found.right[-1]:.1%} of them rightly, the best single teacher "
            f"{found.right[:-1].max():.1%}."
        )
    caption = (
        "1 and 100 % would mean that a second teacher says nothing new. Where teachers differ and their mean orders "
        "more candidates rightly than each of them, an ensemble has something to teach." + "".join(best)
    )
    return Figure("How far the teachers agree", panels(*body, narrow=True), caption, sources)


def _matrix(names: Sequence[str], values: np.ndarray, written: str) -> Html:
    rows: list[list[Content]] = []
    for place, name in enumerate(names):
        cells = [
            el("span", written.format(value), class_="shaded", style=f"background: rgba(var(--shade), {_tone(value)})")
            for value in values[place]
        ]
        rows.append([name, *cells])
    return table(["", *names], rows)


def _tone(value: float) -> str:
    """How dark a value from 0 to 1 is drawn."""
    return f"{0.55 * max(0.0, min(1.0, (float(value) - 0.5) * 2)):.2f}"
