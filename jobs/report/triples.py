"""Section: margins, thresholds, and where pairs went on the way to triples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from jobs.report.markup import Content, Html, el, join
from jobs.report.page import Figure, Missing, Section, Source, panel, panels
from jobs.report.plot import Axis, Plot, legend
from jobs.report.sources import command, triples_command
from pipeline.errors import PrepError
from pipeline.storage.workspace import Workspace
from pipeline.tables.parts import set_content
from pipeline.tables.provenance import Footer
from pipeline.triples.funnel import STEP, Funnel
from pipeline.triples.inputs import current_scored_pairs
from pipeline.triples.sets import load_triples

MOST_SETS = 6
INTRO = (
    "A triple is a query, a relevant passage and another one. The margin is the ensemble's score of the relevant "
    "passage minus that of the other; it is what a student learns with Margin-MSE. A threshold on it drops candidates "
    "whose other passage may be relevant too."
)
_BUILD = command("build-triples --threshold 3")


class _Set(NamedTuple):
    name: str
    footer: Footer
    source: Source


def triples_section(workspace: Workspace) -> Section:
    """Margins, the threshold's curve and the funnel of each set of triples."""
    sets, parts = [], []
    for name in workspace.names("triples"):
        try:
            _, footers = load_triples(workspace, name)
        except PrepError as error:
            parts.append(Missing(f"triples {name}", error.todo or _BUILD, error.what))
            continue
        made = triples_command(name, footers[0].recipe.settings)
        sets.append(_Set(name, footers[0], Source(made, {f"triples/{name}": set_content(footers)})))
    shown: list[Figure | Missing] = []
    if sets:
        shown.append(_margins(sets[:MOST_SETS]))
    else:
        shown.append(Missing("margins and funnel", _BUILD, "no triples"))
    shown.append(_thresholds(workspace))
    if sets:
        shown.append(_funnels(sets[:MOST_SETS]))
    left = [one.name for one in sets[MOST_SETS:]]
    if left:
        parts.append(Missing(f"triples {', '.join(left)}", "prep status -w WORKSPACE", f"the page shows {MOST_SETS}"))
    return Section("triples", "Margins and triples", INTRO, [*shown, *parts])


def _margins(sets: Sequence[_Set]) -> Figure:
    plots = []
    for one in sets:
        settings, statistics = one.footer.recipe.settings, one.footer.extra["statistics"]
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
        kept = one.footer.extra["rows"] / max(total, 1)
        title = f"{one.name} · {', '.join(settings['teachers'])}"
        told = f"Margins of triples {one.name}: {kept:.0%} of the candidates kept"
        plots.append(panel(f"{title}: {kept:.0%} kept", plot.svg(told)))
    caption = (
        "All candidates in grey, those that became triples in blue. Left of 0 the ensemble holds the other passage for "
        "the better one: an error of the teachers, or a relevant passage that nobody judged."
    )
    body = join(legend([("candidates", 5), ("triples", 0)]), panels(*plots))
    return Figure("Margins of candidates and triples", body, caption, [one.source for one in sets])


def _heights(steps: Sequence[Sequence[float]], edges: Sequence[float], total: int) -> list[float]:
    counts = {round(start / STEP): count for start, count in steps}
    return [counts.get(round(edge / STEP), 0) / max(total, 1) for edge in edges[:-1]]


def _thresholds(workspace: Workspace) -> Figure | Missing:
    explore = command("explore-threshold --from -5 --to 10")
    what = "the threshold's curve"
    if not workspace.path("summaries", "explore-threshold.json").exists():
        return Missing(what, explore, "nothing explored")
    facts = workspace.read_json("summaries", "explore-threshold.json")
    if facts["exit_code"] or len(facts.get("rows", [])) < 2:
        return Missing(what, explore, "the last exploration gave no curve")
    try:
        stale = facts.get("inputs") != current_scored_pairs(workspace, facts["teachers"]).contents
    except PrepError:
        stale = True
    why = "; pairs or scores have changed since" if stale else ""
    rows, thresholds = facts["rows"], [row["threshold"] for row in facts["rows"]]
    plot = Plot(Axis("threshold on the margin", thresholds[0], thresholds[-1]), Axis("share", 0, 1.04, share=True))
    curves = [("triples kept", "triples", facts["candidates"], 0), ("queries kept", "queries", facts["queries"], 2)]
    if facts["held_out"]:
        curves.append(("relevant passages taken as negatives", "held_out", facts["held_out"], 4))
    for _, key, total, series in curves:
        points = [(row["threshold"], row[key] / total) for row in rows]
        plot.line(points, series, dashed=key == "held_out")
    plot.vertical(3.0, "3")
    caption = (
        "What a threshold keeps of candidates and of queries, and, dashed, how many relevant passages it would still "
        "take as negatives: estimated on queries with several relevant ones, each looked at in turn as if nobody had "
        "judged it. A good threshold loses few queries and takes few relevant passages."
    )
    if facts.get("warning"):
        caption += f" Note: {facts['warning']}."
    if not facts["held_out"]:
        caption += " No query has two judged relevant passages, so that the estimate is left out."
    names = legend([(name, series) for name, _, _, series in curves], dashed=[4])
    told = "Shares of triples and queries kept, and of relevant passages taken as negatives, by threshold"
    body = panels(panel(f"teachers {', '.join(facts['teachers'])}{why}", names, plot.svg(told)))
    first, last = thresholds[0], thresholds[-1]
    made = f"explore-threshold --from {first:g} --to {last:g} --step {thresholds[1] - first:g}"
    made += "".join(f" --teacher {teacher}" for teacher in facts["teachers"])
    return Figure("What each threshold keeps", body, caption, [Source(command(made), facts.get("inputs", {}))])


def _funnels(sets: Sequence[_Set]) -> Figure:
    """One funnel for each different one."""
    shown: dict[str, tuple[list[str], Mapping[str, Any]]] = {}
    for one in sets:
        counts = one.footer.extra["funnel"]
        shown.setdefault(str(sorted(counts.items())), ([], counts))[0].append(one.name)
    bodies: list[Content] = [panel(", ".join(names), _funnel(Funnel(**counts))) for names, counts in shown.values()]
    caption = (
        "From pairs to triples, with every loss by its reason (orange). A candidate is a relevant passage with another "
        "of its query. Bars are of one scale within pairs and candidates, and of another for queries."
    )
    return Figure("The funnel", bodies, caption, [one.source for one in sets])


def _funnel(funnel: Funnel) -> Html:
    widest = {"pairs": max(funnel.pairs, funnel.candidates, 1), "queries": max(funnel.queries, 1)}
    scale, rows = widest["pairs"], []
    for label, count, lost in funnel.lines():
        if label == "queries":
            scale = widest["queries"]
        bar = el("b", style=f"width: {100 * count / scale:.2f}%")
        count_text = el("span", f"{'-' if lost else ''}{count:,}", class_="count")
        rows.append(el("div", el("span", label), el("span", bar), count_text, class_="lost" if lost else None))
    return el("div", rows, class_="funnel")
