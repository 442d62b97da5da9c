"""Prints the results of commands as tables on standard output."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress
from textwrap import shorten
from typing import TYPE_CHECKING

from rich.live import Live
from rich.table import Table
from rich.text import Text

from jobs.terminal.console import console
from pipeline.imports.columns import unused_line

if TYPE_CHECKING:
    from jobs.checks.status import Stage
    from jobs.ranking.evaluate import Evaluated
    from jobs.ranking.search import Searched
    from jobs.scoring.estimate import Estimate
    from jobs.scoring.plan import Plan
    from pipeline.collection.importing import Imported
    from pipeline.triples.build import BuiltTriples
    from pipeline.triples.thresholds import Explored

SNIPPET = 90
"""Number of characters shown of a passage."""
_STYLES = {"done": "green", "missing": "dim", "incomplete": "yellow", "stale": "yellow"}


def show_added(added: Imported, unused: Collection[str] = ()) -> None:
    """Show what an import of passages, queries and judgements added, and the columns that it did not use."""
    if added.unchanged:
        console.print("these files are in the workspace already; nothing to do")
        return
    console.print(f"added {added.passages:,} passages, {added.queries:,} queries, {added.qrels:,} judgements")
    if added.repeated_lines:
        console.print(f"{added.repeated_lines:,} lines repeat an id and its text")
    if added.repeated_judgements:
        console.print(f"{added.repeated_judgements:,} judgements repeat another")
    if added.unknown_passages:
        what = "judgements are of passages that are not in the collection; measures count them as never found"
        console.print(f"{added.unknown_passages:,} {what}")
    if unused:
        console.print(unused_line(unused))


def show_funnel(built: BuiltTriples) -> None:
    """Show how many pairs, candidates and queries each filter dropped, the share of each system, and the margins."""
    table = Table(
        title=f"{built.name} from {', '.join(built.teachers)}",
        show_header=False,
        title_justify="left",
    )
    table.add_column()
    table.add_column(justify="right")
    for label, count, is_loss in built.funnel.lines():
        table.add_row(f"  - {label}" if is_loss else label, f"{count:,}", style="dim" if is_loss else None)
    console.print(table)
    counted, candidates = built.statistics, max(built.funnel.candidates, 1)
    for system, count in sorted(counted.system_candidates.items()):
        console.print(f"negatives of {system}: {count:,} candidates, {counted.system_triples[system]:,} triples")
    if built.teachers and sum(counted.teacher_alone.values()):
        alone = ", ".join(f"{name} {counted.teacher_alone[name] / candidates:.0%}" for name in built.teachers)
        console.print(f"candidates whose margin reaches the threshold with each teacher alone: {alone}")
    if len(built.teachers) > 1:
        names = built.teachers
        pairs = [f"{names[i]}-{names[j]} {built.correlations[i][j]:.2f}" for i in range(len(names)) for j in range(i)]
        console.print(f"correlations between teachers, on a sample: {', '.join(pairs)}")
    console.print("margins, on a sample: " + ", ".join(f"{name} {value:.3g}" for name, value in built.margins.items()))


def show_scale_warnings(warnings: Sequence[str], again: tuple[str, list[str]] | None, location: str) -> None:
    """Show the warnings about the scales of teachers, and the command that averages their z-scores instead.

    Args:
        warnings: sentences.
        again: the command, and options that have to be chosen again; see `zscore_command`.
        location: of the workspace.
    """
    for warning in warnings:
        console.print(f"WARNING: {warning}", style="bold red", soft_wrap=True, highlight=False, markup=False)
    if warnings and again is not None:
        command, left_out = again
        console.print("to average the teachers in units of their spreads (z-scores), run:", style="bold red")
        command = command.replace("WORKSPACE", shlex.quote(location))
        console.print(f"  {command}", soft_wrap=True, highlight=False, markup=False)
        if left_out:
            console.print(f"  with {', '.join(left_out)} chosen again: bounds are then in standard deviations")


def show_thresholds(explored: Explored) -> None:
    """Show one row per threshold, and the warning."""
    table = Table(title=f"thresholds on the margin of {', '.join(explored.teachers)}", title_justify="left")
    for name in ("threshold", "triples", "", "queries", "", "relevant taken as negative", ""):
        table.add_column(name, justify="right")
    for row in explored.rows:
        shares = (
            row.triples / explored.candidates,
            row.queries / explored.queries,
            row.held_out / max(explored.held_out, 1),
        )
        shown = [f"{share:.1%}" for share in shares]
        lost = [f"{row.held_out:,}", shown[2]] if explored.held_out else ["?", ""]
        table.add_row(f"{row.threshold:g}", f"{row.triples:,}", shown[0], f"{row.queries:,}", shown[1], *lost)
    console.print(table)
    if not explored.held_out:
        console.print("no query has two judged relevant passages: false negatives cannot be estimated", style="yellow")
    if explored.warning:
        console.print(explored.warning, style="yellow")


def show_evaluation(split: str, rows: Sequence[Evaluated]) -> None:
    """Show one row per system."""
    table = Table(title=f"{split}: {rows[0].queries:,} judged queries", title_justify="left")
    table.add_column("system")
    table.add_column("kind")
    for name in rows[0].means:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(row.system, row.kind, *(f"{value:.3f}" for value in row.means.values()))
    console.print(table)
    for row in rows:
        if row.missing_queries:
            console.print(
                f"{row.system} has no list for {row.missing_queries:,} judged queries; they count with 0",
                style="yellow",
            )
    if any(row.identical_ids for row in rows):
        dropped = ", ".join(f"{row.system} {row.identical_ids or 0:,}" for row in rows)
        console.print(f"passages left out because they have their query's id, as in BEIR: {dropped}")


def show_answers(searched: Searched) -> None:
    """Show a table of passages for each query, then the time."""
    for answer in searched.answers:
        table = Table(title=Text(answer.query), title_justify="left", box=None)
        table.add_column("rank", justify="right")
        table.add_column(searched.score, justify="right", no_wrap=True)
        table.add_column("passage", no_wrap=True)
        table.add_column("text")
        for hit in answer.hits:
            shown = shorten(hit.text, SNIPPET, placeholder=" …")
            table.add_row(f"{hit.rank}", f"{hit.score:.4f}", Text(hit.passage), Text(shown))
        console.print(table)
        if not answer.hits:
            console.print("no passage contains a word of the query", style="yellow")
    stages = ", ".join(f"{name} {seconds:.3f} s" for name, seconds in searched.seconds.items())
    many = f" for {len(searched.answers):,} queries" if len(searched.answers) > 1 else ""
    console.print(
        f"{sum(searched.seconds.values()):.3f} s{many} ({stages}), after {searched.loading_seconds:.1f} s of loading"
    )


def show_estimates(estimates: Sequence[Estimate]) -> None:
    """Show what scoring would take, one row per teacher."""
    table = Table(title="left to score (nothing is written)", title_justify="left")
    table.add_column("teacher")
    for name in ("pairs", "reused", "shards", "tokens", "PFLOP", "devices", "hours", "GB written"):
        table.add_column(name, justify="right")
    for row in estimates:
        table.add_row(
            row.teacher,
            *(f"{count:,}" for count in (row.pairs, row.reused_pairs, row.shards)),
            f"{row.tokens:,.0f}",
            f"{row.flop / 1e15:,.3g}",
            f"{row.devices}",
            f"{row.hours:,.3g}",
            f"{row.written_bytes / 1e9:,.3g}",
        )
    console.print(table)


def show_plan(plan: Plan) -> None:
    """Show the work of each teacher, then time, cost and storage of all."""
    table = Table(show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for name, pflop in plan.pflop.items():
        table.add_row(f"{name}: PFLOP", f"{pflop:,.0f}")
    table.add_row("hours", f"{plan.hours:,.2f}")
    table.add_row("device hours", f"{plan.device_hours:,.1f}")
    table.add_row("cost", f"{plan.cost:,.2f}")
    table.add_row("GB of scores", f"{plan.score_gb:,.2f}")
    console.print(table)


def show_status(stages: Sequence[Stage]) -> None:
    """Show one row per stage."""
    console.print(_stages(stages))


def watch_status(read: Callable[[], Sequence[Stage]], seconds: float) -> None:
    """Show the stages again every `seconds`, until Ctrl-C; a terminal updates the table in place."""
    with suppress(KeyboardInterrupt), Live(console=console, auto_refresh=False) as live:
        while True:
            if console.is_terminal:
                live.update(_stages(read()), refresh=True)
            else:
                show_status(read())
            time.sleep(seconds)


def _stages(stages: Sequence[Stage]) -> Table:
    table = Table(show_header=False)
    for stage in stages:
        table.add_row(stage.name, f"[{_STYLES[stage.state]}]{stage.state}[/]", stage.detail)
    return table
