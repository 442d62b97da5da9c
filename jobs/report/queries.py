"""Section: which queries gain and which lose, with what the two systems rank first."""

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
"""Characters of a passage."""
INTRO = (
    "A mean hides that single queries go up and down. Each query below was asked of two systems; what they rank first "
    "shows what one has learned, and where it is misled."
)


def queries_section(workspace: Workspace, results: Results | None, make: str) -> Section:
    """Sorted bars of each comparison, and the extreme queries of the first whose runs are there."""
    if results is None or not results.changes:
        return Section("queries", "Query by query", INTRO, [Missing("changes by query", make, "it takes two systems")])
    parts: list[Figure | Missing] = [_bars(results)]
    told = None
    for change in results.changes:
        told = _extremes(workspace, change, results)
        if isinstance(told, Figure):
            break
    if told is not None:
        parts.append(told)
    return Section("queries", "Query by query", INTRO, parts)


def _bars(results: Results) -> Figure:
    plots: list[Markup] = []
    for change in results.changes:
        difference = np.sort(change.ones - change.others)[::-1]
        edges, heights = _runs(difference)
        plot = Plot(
            Axis("queries, sorted by change", 0, len(difference)), Axis(f"change of {results.measure}", -1.05, 1.05)
        )
        plot.area(edges, [max(h, 0.0) for h in heights], 2)
        plot.area(edges, [min(h, 0.0) for h in heights], 4)
        up, down = int((difference > 0).sum()), int((difference < 0).sum())
        told = f"{change.title}: {up} queries gain, {down} lose, {len(difference) - up - down} stay"
        plots.append(panel(told, plot.svg(told)))
    caption = (
        "One bar for each query, the greatest gain at the left, the greatest loss at the right. The green area minus "
        "the red one is the difference of the means."
    )
    return Figure("Change by query", panels(*plots), caption, results.sources)


def _runs(sorted_values: np.ndarray) -> tuple[list[float], list[float]]:
    """Edges and heights with neighbours of one height put together."""
    starts = np.flatnonzero(np.diff(sorted_values, prepend=np.inf))
    return [*map(float, starts), float(len(sorted_values))], [float(sorted_values[start]) for start in starts]


def _extremes(workspace: Workspace, change: Change, results: Results) -> Figure | Missing:
    what = f"the queries that changed most, {change.title}"
    qrels = split_qrels(workspace, change.sample.split, change.sample.max_queries)
    gone = [path for path in change.runs if not path.exists()]
    if gone:
        return Missing(what, results.sources[0].command, f"no {gone[0].name} in this workspace")
    runs = [read_run(workspace, path) for path in change.runs]
    found = [evaluate_run(run, qrels, change.sample.relevance_level) for run in runs]
    for evaluation, expected in zip(found, change.values, strict=True):
        values = evaluation.values[results.measure]
        if len(values) != len(expected) or not np.allclose(values, expected, atol=1e-5):
            return Missing(what, results.sources[0].command, "the runs here are not those that were measured")
    difference = change.ones - change.others
    order = np.argsort(difference, kind="stable")
    worst = [int(place) for place in order[:SHOWN] if difference[place] < 0]
    best = [int(place) for place in order[::-1][:SHOWN] if difference[place] > 0]
    lookup = _Lookup(workspace, qrels, runs, found[0].query_id)
    columns = [
        (title, [lookup.query(place, change) for place in places])
        for title, places in ((f"Greatest gains of {change.one}", best), (f"Greatest losses of {change.one}", worst))
    ]
    caption = (
        f"{results.measure} of {change.other} → {change.one}. Open a query to see its relevant passage and what each "
        "system ranks first; ✓ marks a passage that is judged relevant. A top passage without it is not always wrong: "
        "it may never have been judged."
    )
    body = call("parts.html", "query_columns", columns)
    return Figure(f"Best and worst queries: {change.title}", body, caption, results.sources)


class _Passage(NamedTuple):
    """A passage of a query: what it is, and its beginning."""

    about: str
    excerpt: str


class _Query(NamedTuple):
    """A query, its measure with both systems, and the passages to show."""

    before: str
    after: str
    direction: str
    text: str
    passages: list[_Passage]


class _Lookup:
    """Texts and ranks of single queries."""

    def __init__(self, workspace: Workspace, qrels: Qrels, runs: list[Run], queries: np.ndarray) -> None:
        self._workspace, self._qrels, self._runs, self._queries = workspace, qrels, runs, queries
        self._texts = {table: Texts(workspace, table) for table in ("queries", "passages")}

    def query(self, place: int, change: Change) -> _Query:
        """A query that opens."""
        query = int(self._queries[place])
        here = (self._qrels.query_id == query) & (self._qrels.grade >= change.sample.relevance_level)
        relevant = self._qrels.passage_id[here]
        gain = change.ones[place] - change.others[place]
        (text,) = self._texts["queries"].take(np.array([query]))
        before, after = f"{change.others[place]:.2f}", f"{change.ones[place]:.2f}"
        ranks = [self._rank(run, query, relevant) for run in self._runs]
        parts = []
        if len(relevant):
            where = f"rank {ranks[1]} with {change.other}, {ranks[0]} with {change.one}"
            parts.append(self._passage("Relevant", int(relevant[0]), where, relevant))
        for name, run in ((change.other, self._runs[1]), (change.one, self._runs[0])):
            top = run.passage_id[(run.query_id == query) & (run.rank == 1)]
            if len(top):
                parts.append(self._passage(f"First with {name}", int(top[0]), "", relevant))
        return _Query(before, after, "up" if gain > 0 else "down", text, parts)

    def _rank(self, run: Run, query: int, relevant: np.ndarray) -> str:
        ranks = run.rank[(run.query_id == query) & np.isin(run.passage_id, relevant)]
        return str(int(ranks.min())) if len(ranks) else "none"

    def _passage(self, what: str, passage: int, where: str, relevant: np.ndarray) -> _Passage:
        (text,) = self._texts["passages"].take(np.array([passage]))
        name = external_ids(self._workspace, "passages", np.array([passage]))[0]
        shown = text if len(text) <= EXCERPT else text[:EXCERPT].rsplit(" ", 1)[0] + " …"
        mark = " ✓" if passage in relevant else ""
        about = f"{what}{mark} ({', '.join(filter(None, [str(name), where]))}): "
        return _Passage(about, shown)
