"""Section: results, significance of the differences, and time per query."""

from __future__ import annotations

from math import isclose, isnan

from jobs.experiment.run import Sample
from jobs.experiment.tables import ALPHA, ComparedPair, ResultLine
from jobs.report.markup import Content, call
from jobs.report.page import Figure, Missing, Section, panel, panels, table
from jobs.report.plot import SERIES, Axis, Plot, legend
from jobs.report.result_rows import Results
from jobs.report.sources import command as in_workspace
from pipeline.evaluation.significance import PERMUTATIONS

SHOWN = ("MRR@10", "nDCG@10", "Recall@100")
PATH = ("labels", "T1", "T2")
"""Targets joined by a line in the latency plot, as in Hofstätter et al. 2020: labels, one teacher, the ensemble."""
VERDICTS = ("better", "worse", "not significant")
EVALUATE = in_workspace("evaluate --split dev --run bm25 --student NAME --mode rerank --latency")
INTRO = (
    "Re-ranking sorts the candidates of BM25 again; retrieval searches the whole collection. MRR@10 is the reciprocal "
    "rank of the first relevant passage among the top ten. nDCG@10 weighs all relevant passages in the top ten by rank "
    "and grade. Recall@100 is the fraction of the relevant passages among the top hundred."
)


def results_section(results: Results | None, command: str) -> Section:
    """The results table, the comparisons, and latency against effectiveness; `command` is the one that evaluates."""
    parts: list[Figure | Missing] = []
    if results is None:
        parts.append(Missing("the results table", command, "nothing was evaluated"))
        parts.append(Missing("latency against effectiveness", command, "nothing was evaluated"))
        return Section("results", "Results", INTRO, parts)
    if results.lines:
        parts.append(_table(results))
    parts += [Missing(run, rerun, why) for run, rerun, why in results.stale]
    if results.compared:
        parts.append(_comparisons(results))
    else:
        parts.append(Missing("comparisons", command, "this needs two systems evaluated on the same queries"))
    parts.append(_latency(results) if results.paths else Missing("latency", command, "no latency was measured"))
    return Section("results", "Results", INTRO, parts)


def findings(results: Results) -> list[str]:
    """One sentence per comparison: for which students left is better or worse than right, or not significantly so."""
    several = _several_splits(results)
    pairs: dict[tuple[str, str], dict[str, dict[str, list[str]]]] = {}
    for pair in results.compared:
        verdicts = pairs.setdefault((pair.left, pair.right), {verdict: {} for verdict in VERDICTS})
        mode = pair.condition.mode + (f" of {pair.condition.sample.split}" if several else "")
        verdicts[_verdict(pair)].setdefault(pair.condition.student, []).append(
            f"{mode} {_signed(pair.comparison.difference)}"
        )
    sentences = []
    for (left, right), verdicts in pairs.items():
        parts = []
        for verdict, students in verdicts.items():
            changes = [f"{student} ({', '.join(modes)})".strip() for student, modes in students.items()]
            if changes:
                stated = verdict if verdict != VERDICTS[2] else "no significant difference"
                parts.append(f"{stated} {'for ' if any(students) else ''}{', '.join(changes)}")
        sentences.append(f"{left} against {right}: {'; '.join(parts)}.")
    return sentences


def _several_splits(results: Results) -> bool:
    """Whether the comparisons are of several splits or grades, so that each has to name its own."""
    return len({pair.condition.sample._replace(max_queries=None) for pair in results.compared}) > 1


def _verdict(pair: ComparedPair) -> str:
    if not pair.significant:
        return VERDICTS[2]
    return VERDICTS[0] if pair.comparison.difference > 0 else VERDICTS[1]


def _table(results: Results) -> Figure:
    lines = results.lines
    measures = [name for name in SHOWN if name in lines[0].rows[0].means]
    letters = [_letter(index) for index in range(len(lines))]
    best: dict[tuple[str, Sample, str], float] = {}
    for mode, sample in dict.fromkeys((line.mode, line.sample) for line in lines):
        rivals = [line for line in lines if (line.mode, line.sample) == (mode, sample)]
        for name in measures:
            means = [line.mean(name) for line in rivals]
            if not all(isclose(mean, means[0]) for mean in means):  # Means over seeds differ in the last bits.
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
        rows.append([letter, name, line.mode, *cells, line.queries_described, str(len(line.rows))])
    caption = (
        f"Means over the queries, ± the standard deviation over the seeds. A raised letter means: significantly better "
        f"in {results.measure} than the line with that letter (adjusted p below {ALPHA}). Bold: the best value among "
        "systems with the same queries and the same mode. Lines with different queries cannot be compared. ms: median "
        "time per query for re-ranking, one query at a time."
    )
    head = ["", "system", "mode", *measures, "ms", "queries", "seeds"]
    return Figure("Results", table(head, rows, numbers_from=3), caption, results.sources)


def _marks(line: ResultLine, lines: list[ResultLine], letters: list[str]) -> str:
    """Letters of the lines that this line is significantly better than."""
    marks = []
    for other, letter in zip(lines, letters, strict=True):
        same = (other.system, other.mode) == (line.system, line.mode) and other.target in line.better_than
        if other.sample == line.sample and (same if line.target else other.system in line.better_than):
            marks.append(letter)
    return " ".join(marks)


def _letter(index: int) -> str:
    more, last = divmod(index, 26)
    return (_letter(more - 1) if more else "") + chr(ord("a") + last)


def _comparisons(results: Results) -> Figure:
    rows: list[list[Content]] = []
    several = _several_splits(results)
    for pair in results.compared:
        f = pair.comparison
        queries = pair.condition.sample.describe(pair.queries) if several else ""
        verdict = _verdict(pair)
        direction = {"better": "up", "worse": "down"}.get(verdict)
        rows.append(
            [
                f"{pair.left} - {pair.right}",
                ", ".join(filter(None, [pair.condition.student, pair.condition.mode, queries])),
                _signed(f.difference),
                call("parts.html", "verdict", verdict, direction),
                _p(pair.adjusted_p),
                _p(f.randomisation),
                _p(f.t_test),
                f"{f.wins} / {pair.queries - f.wins - f.losses} / {f.losses}",
                str(pair.seeds),
            ]
        )
    head = [
        "comparison",
        "student, mode",
        "difference",
        "",
        "p adjusted",
        "p randomis.",
        "p t-test",
        "wins / ties / losses",
        "seeds",
    ]
    caption = (
        f"{results.measure}, paired by query (means over the seeds). The p-values are two-sided: of Student's paired "
        "t-test (undefined where the differences do not vary), and of a randomisation test with "
        f"{PERMUTATIONS:,} random sign flips. Adjusted: the randomisation test's p-value after Holm's correction for "
        f"{len(results.compared)} comparisons. “Not significant” does not mean that there is no difference: it may be "
        "too small to show with this number of queries."
    )
    return Figure("Comparisons", table(head, rows, numbers_from=2), caption, results.sources)


def _signed(value: float) -> str:
    return f"{round(value, 3) + 0.0:+.3f}"


def _p(value: float) -> str:
    if isnan(value):
        return "undefined"
    return "< 0.001" if value < 0.001 else f"{value:.3f}"


def _latency(results: Results) -> Figure:
    paths = results.paths
    points = [(_ms(line), line.mean(results.measure)) for path in paths for line in path]
    heights = [y for _, y in points]
    plot = Plot(
        Axis.decades("median time per query, ms (logarithmic)", [x for x, _ in points]),
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
    samples = dict.fromkeys(line.queries_described for path in paths for line in path)
    caption = (
        f"Re-ranking, queries: {', '.join(samples)}. Higher is better, further left is faster. A line joins one "
        "architecture trained from labels alone, from one teacher (T1) and from the ensemble (T2). Distillation helps "
        "where a line rises without moving right. The target does not change the work per query, so different times "
        "of one architecture come from other load on the machine. Hover over a dot to see its name."
    )
    dashed = [series for series in range(len(entries)) if series >= SERIES]
    body = panels(panel("re-ranking", legend(entries, dashed=dashed), plot.svg(f"{results.measure} by time per query")))
    return Figure("Latency against effectiveness", body, caption, results.sources)


def _ms(line: ResultLine) -> float:
    value = line.latency_ms()
    assert value is not None
    return value
