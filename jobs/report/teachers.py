"""Section: the distribution of each teacher's scores, and the agreement of the teachers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from markupsafe import Markup

from jobs.report.markup import Content, call
from jobs.report.page import Caution, Figure, Missing, Section, Source, panel, panels, table
from jobs.report.plot import Axis, Plot, legend
from jobs.report.sources import score_command
from pipeline.errors import PrepError
from pipeline.scores.pairs import PairSet, current_pairs
from pipeline.scores.scores import ScoreSet, load_scores
from pipeline.storage.workspace import Workspace
from pipeline.triples.agreement import Agreement, score_agreement
from pipeline.triples.ensemble import Ensemble
from pipeline.triples.scales import scale_warnings

_GROUPS = (("judged relevant", 0), ("not judged", 1), ("judged not relevant", 5))
_SCORE = "prep score --teacher NAME=CHECKPOINT -w WORKSPACE"
_NONE = "no teacher has complete scores"
INTRO = (
    "A teacher is a cross-encoder. It reads a query and a passage together and returns a raw logit; higher means "
    "more relevant. An ensemble helps when each teacher is good and they make mistakes on different pairs."
)


def teachers_section(workspace: Workspace) -> Section:
    """Score distributions and agreement of all teachers with complete scores."""
    return Section("teachers", "Teachers", INTRO, _parts(workspace))


def _parts(workspace: Workspace) -> list[Figure | Missing | Caution]:
    try:
        pairs = current_pairs(workspace)
    except PrepError as error:
        return [Missing("the teachers' scores", _command(error, "prep build-pairs -w WORKSPACE"), error.reason)]
    scores, missing = [], []
    for name in workspace.names("scores"):
        try:
            scores.append(load_scores(workspace, pairs, name))
        except PrepError as error:
            missing.append(Missing(f"scores of {name}", _command(error, _SCORE), error.reason))
    if not scores:
        return [*missing, Missing("the teachers' scores", _SCORE, _NONE)]
    agreement = score_agreement(scores)
    sources = [
        Source(
            score_command(s.teacher, s.footers[0].recipe.settings, s.footers[0].extra),
            {f"scores/{s.teacher}": s.content, "pairs": pairs.content},
        )
        for s in scores
    ]
    mean = Ensemble.mean(agreement.teachers)
    warnings = scale_warnings(mean, agreement.spreads, agreement.correlations.tolist())
    cautions = [Caution(f"this section shows the mean of all teachers, but {warning}") for warning in warnings]
    parts: list[Figure | Missing | Caution] = [*cautions, _distributions(agreement, pairs, scores, sources)]
    if len(scores) > 1:
        parts.append(_agreement(agreement, sources))
    else:
        parts.append(Missing("agreement of the teachers", _SCORE, "this needs two teachers"))
    return [*parts, *missing]


def _command(error: PrepError, usual: str) -> str:
    """The command that a message names, or the usual one."""
    return (error.todo or usual).removeprefix("run: ")


def _distributions(agreement: Agreement, pairs: PairSet, scores: Sequence[ScoreSet], sources: list[Source]) -> Figure:
    counts = (agreement.relevant, agreement.unjudged, agreement.irrelevant)
    groups = [(name, series, rows) for (name, series), rows in zip(_GROUPS, counts, strict=True) if rows.sum()]
    highest = max(float((rows / rows.sum(axis=1, keepdims=True)).max()) for _, _, rows in groups)
    plots = []
    titles = [f"{s.teacher} · {_form(s)}" for s in scores]
    if len(scores) > 1:
        titles.append("mean of the teachers")
    for index, title in enumerate(titles):
        plot = Plot(
            Axis("score, raw logit", float(agreement.edges[0]), float(agreement.edges[-1])),
            Axis("share of the pairs in a group", 0, 1.08 * highest, share=True),
        )
        for _, series, rows in reversed(groups):
            plot.area([float(e) for e in agreement.edges], [float(v) for v in rows[index] / rows[index].sum()], series)
        plots.append(panel(title, plot.svg(f"Scores of {title}: shares of relevant and other pairs by score")))
    middles = [_median(agreement.relevant[-1], agreement.edges), _median(agreement.unjudged[-1], agreement.edges)]
    caption = (
        f"Each curve shows the distribution of the scores within its group ({agreement.pairs:,} pairs, "
        f"{agreement.shards} of {len(pairs.paths)} shards; all panels have the same scale). The further the relevant "
        "pairs lie to the right of the others, the better the teacher separates them. Where the curves overlap, the "
        "teacher is unsure, or a relevant passage has not been judged."
    )
    if all(middle is not None for middle in middles):
        caption += (
            f" Medians of the mean score: {middles[0]:.2f} for relevant pairs, {middles[1]:.2f} for unjudged pairs."
        )
    body = legend([(f"{name} ({int(rows[0].sum()):,})", series) for name, series, rows in groups]) + panels(*plots)
    return Figure("Scores of judged and unjudged pairs, by teacher", body, caption, sources)


def _form(scores: ScoreSet) -> str:
    """Architecture, layers and maximum length of a teacher, as far as they are recorded."""
    footer = scores.footers[0]
    settings, form = footer.recipe.settings, footer.extra.get("form")
    if "imported_from" in settings:
        return "imported"
    known = [form.removesuffix("ForSequenceClassification") if form else None, _layers(footer.extra.get("teacher"))]
    known.append(f"{settings['max_length_tokens']} tokens" if "max_length_tokens" in settings else None)
    return ", ".join(filter(None, known)) or "architecture not recorded"


def _layers(checkpoint: str | None) -> str | None:
    """The number of layers of a teacher, if its checkpoint is a local directory."""
    path = Path(checkpoint or "") / "config.json"
    if not path.is_file():
        return None
    config = json.loads(path.read_text(encoding="utf-8"))
    layers, groups = config.get("num_hidden_layers"), config.get("num_hidden_groups")
    if not layers:
        return None
    return f"{layers} layers" + (f" sharing {groups} sets of weights" if groups else "")


def _median(counts: np.ndarray, edges: np.ndarray) -> float | None:
    if not counts.sum():
        return None
    bin_index = int(np.searchsorted(np.cumsum(counts), counts.sum() / 2))
    return float((edges[bin_index] + edges[bin_index + 1]) / 2)


def _agreement(agreement: Agreement, sources: list[Source]) -> Figure:
    names = agreement.teachers
    body: list[Markup] = [panel("Correlation of scores (Pearson)", _matrix(names, agreement.correlations, "{:.2f}"))]
    best = []
    if agreement.candidates:
        percent = "{:.1%}"
        body.append(
            panel("Candidates that two teachers order in the same way", _matrix(names, agreement.alike, percent))
        )
        rows = [(name, percent.format(value)) for name, value in zip([*names, "mean"], agreement.right, strict=True)]
        body.append(
            panel("Candidates with the relevant passage first", table(("teacher", "fraction of candidates"), rows))
        )
        best.append(
            f" Counted over {agreement.candidates:,} candidates: a relevant passage and another passage of the same "
            f"query. The mean of the teachers orders {agreement.right[-1]:.1%} of them correctly, the best single "
            f"teacher {agreement.right[:-1].max():.1%}."
        )
    caption = (
        "With a correlation of 1, or 100 % of candidates in the same order, a second teacher adds nothing. An ensemble "
        "is useful if the teachers differ and their mean orders more candidates correctly than each of them."
        + "".join(best)
    )
    return Figure("Agreement of the teachers", panels(*body, narrow=True), caption, sources)


def _matrix(names: Sequence[str], values: np.ndarray, number_format: str) -> Markup:
    rows: list[list[Content]] = []
    for index, name in enumerate(names):
        cells = [call("parts.html", "shaded", number_format.format(value), _opacity(value)) for value in values[index]]
        rows.append([name, *cells])
    return table(["", *names], rows)


def _opacity(value: float) -> str:
    """The opacity of the background for a value from 0 to 1."""
    return f"{0.55 * max(0.0, min(1.0, (float(value) - 0.5) * 2)):.2f}"
