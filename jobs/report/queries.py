"""Section: the queries that gain and lose most between two systems, with the passages ranked first."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from markupsafe import Markup

from jobs.ranking.evaluate import split_qrels
from jobs.report.markup import call
from jobs.report.page import Figure, Missing, Section, panel, panels
from jobs.report.plot import Axis, Plot
from jobs.report.result_rows import Change, Results
from pipeline.collection.texts import Texts
from pipeline.evaluation.metrics import Qrels, evaluate_run
from pipeline.evaluation.runs import Run, external_ids, read_run
from pipeline.storage.workspace import Workspace

SHOWN = 10
EXCERPT = 320
"""Characters of a passage that are shown."""
INTRO = (
    "A mean hides gains and losses of single queries. Here two systems are compared on each query. The passages that "
    "they rank first show what the better system has learned, and where it makes mistakes."
)


def queries_section(workspace: Workspace, results: Results | None, command: str) -> Section:
    """Sorted changes of each comparison, and the extreme queries of the first comparison whose runs exist."""
    if results is None or not results.changes:
        return Section(
            "queries", "Query by query", INTRO, [Missing("changes by query", command, "this needs two systems")]
        )
    parts: list[Figure | Missing] = [_bars(results)]
    extremes = None
    for change in results.changes:
        extremes = _extremes(workspace, change, results)
        if isinstance(extremes, Figure):
            break
    if extremes is not None:
        parts.append(extremes)
    return Section("queries", "Query by query", INTRO, parts)


def _bars(results: Results) -> Figure:
    plots: list[Markup] = []
    for change in results.changes:
        difference = np.sort(change.left_values - change.right_values)[::-1]
        edges, heights = _steps(difference)
        plot = Plot(
            Axis("queries, sorted by change", 0, len(difference)), Axis(f"change of {results.measure}", -1.05, 1.05)
        )
        plot.area(edges, [max(h, 0.0) for h in heights], 2)
        plot.area(edges, [min(h, 0.0) for h in heights], 4)
        up, down = int((difference > 0).sum()), int((difference < 0).sum())
        title = f"{change.title}: {up} queries gain, {down} lose, {len(difference) - up - down} are unchanged"
        plots.append(panel(title, plot.svg(title)))
    caption = (
        "One bar per query, from the greatest gain on the left to the greatest loss on the right. The difference "
        "between the green and the red area, divided by the number of queries, is the difference of the means."
    )
    return Figure("Change by query", panels(*plots), caption, results.sources)


def _steps(sorted_values: np.ndarray) -> tuple[list[float], list[float]]:
    """Edges and heights of the steps; neighbours of equal height are merged."""
    starts = np.flatnonzero(np.diff(sorted_values, prepend=np.inf))
    return [*map(float, starts), float(len(sorted_values))], [float(sorted_values[start]) for start in starts]


def _extremes(workspace: Workspace, change: Change, results: Results) -> Figure | Missing:
    what = f"the queries that changed most ({change.title})"
    qrels = split_qrels(workspace, change.sample.split, change.sample.max_queries)
    missing = [path for path in change.runs if not path.exists()]
    if missing:
        return Missing(what, results.sources[0].command, f"no {missing[0].name} in this workspace")
    runs = [read_run(workspace, path) for path in change.runs]
    evaluations = [evaluate_run(run, qrels, change.sample.relevance_level) for run in runs]
    for evaluation, expected in zip(evaluations, change.values, strict=True):
        values = evaluation.values[results.measure]
        if len(values) != len(expected) or not np.allclose(values, expected, atol=1e-5):
            return Missing(
                what, results.sources[0].command, "the run files in this workspace are not those that were measured"
            )
    difference = change.left_values - change.right_values
    order = np.argsort(difference, kind="stable")
    worst = [int(row) for row in order[:SHOWN] if difference[row] < 0]
    best = [int(row) for row in order[::-1][:SHOWN] if difference[row] > 0]
    lookup = _Lookup(workspace, qrels, runs, evaluations[0].query_id)
    columns = [
        (title, [lookup.query(row, change) for row in rows])
        for title, rows in ((f"Greatest gains of {change.left}", best), (f"Greatest losses of {change.left}", worst))
    ]
    caption = (
        f"{results.measure} of {change.right} → {change.left}. Open a query to see a relevant passage and the first "
        "passage of each system. ✓ marks passages that are judged relevant. A first passage without ✓ is not always "
        "wrong: it may not have been judged."
    )
    body = call("parts.html", "query_columns", columns)
    return Figure(f"Best and worst queries: {change.title}", body, caption, results.sources)


class _Passage(NamedTuple):
    """A passage of a query: a description and an excerpt."""

    about: str
    excerpt: str


class _Query(NamedTuple):
    """A query, its measure with each system, and the passages to show."""

    before: str
    after: str
    direction: str
    text: str
    passages: list[_Passage]


class _Lookup:
    """Reads the texts and ranks of single queries."""

    def __init__(self, workspace: Workspace, qrels: Qrels, runs: list[Run], queries: np.ndarray) -> None:
        self._workspace, self._qrels, self._runs, self._queries = workspace, qrels, runs, queries
        self._texts = {table: Texts(workspace, table) for table in ("queries", "passages")}

    def query(self, row: int, change: Change) -> _Query:
        """A query with what is shown when it is opened; `row` is its position in the values."""
        query = int(self._queries[row])
        judged = (self._qrels.query_id == query) & (self._qrels.grade >= change.sample.relevance_level)
        relevant = self._qrels.passage_id[judged]
        gain = change.left_values[row] - change.right_values[row]
        (text,) = self._texts["queries"].take(np.array([query]))
        before, after = f"{change.right_values[row]:.2f}", f"{change.left_values[row]:.2f}"
        ranks = [self._rank(run, query, relevant) for run in self._runs]
        parts = []
        if len(relevant):
            note = f"rank {ranks[1]} with {change.right}, {ranks[0]} with {change.left}"
            parts.append(self._passage("Relevant", int(relevant[0]), note, relevant))
        for name, run in ((change.right, self._runs[1]), (change.left, self._runs[0])):
            top = run.passage_id[(run.query_id == query) & (run.rank == 1)]
            if len(top):
                parts.append(self._passage(f"First with {name}", int(top[0]), "", relevant))
        return _Query(before, after, "up" if gain > 0 else "down", text, parts)

    def _rank(self, run: Run, query: int, relevant: np.ndarray) -> str:
        ranks = run.rank[(run.query_id == query) & np.isin(run.passage_id, relevant)]
        return str(int(ranks.min())) if len(ranks) else "not ranked"

    def _passage(self, what: str, passage: int, note: str, relevant: np.ndarray) -> _Passage:
        (text,) = self._texts["passages"].take(np.array([passage]))
        name = external_ids(self._workspace, "passages", np.array([passage]))[0]
        shown = text if len(text) <= EXCERPT else text[:EXCERPT].rsplit(" ", 1)[0] + " …"
        mark = " ✓" if passage in relevant else ""
        about = f"{what}{mark} ({', '.join(filter(None, [str(name), note]))}): "
        return _Passage(about, shown)
