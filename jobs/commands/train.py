"""The command `train`. Its options are the fields of `TrainSettings` and `StudentSettings`, and the keys of recipes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from jobs.cluster.settings import TrainCluster
from jobs.commands.options import Options, StaleSettings, SummaryOption, WorkspaceOption, with_settings
from students.settings import DATA, NEEDS_TEACHER, TrainSettings, parse_loss

if TYPE_CHECKING:
    from jobs.training.stage import TrainedStudent


@with_settings
def train(
    context: typer.Context,
    workspace: WorkspaceOption,
    name: Annotated[str, typer.Option(metavar="NAME", help="Name of the new student in the workspace.")],
    recipe: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Recipe with the settings of a published model: a name of jobs/commands/recipes.toml, or a .toml "
            "file. Options on the command line override it.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option(help="Replace a student of this name that was trained with other settings or data.")
    ] = False,
    summary: SummaryOption = None,
    targets: Annotated[
        str | None,
        typer.Option(
            metavar="qrels",
            help="Train on judgements and retrieved negatives instead of teacher scores; the only value is qrels.",
            rich_help_panel=DATA,
            show_default=False,
        ),
    ] = None,
    *,
    stale: StaleSettings,
    values: Annotated[dict[str, Any], Options(TrainSettings)],
    cluster: TrainCluster,
) -> None:
    """Train a student from triples, or a teacher from judgements. An interrupted run resumes."""
    from jobs.commands.recipes import load_recipe, resolve_options
    from jobs.commands.summary import run_summary
    from jobs.terminal.console import console
    from jobs.terminal.progress import progress
    from jobs.training.stage import train_student
    from pipeline.storage.workspace import Workspace

    options = {"targets": targets, **values}
    if recipe is not None:
        entries = load_recipe(recipe)
        options = resolve_options(context, recipe, entries, options)
        shown = ", ".join(f"{key} {options[key]}" for key in entries)
        console.print(f"recipe {recipe}: {shown}", highlight=False, markup=False)
    settings = train_settings(options)
    ws = Workspace.open(workspace, stale_ok=stale.stale_ok)
    with (
        run_summary(ws, "train", summary) as facts,
        progress("tokenise", "texts") as tokens,
        progress(f"train {name}", "steps") as meter,
    ):

        def on_step(step: int, steps: int, loss_value: float | None) -> None:
            if loss_value is not None:
                meter.label = f"train {name}, loss {loss_value:.3f}"
            meter.set(step, steps)

        workers = cluster if cluster.uses_ray else None
        trained = train_student(
            ws, name, settings, overwrite=overwrite, workers=workers, on_step=on_step, on_tokens=tokens.set
        )
        facts |= {key: value for key, value in vars(trained).items() if key != "directory"}
    console.print(_result(name, trained))


def train_settings(options: Mapping[str, Any]) -> TrainSettings:
    """Settings of a run from options by key, `targets` among them.

    Raises:
        UsageError: an option is missing or out of range, or options do not fit together.
    """
    from pipeline.errors import UsageError
    from pipeline.settings import build_settings

    targets, triples, lists = options["targets"], options["triples"], options["lists"]
    if targets not in (None, "qrels"):
        raise UsageError("unknown --targets", expected="qrels", found=targets)
    if targets and (triples or lists):
        raise UsageError("--targets excludes --triples and --lists", todo="leave one of them out")
    from_scores = any(term.name in NEEDS_TEACHER for term in parse_loss(options["loss"]))
    if triples is None and lists is None and targets is None and from_scores:
        triples = "default"
    return build_settings(TrainSettings, {**options, "triples": triples})


def _result(name: str, trained: TrainedStudent) -> str:
    if trained.unchanged:
        return f"students/{name} is trained already; nothing to do"
    parts = [f"{trained.steps:,} steps over {trained.rows:,} rows"]
    if trained.last_loss is not None:
        parts.append(f"last loss {trained.last_loss:.4g}")
    if trained.kept_step is not None:
        best = dict(trained.validations)[trained.kept_step]
        parts.append(f"kept step {trained.kept_step:,} with nDCG@10 {best:.3f}")
    if trained.steps_per_second is not None and trained.data_share is not None:
        parts.append(f"{trained.steps_per_second:.3g} steps per second, {trained.data_share:.1%} waiting for data")
    if trained.resumed_at:
        parts.append(f"resumed at step {trained.resumed_at:,}")
    return f"students/{name}: {', '.join(parts)}"
