"""Commands on scored pairs: build-triples, build-lists, explore-threshold."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from jobs.commands.options import Processes, WorkspaceOption, named_weights, threshold

if TYPE_CHECKING:
    from collections.abc import Callable

    from pipeline.triples.build import Resources
    from pipeline.triples.layouts import Layout
    from pipeline.triples.passes import Runner
    from pipeline.triples.shard import Plan

Teachers = Annotated[
    list[str],
    typer.Option(
        "--teacher",
        help="Teacher in the ensemble. Repeatable. [all that have scored]",
        default_factory=list,
        show_default=False,
    ),
]
Threshold = Annotated[
    str, typer.Option("--threshold", help="Least margin of a negative below its positive, or 'none'.")
]
ThresholdOn = Annotated[
    str, typer.Option(help="Whose margin must reach it: mean (the ensemble's), all, any, or that many teachers.")
]
AnchorOption = Annotated[
    str, typer.Option(help="Measured from the row's own positive, or the query's lowest-scored one: own or min.")
]
RelativeMargin = Annotated[
    float | None,
    typer.Option(help="Least margin as a share of the positive's absolute score.", show_default=False),
]
MinScore = Annotated[float | None, typer.Option(help="Least score of a negative.", show_default=False)]
MaxScore = Annotated[float | None, typer.Option(help="Largest score of a negative.", show_default=False)]
RankFrom = Annotated[
    int | None,
    typer.Option(min=1, help="Least rank of a negative, from 1, where it was ranked best.", show_default=False),
]
RankTo = Annotated[int | None, typer.Option(min=1, help="Largest such rank.", show_default=False)]
MaxMarginStd = Annotated[
    float | None, typer.Option(min=0.0, help="Largest disagreement of the teachers.", show_default=False)
]
PerSystem = Annotated[
    int | None,
    typer.Option(
        min=1, help="From each retriever by rank, at most that many negatives that are new. [all]", show_default=False
    ),
]
StrategyOption = Annotated[str, typer.Option(help="Which negatives fill the limit: top, random or log_random.")]
Collapse = Annotated[
    bool, typer.Option("--collapse-duplicates", help="Keep one passage of a query's side for each normalised text.")
]
EnsembleOption = Annotated[str, typer.Option(help="mean, weighted, or zscore (each teacher by its spread).")]
Weights = Annotated[
    list[str],
    typer.Option(
        "--weight",
        help="TEACHER=NUMBER, with weighted. Repeatable. [fitted on judged queries]",
        default_factory=list,
        show_default=False,
    ),
]
Split = Annotated[str, typer.Option(help="Only queries of this split.")]
RelevanceLevel = Annotated[int, typer.Option(min=1, help="Least grade of a positive.")]
Seed = Annotated[int, typer.Option(help="Seed of the draw and the shuffle.")]
Audit = Annotated[bool, typer.Option(help="Read the result again and check every row.")]
Threads = Annotated[
    int | None, typer.Option(min=1, help="Database threads of each process. [the cores shared out]", show_default=False)
]
MemoryLimit = Annotated[str, typer.Option(help="What each process's database holds before it spills.")]
TempDirectory = Annotated[
    Path | None,
    typer.Option(help="Where rows wait and databases spill. [in the workspace, or on this disk]", show_default=False),
]
Address = Annotated[
    str | None, typer.Option(help="Ray cluster. [$RAY_ADDRESS, which `ray job submit` sets]", show_default=False)
]
NumActors = Annotated[int | None, typer.Option(min=1, help="Work in that many Ray actors.", show_default=False)]


def build_triples(
    workspace: WorkspaceOption,
    teacher: Teachers,
    weight: Weights,
    threshold_text: Threshold = "3",
    name: Annotated[str, typer.Option(help="Name of the triple set.")] = "default",
    threshold_on: ThresholdOn = "mean",
    anchor: AnchorOption = "own",
    relative_margin: RelativeMargin = None,
    min_score: MinScore = None,
    max_score: MaxScore = None,
    rank_from: RankFrom = None,
    rank_to: RankTo = None,
    max_margin_std: MaxMarginStd = None,
    negatives_per_query: Annotated[
        int | None, typer.Option(min=1, help="At most that many negatives of a query. [all]", show_default=False)
    ] = None,
    negatives_per_system: PerSystem = None,
    strategy: StrategyOption = "random",
    pairs: Annotated[
        str, typer.Option(help="judged; or scored: passages of a query without a positive are paired with each other.")
    ] = "judged",
    collapse_duplicates: Collapse = False,
    ensemble: EnsembleOption = "mean",
    split: Split = "train",
    relevance_level: RelevanceLevel = 1,
    seed: Seed = 0,
    audit: Audit = True,
    processes: Processes = None,
    threads: Threads = None,
    memory_limit: MemoryLimit = "4GB",
    temp_directory: TempDirectory = None,
    address: Address = None,
    num_actors: NumActors = None,
) -> None:
    """Combine the teachers, filter by margin and shuffle into triples."""
    from pipeline.triples.layouts import Triples

    _build(locals(), Triples())


def build_lists(
    workspace: WorkspaceOption,
    teacher: Teachers,
    weight: Weights,
    size: Annotated[int, typer.Option(min=2, help="Passages of a list, its positive among them.")] = 32,
    strategy: StrategyOption = "top",
    drop_short: Annotated[bool, typer.Option("--drop-short", help="Leave out lists with fewer passages.")] = False,
    threshold_text: Threshold = "none",
    name: Annotated[str, typer.Option(help="Name of the set.")] = "default",
    threshold_on: ThresholdOn = "mean",
    anchor: AnchorOption = "own",
    relative_margin: RelativeMargin = None,
    min_score: MinScore = None,
    max_score: MaxScore = None,
    rank_from: RankFrom = None,
    rank_to: RankTo = None,
    max_margin_std: MaxMarginStd = None,
    negatives_per_system: PerSystem = None,
    collapse_duplicates: Collapse = False,
    ensemble: EnsembleOption = "mean",
    split: Split = "train",
    relevance_level: RelevanceLevel = 1,
    seed: Seed = 0,
    audit: Audit = True,
    processes: Processes = None,
    threads: Threads = None,
    memory_limit: MemoryLimit = "4GB",
    temp_directory: TempDirectory = None,
    address: Address = None,
    num_actors: NumActors = None,
) -> None:
    """Lists of one positive and its negatives, with the ensemble's scores, for listwise losses."""
    from pipeline.triples.layouts import Lists

    _build(locals(), Lists(size, drop_short))


def explore_threshold(
    workspace: WorkspaceOption,
    teacher: Teachers,
    weight: Weights,
    first: Annotated[float, typer.Option("--from", help="Lowest threshold.")] = 0.0,
    last: Annotated[float, typer.Option("--to", help="Highest threshold.")] = 10.0,
    step: Annotated[float, typer.Option(help="Distance between two.")] = 0.5,
    csv: Annotated[Path | None, typer.Option(help="Also write the table here.", show_default=False)] = None,
    plot: Annotated[Path | None, typer.Option(help="Also draw it, as .png, .svg or .pdf.", show_default=False)] = None,
    ensemble: EnsembleOption = "mean",
    split: Split = "train",
    relevance_level: RelevanceLevel = 1,
    threads: Threads = None,
    memory_limit: MemoryLimit = "4GB",
    temp_directory: TempDirectory = None,
) -> None:
    """What each threshold would keep, and how many relevant passages it would take as negatives."""
    options = _settings(locals())
    from jobs.commands.show import show_thresholds
    from jobs.commands.summary import run_summary
    from jobs.commands.threshold_files import check_plot, draw, grid, write_csv
    from jobs.terminal.progress import progress
    from pipeline.storage.workspace import Workspace
    from pipeline.triples.thresholds import explore_thresholds

    ws, resources = Workspace.open(workspace), _resources(None, threads, memory_limit, temp_directory)
    thresholds = grid(first, last, step)
    check_plot(plot)
    with run_summary(ws, "explore-threshold") as facts, progress("thresholds", "shards") as meter:
        found = explore_thresholds(
            ws, options, thresholds, teachers=teacher, resources=resources, on_progress=meter.set
        )
        facts |= {**vars(found), "rows": [row._asdict() for row in found.rows], "warning": found.warning}
        if csv is not None:
            write_csv(found, csv)
        if plot is not None:
            draw(found, plot)
    show_thresholds(found)


def _build(given: dict[str, Any], layout: Layout) -> None:
    """Build a set in that layout from a command's arguments, read it again, and tell what came of it."""
    options = _settings(given)
    from jobs.commands.show import show_funnel
    from jobs.commands.summary import run_summary
    from jobs.terminal.console import console
    from jobs.terminal.progress import progress
    from pipeline.storage.workspace import Workspace
    from pipeline.triples.audit import audit_set
    from pipeline.triples.build import build_triples

    workspace, name = Workspace.open(given["workspace"]), given["name"]
    resources = _resources(*(given[key] for key in ("processes", "threads", "memory_limit", "temp_directory")))
    runner = _runner(given["address"], given["num_actors"], resources)
    stage = f"build-{layout.dataset}"
    with run_summary(workspace, stage) as facts, progress(layout.dataset, "shards") as meter:
        built = build_triples(
            workspace,
            options,
            name=name,
            teachers=given["teacher"],
            layout=layout,
            resources=resources,
            runner=runner,
            on_progress=meter.set,
        )
        facts |= built.as_dict()
        if given["audit"] and not built.unchanged:
            facts["audited"] = audit_set(workspace, layout.dataset, name, resources)
    show_funnel(built)
    if layout.dataset == "lists":
        console.print(f"{built.rows:,} lists of at most {given['size']} passages")
    if built.unchanged:
        console.print("already up to date")
    elif given["audit"]:
        console.print(f"read again: all {facts['audited']:,} rows are as asked")


def _settings(given: dict[str, Any]) -> Any:
    """The settings among a command's arguments."""
    from pipeline.triples.settings import TripleSettings

    named = {name: given[name] for name in TripleSettings.__dataclass_fields__ if name in given}
    if "threshold_text" in given:
        named["threshold"] = threshold(given["threshold_text"])
    named["weights"] = named_weights(given["weight"])
    return TripleSettings(**named)


def _resources(processes: int | None, threads: int | None, memory_limit: str, temp_directory: Path | None) -> Resources:
    from pipeline.tables.database import memory_bytes
    from pipeline.triples.build import Resources

    memory_bytes(memory_limit)  # a malformed one ends here
    return Resources(processes, threads, memory_limit, temp_directory)


def _runner(address: str | None, num_actors: int | None, resources: Resources) -> Callable[[Plan], Runner] | None:
    """Ray's runner where it is asked for."""
    from jobs.cluster.settings import ClusterSettings
    from jobs.cluster.triples import actor_runner

    cluster = ClusterSettings(address, num_actors, float(resources.threads or 1), 0.0)
    return cast(Any, actor_runner(cluster)) if cluster.uses_ray else None
