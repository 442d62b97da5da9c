"""The stage `verify`: reads the whole workspace again and recomputes a sample of every teacher's scores.

The sample is scored by the library that the model belongs to, one pair at a time (`jobs.checks.oracle`), not by the
engine.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np

from jobs.checks.oracle import cross_encoder_scores, separate_scores
from jobs.checks.status import workspace_status
from jobs.models.checkpoints import local_checkpoint
from jobs.scoring.shard import pairs_with_texts
from jobs.scoring.teachers import SEPARATELY
from pipeline.checks.soundness import Problem, data_problems
from pipeline.collection.texts import Texts
from pipeline.errors import PrepError, WorkspaceError
from pipeline.scores.pairs import PairSet, load_pairs
from pipeline.scores.scores import load_scores, read_pair_ids, read_scores
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace
from pipeline.triples.audit import audit_set
from pipeline.triples.sets import STAGES
from students.identity import apart_fingerprint
from teachers.checkpoints.checkpoint import resolve

TABLES = ("passages", "queries", "qrels")
NEAR = {"float32": 1e-3, "bfloat16": 0.1, "float16": 0.05, "int8": 0.3}
"""Largest difference of a score, as a share of the sample's standard deviation; in a lower precision than float32 as a
share of 1 where the deviation is less."""
ROUNDING = 1e-5
"""Largest difference of a float32 score, as a share of the sample's largest score, where that is more."""


@dataclass
class Verified:
    """What a verification found."""

    problems: list[Problem] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    """What could not be checked, and why."""
    files: int = 0
    rescored: int = 0


def verify(
    workspace: Workspace, *, sample: int, seed: int = 0, on_file: Callable[[AnyPath], None] = lambda path: None
) -> Verified:
    """Check everything; `sample` pairs of each teacher are scored again."""
    found = Verified()

    def count(path: AnyPath) -> None:
        found.files += 1
        on_file(path)

    found.problems += data_problems(workspace, count)
    tables = {workspace.current_path(table) for table in TABLES}
    if any(problem.path.parent in tables for problem in found.problems):
        found.notes.append("only the tables of texts and judgements were read: everything else depends on them")
        return found
    for stage in workspace_status(workspace):
        dataset, _, name = stage.name.partition("/")
        if stage.state == "done" and name and dataset in STAGES and not found.problems:
            found.problems += _audited(workspace, dataset, name)
        if stage.state in ("stale", "incomplete"):
            state = f"{stage.state}: {stage.detail}"
            if stage.name.startswith(("students/", "encoded/")):  # older than its data, but complete
                found.notes.append(f"{stage.name} is {state}")
            else:
                found.problems.append(Problem(workspace.path(*stage.name.split("/")), state))
    if sample and workspace.parts("pairs"):
        for teacher in workspace.names("scores"):
            found.problems += _rescored(workspace, teacher, sample, seed, found)
    return found


def _audited(workspace: Workspace, dataset: str, name: str) -> Iterator[Problem]:
    try:
        audit_set(workspace, dataset, name)
    except WorkspaceError as error:
        yield Problem(workspace.path(dataset, name), error.reason, error.todo or "")


def _rescored(workspace: Workspace, teacher: str, sample: int, seed: int, found: Verified) -> Iterator[Problem]:
    try:
        pairs = load_pairs(workspace)
        scores = load_scores(workspace, pairs, teacher)
    except PrepError:
        return  # reported already
    settings = dict(scores.footers[0].recipe.settings)
    made = [footer.extra for footer in scores.footers if "teacher" in footer.extra]
    if not made:
        found.notes.append(f"scores/{teacher} names no checkpoint; not scored again")
        return
    try:
        checkpoint = resolve(local_checkpoint(made[0]["teacher"]), revision=made[0]["revision"])
        separate = settings.get("reads") == SEPARATELY
        if separate:
            prompts = tuple(settings["prompts"]) if "prompts" in settings else None
            same = apart_fingerprint(checkpoint, settings["dtype"], prompts) == settings["fingerprint"]
        else:
            hashes = (checkpoint.weights_hash, checkpoint.tokenizer_hash)
            same = hashes == (settings["weights_hash"], settings["tokenizer_hash"])
            same = same and checkpoint.definition.template == settings.get("template", "")
    except PrepError as error:
        found.notes.append(f"scores/{teacher} not scored again: {error.where}: {error.what}")
        return
    if not same:
        found.notes.append(f"scores/{teacher} not scored again: {checkpoint.directory} holds another model now")
        return
    places = _places(pairs, sample, np.random.default_rng(seed))
    ids = [np.concatenate(columns) for columns in zip(*(_ids(pairs, *place) for place in places), strict=True)]
    texts = pairs_with_texts((ids[0], ids[1]), Texts(workspace, "queries"), Texts(workspace, "passages"))
    facts = {**made[0], **settings}
    try:
        expected, by, note = (separate_scores if separate else cross_encoder_scores)(checkpoint, texts, facts)
    except PrepError as error:
        found.notes.append(f"scores/{teacher} not scored again: {error.what}; {error.todo or error.found}")
        return
    if note is not None:
        found.notes.append(f"scores/{teacher} {note}")
    allowed, start = _allowed(settings["dtype"], expected), 0
    for number, rows in places:
        off = np.abs(read_scores(scores.paths[number])[rows] - expected[start : start + len(rows)])
        start += len(rows)
        found.rescored += len(rows)
        if off.max() > allowed:
            count = int((off > allowed).sum())
            what = f"{count} of {len(rows)} scores differ from those of {by} by up to {off.max():.3g}"
            yield Problem(scores.paths[number], f"{what} (allowed {allowed:.2g})")


def _allowed(dtype: str, expected: np.ndarray) -> float:
    spread = float(expected.std())
    if dtype == "float32":
        return max(NEAR[dtype] * spread, ROUNDING * float(np.abs(expected).max()))
    return NEAR[dtype] * max(1.0, spread)


def _places(pairs: PairSet, sample: int, rng: np.random.Generator) -> list[tuple[int, np.ndarray]]:
    """Shard numbers and rows of a sample of all pairs."""
    drawn = np.sort(rng.choice(pairs.pairs, min(sample, pairs.pairs), replace=False))
    starts = np.cumsum([0, *(footer.rows for footer in pairs.footers)])
    shards = np.searchsorted(starts, drawn, side="right") - 1
    return [(int(number), drawn[shards == number] - starts[number]) for number in np.unique(shards)]


def _ids(pairs: PairSet, number: int, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    query, passage = read_pair_ids(pairs.paths[number])
    return query[rows], passage[rows]
