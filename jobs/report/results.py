"""Section: what was measured, what is significant, and what a query costs."""

from __future__ import annotations

from math import isclose

from jobs.experiment.run import Sample
from jobs.experiment.tables import ALPHA, Compared, Summed
from jobs.report.markup import Content, call
from jobs.report.page import Figure, Missing, Section, panel, panels, table
from jobs.report.plot import SERIES, Axis, Plot, legend
from jobs.report.result_rows import Results
from jobs.report.sources import command
from pipeline.evaluation.significance import PERMUTATIONS

SHOWN = ("MRR@10", "nDCG@10", "Recall@100")
PATH = ("labels", "T1", "T2")
"""Targets that are joined in the plot of latency, as in the paper: labels alone, one teacher, the ensemble."""
VERDICTS = ("better", "worse", "not shown")
EVALUATE = command("evaluate --split dev --run bm25 --student NAME --mode rerank --latency")
INTRO = (
    "Re-ranking sorts the candidates of BM25 anew; retrieval searches the whole collection. MRR@10 is one over the "
    "rank of the first relevant passage among ten, nDCG@10 counts all relevant ones by rank and grade, Recall@100 is "
    "the share found among a hundred."
)


def results_section(results: Results | None, make: str) -> Section:
    """The table, the comparisons, and latency against effectiveness; `make` is the command that measures."""
    parts: list[Figure | Missing] = []
    if results is None:
        parts.append(Missing("the table of results", make, "nothing was evaluated"))
        parts.append(Missing("latency against effectiveness", make, "nothing was evaluated"))
        return Section("results", "Results", INTRO, parts)
    if results.lines:
        parts.append(_table(results))
    parts += [Missing(run, make_again, why) for run, make_again, why in results.stale]
    if results.compared:
        parts.append(_comparisons(results))
    else:
        parts.append(Missing("comparisons", make, "it takes two systems asked about the same queries"))
    parts.append(_latency(results) if results.paths else Missing("latency", make, "nothing was timed"))
    return Section("results", "Results", INTRO, parts)


def findings(results: Results) -> list[str]:
    """A sentence for each two that were compared: for which students one is better, worse, or neither is shown."""
    several = _several_splits(results)
    pairs: dict[tuple[str, str], dict[str, dict[str, list[str]]]] = {}
    for found in results.compared:
        verdicts = pairs.setdefault((found.one, found.other), {verdict: {} for verdict in VERDICTS})
        mode = found.place.mode + (f" of {found.place.sample.split}" if several else "")
        verdicts[_verdict(found)].setdefault(found.place.student, []).append(
            f"{mode} {_signed(found.found.difference)}"
        )
    told = []
    for (one, other), verdicts in pairs.items():
        parts = []
        for verdict, where in verdicts.items():
            places = [f"{student} ({', '.join(changes)})".strip() for student, changes in where.items()]
            if places:
                said = verdict if verdict != VERDICTS[2] else "no difference shown"
                parts.append(f"{said} {'in ' if any(where) else ''}{', '.join(places)}")
        told.append(f"{one} against {other}: {'; '.join(parts)}.")
    return told


def _several_splits(results: Results) -> bool:
    """Whether it has to be told on which split, or from which grade on, two are compared."""
    return len({found.place.sample._replace(max_queries=None) for found in results.compared}) > 1


def _verdict(one: Compared) -> str:
    if not one.significant:
        return VERDICTS[2]
    return VERDICTS[0] if one.found.difference > 0 else VERDICTS[1]


def _table(results: Results) -> Figure:
    lines = results.lines
    measures = [name for name in SHOWN if name in lines[0].rows[0].means]
    letters = [_letter(place) for place in range(len(lines))]
    best: dict[tuple[str, Sample, str], float] = {}
    for mode, sample in dict.fromkeys((line.mode, line.sample) for line in lines):
        rivals = [line for line in lines if (line.mode, line.sample) == (mode, sample)]
        for name in measures:
            means = [line.mean(name) for line in rivals]
            if not all(isclose(mean, means[0]) for mean in means):  # means over seeds differ in the last bits
                best[mode, sample, name] = max(means)
    rows: list[list[Content]] = []
    for letter, line in zip(letters, lines, strict=True):
        cells: list[Content] = []
        for name in measures:
            value, spread = line.mean(name), line.spread(name)
            shown = f"{value:.3f}" + ("" if spread is None else f" ± {spread:.3f}")
            is_best = value == best.get((line.mode, line.sample, name))
            marks = _marks(line, lines, letters) if name == results.measure else None
            cells.append(call("parts.html", "mean", shown, is_best, marks))
        latency = line.latency_ms()
        name = " · ".join(filter(None, [line.system, line.target]))
        cells.append("" if latency is None else f"{latency:.1f}")
        rows.append([letter, name, line.mode, *cells, line.asked, str(len(line.rows))])
    caption = (
        f"Means over queries and, where there are several seeds, their standard deviation. Raised letters: "
        f"significantly better in {results.measure} than the line of that letter (adjusted p below {ALPHA}). Bold: the "
        "best of those asked the same queries in the same mode, where they differ; lines of other queries are not to "
        "be compared. ms: median time of a query, re-ranking, one at a time."
    )
    head = ["", "system", "mode", *measures, "ms", "queries", "seeds"]
    return Figure("Results", table(head, rows, numbers_from=3), caption, results.sources)


def _marks(line: Summed, lines: list[Summed], letters: list[str]) -> str:
    """Letters of the lines that this one is better than."""
    found = []
    for other, letter in zip(lines, letters, strict=True):
        same = (other.system, other.mode) == (line.system, line.mode) and other.target in line.better_than
        if other.sample == line.sample and (same if line.target else other.system in line.better_than):
            found.append(letter)
    return " ".join(found)


def _letter(place: int) -> str:
    more, last = divmod(place, 26)
    return (_letter(more - 1) if more else "") + chr(ord("a") + last)


def _comparisons(results: Results) -> Figure:
    rows: list[list[Content]] = []
    several = _several_splits(results)
    for one in results.compared:
        f = one.found
        asked = one.place.sample.told(one.queries) if several else ""
        verdict = _verdict(one)
        sign = {"better": "up", "worse": "down"}.get(verdict)
        rows.append(
            [
                f"{one.one} - {one.other}",
                ", ".join(filter(None, [one.place.student, one.place.mode, asked])),
                _signed(f.difference),
                call("parts.html", "verdict", verdict, sign),
                _p(one.adjusted_p),
                _p(f.randomisation),
                _p(f.t_test),
                f"{f.wins} / {one.queries - f.wins - f.losses} / {f.losses}",
                str(one.seeds),
            ]
        )
    head = ["comparison", "of", "difference", "", "p, adjusted", "p, random.", "p, t", "wins / ties / losses", "seeds"]
    caption = (
        f"{results.measure}, paired query by query (over the mean of the seeds). p: two-sided, of Student's paired "
        f"t-test and of a randomisation test with {PERMUTATIONS:,} sign flips; adjusted: the latter by Holm for "
        f"{len(results.compared)} comparisons. “Not shown” does not mean that there is no difference: it may be "
        "too small for so few queries."
    )
    return Figure("Comparisons", table(head, rows, numbers_from=2), caption, results.sources)


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"


def _p(value: float) -> str:
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _latency(results: Results) -> Figure:
    paths = results.paths
    points = [(_ms(line), line.mean(results.measure)) for path in paths for line in path]
    heights = [y for _, y in points]
    plot = Plot(
        Axis.decades("median time of a query, ms (logarithmic)", [x for x, _ in points]),
        Axis.over(results.measure, heights),
    )
    entries = []
    for series, path in enumerate(paths):
        entries.append((path[0].system, series))
        joined = [line for target in PATH for line in path if line.target == target]
        if len(joined) > 1:
            plot.line([(_ms(line), line.mean(results.measure)) for line in joined], series)
        for line in joined + [line for line in path if line not in joined]:
            plot.dot((_ms(line), line.mean(results.measure)), series, line.target)
    asked = dict.fromkeys(line.asked for path in paths for line in path)
    caption = (
        f"Re-ranking, queries: {', '.join(asked)}. Further up is better, further "
        "left is faster. Lines join one architecture trained from labels alone, from one teacher (T1) and from the "
        "ensemble (T2): distillation is worth having where they rise without going right. An architecture does the "
        "same work whatever its target: where its times differ, the machine was busier. A dot without a name tells it "
        "under the pointer."
    )
    dashed = [series for series in range(len(entries)) if series >= SERIES]
    body = panels(
        panel("re-ranking", legend(entries, dashed=dashed), plot.svg(f"{results.measure} by time of a query"))
    )
    return Figure("Latency against effectiveness", body, caption, results.sources)


def _ms(line: Summed) -> float:
    value = line.latency_ms()
    assert value is not None
    return value
