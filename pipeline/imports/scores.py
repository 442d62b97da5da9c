"""Imports published teacher scores as `scores/<teacher>`, with their rows in the order of the pair shards.

The scores must cover the pairs of the workspace: a pair without a score is an error. With `as_pairs` the file itself
defines the pairs: its scores are imported as the list `retrieved/<teacher>` first, and the pairs are built from that
list alone.

Shapes: N pairs.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.errors import InputError, WorkspaceError
from pipeline.evaluation.runs import external_ids
from pipeline.fingerprint import digest_file, digest_files, digest_json
from pipeline.imports.intake import CandidateBatch, Counts, Intake, existing, reconcile
from pipeline.imports.lists import SMALL_MEMORY, CandidateSource, import_lists, refuse_contradictions
from pipeline.imports.score_files import FORMS, form_of
from pipeline.imports.score_tables import has_positives
from pipeline.imports.settings import ListOptions, ScoreOptions
from pipeline.names import check_name
from pipeline.scores.pairs import PairSet, build_pairs, current_pairs
from pipeline.scores.scores import missing_shards, read_pair_ids, write_scores
from pipeline.storage.workspace import Workspace, replace_directory
from pipeline.tables.database import connect, sql, view_parquet


@dataclass(frozen=True)
class ImportedScores:
    """What an import added."""

    pairs: int
    """Pairs of the workspace, each with a score."""
    form: str
    """Format of the file, or `hub`."""
    counts: Counts
    judgements: int
    """Positives added to the judgements."""
    unused: int
    """Scores of pairs that the workspace does not have."""
    unchanged: bool
    """Whether the workspace had all of it already."""


def import_scores(workspace: Workspace, path: Path, teacher: str, options: ScoreOptions) -> ImportedScores:
    """Import a file of scores as a teacher.

    Raises:
        InputError: a malformed file; pairs of the workspace without a score; with `strict`, also an unknown id, or
            different scores of the same pair.
        WorkspaceError: no pairs and not `as_pairs`; the workspace has scores from another source under the same name.
    """
    check_name("teacher", teacher)
    form = options.form or form_of(path)
    content = digest_files(path.rglob("*.parquet"), path) if path.is_dir() else digest_file(existing(path))
    # The positives of tables were not read before they had an identity of their own.
    marks = ["positives"] if form == "parquet" and has_positives(path) else []
    read, unit = FORMS[form]

    def rows(systems: dict[str, int]) -> Iterator[CandidateBatch]:
        systems[teacher] = 0
        return read(path)

    return import_score_source(
        workspace, CandidateSource(path, digest_json([form, content, *marks]), rows, unit), teacher, form, options
    )


def import_score_source(
    workspace: Workspace, source: CandidateSource, teacher: str, form: str, options: ScoreOptions
) -> ImportedScores:
    """As `import_scores`, from any source of candidates; `form` is recorded as the format."""
    check_name("teacher", teacher)
    described = {
        "fingerprint": digest_json(["published scores", source.content]),
        "imported_from": source.where.name,
        "form": form,
    }
    imported = None
    if options.as_pairs:
        if not options.add_positives and not workspace.parts("qrels"):
            todo = "import qrels first, or pass --add-positives where the file names them"
            raise WorkspaceError("no judgements yet, so no pair would be relevant", where=workspace.root, todo=todo)
        lists = ListOptions("", options.add_positives, options.strict, options.overwrite, reconciled=True)
        imported = import_lists(workspace, replace(source, content=digest_json([source.content, teacher])), lists)
        build_pairs(workspace, options.pairs_per_shard, only=teacher, memory_limit=SMALL_MEMORY)
    with workspace.exclusive("import"):
        pairs = current_pairs(workspace)
        if not missing_shards(workspace, pairs, teacher, described, overwrite=options.overwrite):
            if imported is None:
                return ImportedScores(pairs.pairs, form, Counts(), 0, 0, unchanged=True)
            return ImportedScores(pairs.pairs, form, imported.counts, imported.judgements, 0, imported.unchanged)
        with workspace.staging("import") as staging:
            if imported:
                _copy(workspace, Workspace(staging), pairs, teacher, described)
                counts, unused = imported.counts, 0
            else:
                counts, unused = _align(workspace, staging, source, pairs, teacher, described, options)
            replace_directory(staging / "scores" / teacher, workspace.path("scores", teacher))
    return ImportedScores(pairs.pairs, form, counts, imported.judgements if imported else 0, unused, unchanged=False)


def _copy(workspace: Workspace, staged: Workspace, pairs: PairSet, teacher: str, described: Mapping[str, Any]) -> None:
    """Stage the scores of pairs that were built from the list of the teacher itself."""
    with connect(staged.local / "spill", memory_limit=SMALL_MEMORY) as connection:
        view_parquet(connection, "listed", workspace.parts("retrieved", teacher))
        for number, (path, footer) in enumerate(zip(pairs.paths, pairs.footers, strict=True)):
            bounds = {"first": footer.extra["first_query"], "last": footer.extra["last_query"]}
            listed = connection.execute(sql("imports/listed_scores"), bounds).fetchnumpy()
            ids = read_pair_ids(path)
            if not all(
                np.array_equal(listed[name], column)
                for name, column in zip(("query_id", "passage_id"), ids, strict=True)
            ):
                raise WorkspaceError("the pairs are not those of the list", where=path, todo="run: prep build-pairs")
            write_scores(staged, teacher, number, footer, ids, np.asarray(listed["score"]), described, {})


def _align(
    workspace: Workspace,
    staging: Path,
    source: CandidateSource,
    pairs: PairSet,
    teacher: str,
    described: Mapping[str, Any],
    options: ScoreOptions,
) -> tuple[Counts, int]:
    """Stage the scores of the workspace's pairs. Returns the counts, and how many scores have no pair."""
    edges = np.array([0, *(footer.extra["first_query"] for footer in pairs.footers[1:])], np.int32)
    intake = Intake(workspace, source.where, staging / "rows", edges, options.strict, source.unit, source.by_text)
    intake.take(source.read({}))
    first_missing: list[tuple[int, int]] = []
    missing = unused = 0
    for number, path in enumerate(pairs.paths):
        scored = reconcile(intake.bucket(number, 0), intake.counts)
        ids = read_pair_ids(path)
        wanted, known = _keys(*ids), _keys(scored["query"], scored["passage"])
        rows = np.minimum(np.searchsorted(known, wanted), len(known) - 1)
        has_score = known[rows] == wanted if len(known) else np.zeros(len(wanted), bool)
        first_missing += [(int(ids[0][i]), int(ids[1][i])) for i in np.flatnonzero(~has_score)[:1]]
        missing += int((~has_score).sum())
        unused += len(known) - int(has_score.sum())
        if not missing:
            scores = np.ascontiguousarray(scored["score"][rows])
            write_scores(Workspace(staging), teacher, number, pairs.footers[number], ids, scores, described, {})
    refuse_contradictions(intake)
    if missing:
        raise _incomplete(workspace, source, pairs, first_missing[0], missing)
    return intake.counts, unused


def _keys(query: np.ndarray, passage: np.ndarray) -> np.ndarray:
    """An int64 for each pair (N,); sorts as (query, passage) does."""
    keys: np.ndarray = query.astype(np.int64) << 32 | passage
    return keys


def _incomplete(
    workspace: Workspace, source: CandidateSource, pairs: PairSet, first: tuple[int, int], missing: int
) -> InputError:
    query, passage = (
        external_ids(workspace, table, np.array([number]))[0]
        for table, number in zip(("queries", "passages"), first, strict=True)
    )
    return InputError(
        "some pairs of the workspace have no score in it",
        where=source.where,
        expected=f"scores of {pairs.pairs:,} pairs",
        found=f"{missing:,} without one; the first is query {query}, passage {passage}",
        todo="pass --as-pairs to work on the pairs of this file, or build the pairs from lists that it covers",
    )
