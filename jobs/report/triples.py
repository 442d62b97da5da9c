"""Section: margins, thresholds, and the funnel from pairs to triples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from jobs.report.markup import call
from jobs.report.page import Caution, Figure, Missing, Section, Source, panel, panels
from jobs.report.plot import Axis, Plot, legend
from jobs.report.sources import command, triples_command, zscore_command
from pipeline.errors import PrepError
from pipeline.storage.workspace import Workspace
from pipeline.tables.parts import content_fingerprint
from pipeline.tables.provenance import Footer
from pipeline.triples.agreement import score_agreement
from pipeline.triples.ensemble import Ensemble
from pipeline.triples.funnel import STEP, Funnel
from pipeline.triples.inputs import current_scored_pairs
from pipeline.triples.scales import is_fitted, recorded_warnings, scale_warnings
from pipeline.triples.sets import load_ensemble, usable_set

MOST_SETS = 6
OLD_SET_PAIRS = 200_000
"""Pairs from which the spreads of teachers are taken where a set does not record them."""
INTRO = (
    "A triple consists of a query, a relevant passage (the positive) and another passage (the negative). Its margin is "
    "the ensemble's score of the positive minus its score of the negative. Students trained with Margin-MSE learn to "
    "reproduce this margin. A threshold on the margin drops candidates whose negative may be relevant too."
)
_BUILD = command("build-triples --threshold 3")


class _Set(NamedTuple):
    name: str
    footer: Footer
    source: Source


def triples_section(workspace: Workspace) -> Section:
    """Margins, threshold curve and funnel of each triple set."""
    sets: list[_Set] = []
    parts: list[Figure | Missing | Caution] = []
    for name in workspace.names("triples"):
        try:
            _, footers = usable_set(workspace, "triples", name)
        except PrepError as error:
            parts.append(Missing(f"triples {name}", (error.todo or _BUILD).removeprefix("run: "), error.reason))
            continue
        made = triples_command(name, footers[0].recipe.settings)
        sets.append(_Set(name, footers[0], Source(made, {f"triples/{name}": content_fingerprint(footers)})))
    shown: list[Figure | Missing | Caution] = [
        caution for triple_set in sets for caution in _cautions(workspace, triple_set)
    ]
    if sets:
        shown.append(_margins(sets[:MOST_SETS]))
    else:
        shown.append(Missing("margins and funnel", _BUILD, "no triples have been built"))
    shown.append(_thresholds(workspace))
    if sets:
        shown.append(_funnels(sets[:MOST_SETS]))
    hidden = [triple_set.name for triple_set in sets[MOST_SETS:]]
    if hidden:
        parts.append(
            Missing(
                f"triples {', '.join(hidden)}", "prep status -w WORKSPACE", f"the page shows {MOST_SETS} triple sets"
            )
        )
    return Section("triples", "Margins and triples", INTRO, [*shown, *parts])


def _cautions(workspace: Workspace, triple_set: _Set) -> list[Caution]:
    """Warnings about the scales of a set's teachers."""
    footer, name = triple_set.footer, triple_set.name
    settings, extra = footer.recipe.settings, footer.extra
    warnings, spreads = recorded_warnings(footer), extra.get("spreads")
    if spreads is None:  # an earlier version built it: the spreads are those of today's scores
        try:
            agreement = score_agreement(load_ensemble(workspace, name)[1], OLD_SET_PAIRS)
        except PrepError:
            return []
        ensemble = Ensemble.from_dict(extra["ensemble"])
        spreads = dict(zip(agreement.teachers, agreement.spreads, strict=True))
        warnings = scale_warnings(
            ensemble, agreement.spreads, agreement.correlations.tolist(), fitted=is_fitted(settings)
        )
    again = zscore_command(name, settings, spreads, extra.get("zscore_threshold"))
    choose = f"; choose {', '.join(again[1])} again, in standard deviations" if again and again[1] else ""
    return [Caution(f"triples {name}: {warning}{choose}", again and again[0]) for warning in warnings]


def _margins(sets: Sequence[_Set]) -> Figure:
    plots = []
    for triple_set in sets:
        settings, statistics = triple_set.footer.recipe.settings, triple_set.footer.extra["statistics"]
        total = sum(count for _, count in statistics["candidate_margins"])
        starts = [start for start, _ in statistics["candidate_margins"]]
        if not starts:
            continue
        edges = [round(min(starts) + STEP * i, 6) for i in range(round((max(starts) - min(starts)) / STEP) + 2)]
        unit = "standard deviations" if settings["ensemble"] == "zscore" else "raw logits"
        heights = {name: _heights(statistics[name], edges, total) for name in ("candidate_margins", "triple_margins")}
        top = max(heights["candidate_margins"])
        plot = Plot(
            Axis(f"margin, {unit}", edges[0], edges[-1]), Axis("share of candidates", 0, 1.08 * top, share=True)
        )
        plot.area(edges, heights["candidate_margins"], 5)
        plot.area(edges, heights["triple_margins"], 0)
        plot.vertical(0.0, "0" if settings["threshold"] in (None, 0) else "")
        if settings["threshold"] is not None:
            plot.vertical(settings["threshold"], f"threshold {settings['threshold']:g}")
        kept = triple_set.footer.extra["rows"] / max(total, 1)
        title = f"{triple_set.name} · {', '.join(settings['teachers'])}"
        description = f"Margins of triples {triple_set.name}: {kept:.0%} of the candidates kept"
        plots.append(panel(f"{title}: {kept:.0%} kept", plot.svg(description)))
    caption = (
        "Grey: all candidates. Blue: the candidates that became triples. Left of 0 the ensemble prefers the negative: "
        "the teachers are wrong, or the negative is relevant but was not judged."
    )
    body = legend([("candidates", 5), ("triples", 0)]) + panels(*plots)
    return Figure("Margins of candidates and triples", body, caption, [triple_set.source for triple_set in sets])


def _heights(steps: Sequence[Sequence[float]], edges: Sequence[float], total: int) -> list[float]:
    counts = {round(start / STEP): count for start, count in steps}
    return [counts.get(round(edge / STEP), 0) / max(total, 1) for edge in edges[:-1]]


def _thresholds(workspace: Workspace) -> Figure | Missing:
    explore = command("explore-threshold --from -5 --to 10")
    what = "the threshold curve"
    if not workspace.path("summaries", "explore-threshold.json").exists():
        return Missing(what, explore, "no thresholds have been explored")
    facts = workspace.read_json("summaries", "explore-threshold.json")
    if facts["exit_code"] or len(facts.get("rows", [])) < 2:
        return Missing(what, explore, "the last exploration has no curve")
    try:
        stale = facts.get("inputs") != current_scored_pairs(workspace, facts["teachers"]).contents
    except PrepError:
        stale = True
    why = "; pairs or scores have changed since" if stale else ""
    rows, thresholds = facts["rows"], [row["threshold"] for row in facts["rows"]]
    plot = Plot(Axis("threshold on the margin", thresholds[0], thresholds[-1]), Axis("share", 0, 1.04, share=True))
    curves = [("triples kept", "triples", facts["candidates"], 0), ("queries kept", "queries", facts["queries"], 2)]
    if facts["held_out"]:
        curves.append(("relevant passages kept as negatives", "held_out", facts["held_out"], 4))
    for _, key, total, series in curves:
        points = [(row["threshold"], row[key] / total) for row in rows]
        plot.line(points, series, dashed=key == "held_out")
    plot.vertical(3.0, "3")
    caption = (
        "Solid: the share of candidates and of queries that a threshold keeps. Dashed: the estimated share of relevant "
        "passages that it would keep as negatives. The estimate uses queries with several relevant passages and treats "
        "each of them in turn as unjudged. A good threshold keeps most queries and few relevant passages."
    )
    for warning in [facts.get("warning"), *facts.get("scale_warnings", [])]:
        caption += f" Note: {warning}." if warning else ""
    if not facts["held_out"]:
        caption += " The estimate is missing because no query has two relevant passages."
    names = legend([(name, series) for name, _, _, series in curves], dashed=[4])
    description = "Shares of triples and queries kept, and of relevant passages kept as negatives, by threshold"
    body = panels(panel(f"teachers {', '.join(facts['teachers'])}{why}", names, plot.svg(description)))
    first, last = thresholds[0], thresholds[-1]
    made = f"explore-threshold --from {first:g} --to {last:g} --step {thresholds[1] - first:g}"
    made += "".join(f" --teacher {teacher}" for teacher in facts["teachers"])
    return Figure("What each threshold keeps", body, caption, [Source(command(made), facts.get("inputs", {}))])


def _funnels(sets: Sequence[_Set]) -> Figure:
    """The funnels of all triple sets; equal funnels are shown once."""
    shown: dict[str, tuple[list[str], Mapping[str, Any]]] = {}
    for triple_set in sets:
        counts = triple_set.footer.extra["funnel"]
        shown.setdefault(str(sorted(counts.items())), ([], counts))[0].append(triple_set.name)
    bodies: list[Markup] = [
        panel(", ".join(names), _funnel(Funnel.from_dict(counts))) for names, counts in shown.values()
    ]
    caption = (
        "From pairs to triples; orange bars show what is dropped, by reason. A candidate is a relevant passage with "
        "another passage of its query. Pairs and candidates share a scale; queries have their own."
    )
    return Figure("The funnel", Markup().join(bodies), caption, [triple_set.source for triple_set in sets])


def _funnel(funnel: Funnel) -> Markup:
    widest = {"pairs": max(funnel.pairs, funnel.candidates, 1), "queries": max(funnel.queries, 1)}
    scale, rows = widest["pairs"], []
    for label, count, lost in funnel.lines():
        if label == "queries":
            scale = widest["queries"]
        rows.append((label, f"{100 * count / scale:.2f}", f"{'-' if lost else ''}{count:,}", lost))
    return call("parts.html", "funnel", rows)
