"""Commands on scored pairs: build-triples, build-lists, explore-threshold."""

from __future__ import annotations

import shlex
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.cluster.settings import ClusterSettings
from jobs.commands.options import Options, StaleSettings, WorkspaceOption, with_settings
from pipeline.triples.settings import ENSEMBLE, Resources, TripleSettings

if TYPE_CHECKING:
    from pipeline.storage.workspace import Workspace
    from pipeline.triples.layouts import Layout

TeacherOption = Annotated[
    list[str],
    typer.Option(
        "--teacher",
        metavar="NAME",
        help="Teacher in the ensemble. Repeatable.",
        rich_help_panel=ENSEMBLE,
        default_factory=list,
        show_default="all that have scored",
    ),
]
NameOption = Annotated[str, typer.Option("--name", metavar="NAME", help="Name of the set in the workspace.")]
AuditOption = Annotated[
    bool, typer.Option("--audit/--no-audit", help="Read the finished set again and check every row.")
]
Actors = Annotated[ClusterSettings, Options(only=("address", "num_actors"))]


@with_settings
def build_triples(
    workspace: WorkspaceOption,
    teacher: TeacherOption,
    name: NameOption = "default",
    audit: AuditOption = True,
    *,
    stale: StaleSettings,
    settings: TripleSettings,
    resources: Resources,
    cluster: Actors,
) -> None:
    """Combine the teachers' scores, filter negatives by margin, and write shuffled triples."""
    from pipeline.storage.workspace import Workspace
    from pipeline.triples.layouts import Triples

    _build(
        Triples(),
        Workspace.open(workspace, stale_ok=stale.stale_ok),
        settings,
        teacher,
        name,
        audit,
        resources,
        cluster,
    )


@with_settings
def build_lists(
    workspace: WorkspaceOption,
    teacher: TeacherOption,
    size: Annotated[int, typer.Option(metavar="N", help="Number of passages in a list, the positive among them.")] = 32,
    drop_short: Annotated[
        bool, typer.Option("--drop-short", help="Leave out lists with fewer passages than --size.")
    ] = False,
    name: NameOption = "default",
    audit: AuditOption = True,
    *,
    stale: StaleSettings,
    settings: Annotated[
        TripleSettings,
        Options(without=("negatives_per_query", "pairs"), defaults={"threshold": None, "strategy": "top"}),
    ],
    resources: Resources,
    cluster: Actors,
) -> None:
    """Write lists of a positive and its negatives with the ensemble's scores, for listwise losses."""
    from pipeline.storage.workspace import Workspace
    from pipeline.triples.layouts import Lists

    _build(
        Lists(size, drop_short),
        Workspace.open(workspace, stale_ok=stale.stale_ok),
        settings,
        teacher,
        name,
        audit,
        resources,
        cluster,
    )


@with_settings
def explore_threshold(
    workspace: WorkspaceOption,
    teacher: TeacherOption,
    first: Annotated[float, typer.Option("--from", metavar="X", help="Lowest threshold to try, a raw logit.")] = 0.0,
    last: Annotated[float, typer.Option("--to", metavar="X", help="Highest threshold to try, a raw logit.")] = 10.0,
    step: Annotated[float, typer.Option(metavar="X", help="Distance between two thresholds.")] = 0.5,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Also write the table to this CSV file.", show_default=False)
    ] = None,
    plot: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Also draw the table to this .png, .svg or .pdf file.", show_default=False),
    ] = None,
    *,
    stale: StaleSettings,
    settings: Annotated[TripleSettings, Options(only=("ensemble", "weights", "split", "relevance_level"))],
    resources: Annotated[Resources, Options(without=("processes",))],
) -> None:
    """Show what each threshold would keep, and how many relevant passages it would take as negatives."""
    from jobs.commands.show import show_scale_warnings, show_thresholds
    from jobs.commands.summary import run_summary
    from jobs.commands.threshold_files import check_plot, draw, grid, write_csv
    from jobs.report.sources import command
    from jobs.terminal.progress import progress
    from pipeline.storage.workspace import Workspace
    from pipeline.triples.thresholds import explore_thresholds

    ws = Workspace.open(workspace, stale_ok=stale.stale_ok)
    _check_memory(resources)
    thresholds = grid(first, last, step)
    check_plot(plot)
    with run_summary(ws, "explore-threshold") as facts, progress("thresholds", "shards") as meter:
        explored = explore_thresholds(
            ws, settings, thresholds, teachers=teacher, resources=resources, on_progress=meter.set
        )
        facts |= {**vars(explored), "rows": [row._asdict() for row in explored.rows], "warning": explored.warning}
        if csv is not None:
            write_csv(explored, csv)
        if plot is not None:
            draw(explored, plot)
    show_thresholds(explored)
    words = ["explore-threshold", "--ensemble", "zscore", "--split", settings.split]
    words += [word for name in teacher for word in ("--teacher", name)]
    again = None if settings.ensemble == "zscore" else command(shlex.join(words))
    show_scale_warnings(explored.scale_warnings, (again, []) if again else None, ws.location)


def _build(
    layout: Layout,
    workspace: Workspace,
    settings: TripleSettings,
    teachers: list[str],
    name: str,
    audit: bool,
    resources: Resources,
    cluster: ClusterSettings,
) -> None:
    """Build a set in the layout, check it, and show what it kept."""
    from jobs.commands.show import show_funnel, show_scale_warnings
    from jobs.commands.summary import run_summary
    from jobs.report.sources import zscore_command
    from jobs.terminal.console import console
    from jobs.terminal.progress import progress
    from pipeline.triples.audit import audit_once
    from pipeline.triples.build import build_triples

    _check_memory(resources)
    with run_summary(workspace, f"build-{layout.dataset}") as facts, progress(layout.dataset, "shards") as meter:
        built = build_triples(
            workspace,
            settings,
            name=name,
            teachers=teachers,
            layout=layout,
            resources=resources,
            runner=_runner(cluster, resources),
            on_progress=meter.set,
        )
        facts |= built.as_dict()
        audited = audit_once(workspace, layout.dataset, name, resources) if audit else None
        if audited is not None:
            facts["audited"] = audited
    show_funnel(built)
    if layout.dataset == "lists":
        console.print(f"{built.rows:,} lists of at most {layout.settings['size']} passages")
    if built.unchanged:
        console.print("already up to date")
    if audited is not None:
        console.print(f"read again: all {audited:,} rows are correct")
    made_with = {**asdict(settings), "teachers": built.teachers, "layout": layout.settings}
    again = zscore_command(name, made_with, built.spreads, built.zscore_threshold, layout.dataset)
    show_scale_warnings(built.scale_warnings, again, workspace.location)


def _check_memory(resources: Resources) -> None:
    """Refuse a malformed memory limit before the work."""
    from pipeline.tables.database import memory_bytes

    memory_bytes(resources.memory_limit)


def _runner(cluster: ClusterSettings, resources: Resources) -> Any:
    """What runs the tasks on Ray; None runs them on this machine. Actors need no GPU, and a CPU per database thread."""
    if not cluster.uses_ray:
        return None
    from jobs.cluster.triples import actor_runner

    return actor_runner(replace(cluster, cpus_per_actor=float(resources.threads or 1), gpus_per_actor=0.0))
