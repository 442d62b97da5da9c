"""The command `train`: its options are those of a training run, and the keys of a recipe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, get_type_hints

import typer

from jobs.commands.options import SummaryOption, WorkspaceOption

# Options whose names on the command line are shorter than those of the settings.
_STUDENT = {
    "max_query_length": "max_query_tokens",
    "max_passage_length": "max_passage_tokens",
    "max_length": "max_length_tokens",
}


def train(
    context: typer.Context,
    workspace: WorkspaceOption,
    name: Annotated[str, typer.Option(help="Name of the student.")],
    recipe: Annotated[
        str | None,
        typer.Option(
            help="Settings of a published model, by name (jobs/commands/recipes.toml) or in a .toml file of your own; "
            "options given here win.",
            show_default=False,
        ),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(
            help="Start from: a Hub name, a directory, a student of the workspace; for tk also a file of word vectors.",
            show_default=False,
        ),
    ] = None,
    architecture: Annotated[str, typer.Option(help="bert_dot, bert_cat, colbert, prettr, tk or sparse.")] = "bert_dot",
    loss: Annotated[
        str,
        typer.Option(
            help="margin_mse, pointwise_mse, weighted_ranknet, kl (from teachers), ranknet, bce, mnrl, "
            "in_batch_margin_mse, in_batch_kl; sums with factors: margin_mse+0.2*mnrl."
        ),
    ] = "margin_mse",
    triples: Annotated[
        str | None,
        typer.Option(help="Triple set to learn from. [default, for losses from teachers]", show_default=False),
    ] = None,
    lists: Annotated[
        str | None, typer.Option(help="Set of lists of several passages to learn from.", show_default=False)
    ] = None,
    list_size: Annotated[int, typer.Option(min=2, help="Passages of each list.")] = 8,
    targets: Annotated[
        str | None,
        typer.Option(help="qrels: learn from judgements and retrieved negatives.", show_default=False),
    ] = None,
    split: Annotated[str, typer.Option(help="Queries to learn from, with --targets qrels.")] = "train",
    negatives: Annotated[int, typer.Option(min=1, help="Negatives of a positive, with --targets qrels.")] = 1,
    random_negatives: Annotated[
        int, typer.Option(min=0, help="Negatives more, retrieved for other queries: a fresh encoder learns faster.")
    ] = 0,
    one_per_query: Annotated[
        bool,
        typer.Option(
            "--one-per-query", help="One triple of each query an epoch: its next positive, with the next negative."
        ),
    ] = False,
    agreement: Annotated[
        float | None,
        typer.Option(
            help="Deviation of the teachers' margins at which a triple counts half. [all alike]", show_default=False
        ),
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Queries of one step, over all workers.")] = 32,
    micro_batch_size: Annotated[
        int | None,
        typer.Option(min=1, help="Queries that run at once; the batch stays the same. [all]", show_default=False),
    ] = None,
    epochs: Annotated[float, typer.Option(help="Passes over the rows.")] = 1.0,
    max_steps: Annotated[
        int | None,
        typer.Option(min=0, help="Stop after that many steps; 0 gives the untrained start.", show_default=False),
    ] = None,
    learning_rate: Annotated[float, typer.Option(help="Highest learning rate.")] = 2e-5,
    head_learning_rate: Annotated[
        float | None,
        typer.Option(help="Of what is new above the encoder: several times higher saves steps.", show_default=False),
    ] = None,
    embedding_learning_rate: Annotated[
        float | None, typer.Option(help="Of the table of word embeddings.", show_default=False)
    ] = None,
    freeze_layers: Annotated[
        int | None,
        typer.Option(min=0, help="Keep the embeddings and that many first layers as they are.", show_default=False),
    ] = None,
    warmup_share: Annotated[float, typer.Option(min=0.0, max=1.0, help="Share of the steps in which it rises.")] = 0.1,
    warmup_steps: Annotated[
        int | None, typer.Option(min=0, help="Steps in which it rises, instead of a share.", show_default=False)
    ] = None,
    schedule: Annotated[str, typer.Option(help="How it falls after that: linear, cosine or constant.")] = "linear",
    weight_decay: Annotated[float, typer.Option(min=0.0, help="AdamW's weight decay.")] = 0.01,
    max_gradient_norm: Annotated[float, typer.Option(help="Longer gradients are cut.")] = 1.0,
    precision: Annotated[str, typer.Option(help="float32, bfloat16 or float16 (autocast).")] = "float32",
    in_batch_teacher: Annotated[
        str | None,
        typer.Option(
            help="A trained student that reads query and passage apart, of the workspace, a directory or a Hub name, "
            "for in_batch_margin_mse and in_batch_kl.",
            show_default=False,
        ),
    ] = None,
    temperature: Annotated[float, typer.Option(help="What kl and in_batch_kl divide scores by.")] = 1.0,
    mnrl_scale: Annotated[float, typer.Option(help="What mnrl multiplies scores with, besides --scale.")] = 1.0,
    flops_query: Annotated[float, typer.Option(min=0.0, help="Weight of the queries' FLOPS, for sparse.")] = 0.0,
    flops_passage: Annotated[float, typer.Option(min=0.0, help="Weight of the passages' FLOPS, for sparse.")] = 0.0,
    max_query_length: Annotated[int, typer.Option(help="Longest query in tokens.")] = 30,
    max_passage_length: Annotated[int, typer.Option(help="Longest passage in tokens.")] = 200,
    max_length: Annotated[int, typer.Option(help="Longest pair in tokens, for bert_cat.")] = 230,
    num_layers: Annotated[
        int | None, typer.Option(min=1, help="Keep the first layers only. [all]", show_default=False)
    ] = None,
    shared_groups: Annotated[
        int | None,
        typer.Option(
            min=1,
            help="bert_cat: layers share weights as ALBERT's do, in that many groups of neighbours. [none shares]",
            show_default=False,
        ),
    ] = None,
    pooling: Annotated[
        str | None,
        typer.Option(help="cls or mean, for bert_dot. [the checkpoint's own, else cls]", show_default=False),
    ] = None,
    normalize: Annotated[
        bool | None,
        typer.Option(
            help="Vectors of unit length, for bert_dot and colbert. [the checkpoint's own, else no]", show_default=False
        ),
    ] = None,
    scale: Annotated[float, typer.Option(help="Factor of the cosine in training, for unit vectors.")] = 20.0,
    projection_width: Annotated[
        int | None,
        typer.Option(min=1, help="colbert: values of a token. [the encoder's width]", show_default=False),
    ] = None,
    query_marker: Annotated[str, typer.Option(help="colbert: text before queries, like [Q].")] = "",
    passage_marker: Annotated[str, typer.Option(help="colbert: text before passages, like [D].")] = "",
    expand_queries: Annotated[
        bool, typer.Option("--expand-queries", help="colbert: fill queries up with mask tokens.")
    ] = False,
    query_masks: Annotated[int, typer.Option(min=0, help="colbert: mask tokens after each query.")] = 0,
    split_layer: Annotated[int, typer.Option(min=1, help="prettr: layers that read query and passage apart.")] = 3,
    tk_layers: Annotated[int, typer.Option(min=1, help="tk: transformer layers.")] = 2,
    tk_heads: Annotated[int, typer.Option(min=1, help="tk: attention heads, at most.")] = 10,
    tk_inner: Annotated[int, typer.Option(min=1, help="tk: width of the feed-forward part.")] = 300,
    eval_steps: Annotated[
        int | None,
        typer.Option(
            min=1, help="Steps between validations (nDCG@10, re-ranking); the best state is kept.", show_default=False
        ),
    ] = None,
    patience: Annotated[
        int | None, typer.Option(min=1, help="Validations without a gain that end training.", show_default=False)
    ] = None,
    min_steps: Annotated[int, typer.Option(min=0, help="Steps before which it does not end so.")] = 0,
    eval_split: Annotated[str, typer.Option(help="Queries to validate on.")] = "dev",
    eval_queries: Annotated[int, typer.Option(min=1, help="A stable sample of that many.")] = 100,
    eval_candidates: Annotated[str, typer.Option(help="Retriever whose lists are re-ranked for it.")] = "bm25",
    eval_depth: Annotated[int, typer.Option(min=1, help="Passages of each list that are.")] = 50,
    seed: Annotated[int, typer.Option(help="Seed of new weights, dropout and the order of rows.")] = 0,
    save_steps: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    num_workers: Annotated[
        int | None,
        typer.Option(min=1, help="Train in that many Ray workers. [in this process]", show_default=False),
    ] = None,
    address: Annotated[
        str | None,
        typer.Option(
            help="Ray cluster to train on. [with --num-workers: $RAY_ADDRESS, else one of its own]", show_default=False
        ),
    ] = None,
    cpus_per_worker: Annotated[float, typer.Option(min=0.1, help="CPUs of a worker.")] = 1.0,
    overwrite: Annotated[bool, typer.Option(help="Replace a student trained otherwise.")] = False,
    summary: SummaryOption = None,
) -> None:
    """Train a student from triples, or a teacher from judgements; goes on where it was cut short."""
    from jobs.cluster.settings import TrainCluster
    from jobs.commands.recipes import load_recipe, resolve_options
    from jobs.commands.summary import run_summary
    from jobs.terminal.console import console
    from jobs.terminal.progress import progress
    from jobs.training.stage import train_student
    from pipeline.storage.workspace import Workspace

    chosen = load_recipe(recipe) if recipe else {}
    options = resolve_options(context, get_type_hints(train), chosen)
    settings = settings_of(options)
    if recipe:
        shown = ", ".join(f"{key} {options[key]}" for key in chosen)
        console.print(f"recipe {recipe}: {shown}", highlight=False, markup=False)
    ws = Workspace.open(workspace)
    workers = TrainCluster(num_workers or 1, address, cpus_per_worker) if num_workers or address else None
    with (
        run_summary(ws, "train", summary) as facts,
        progress("tokenise", "texts") as tokens,
        progress(f"train {name}", "steps") as meter,
    ):

        def on_step(step: int, steps: int, loss_value: float | None) -> None:
            if loss_value is not None:
                meter.label = f"train {name}, loss {loss_value:.3f}"
            meter.set(step, steps)

        trained = train_student(
            ws, name, settings, overwrite=overwrite, workers=workers, on_step=on_step, on_tokens=tokens.set
        )
        facts |= {key: value for key, value in vars(trained).items() if key != "directory"}
    if trained.unchanged:
        console.print(f"students/{name} is trained already; nothing to do")
        return
    said = [f"{trained.steps:,} steps over {trained.rows:,} rows"]
    if trained.last_loss is not None:
        said.append(f"last loss {trained.last_loss:.4g}")
    if trained.kept_step is not None:
        best = dict(trained.validations)[trained.kept_step]
        said.append(f"kept step {trained.kept_step:,} with nDCG@10 {best:.3f}")
    if trained.steps_per_second is not None and trained.data_share is not None:
        said.append(f"{trained.steps_per_second:.3g} steps a second, {trained.data_share:.1%} waiting for data")
    if trained.resumed_at:
        said.append(f"went on from step {trained.resumed_at:,}")
    console.print(f"students/{name}: " + ", ".join(said))


def settings_of(options: Mapping[str, Any]) -> Any:
    """The run's settings from options by name.

    Raises:
        UsageError: options missing, out of range, or that do not fit together.
    """
    from pipeline.errors import UsageError
    from students.settings import NEEDS_TEACHER, StudentSettings, TrainSettings, parse_loss

    given = dict(options)
    targets = given.pop("targets")
    if targets not in (None, "qrels"):
        raise UsageError("unknown --targets", expected="qrels", found=targets)
    if targets and (given["triples"] or given["lists"]):
        raise UsageError("--targets excludes --triples and --lists")
    if given["init"] is None:
        raise UsageError("no start", todo="name a checkpoint: --init, or a recipe that has one: --recipe")
    needy = any(term.name in NEEDS_TEACHER for term in parse_loss(given["loss"]))
    if given["triples"] is None and given["lists"] is None and targets is None and needy:
        given["triples"] = "default"
    given = {_STUDENT.get(key, key): value for key, value in given.items()}
    own = {key: given.pop(key) for key in StudentSettings.__dataclass_fields__}
    return TrainSettings(**given, student=StudentSettings(**own))
