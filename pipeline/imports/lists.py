"""Imports published candidate lists as `retrieved/<system>/imported-NNNNN.parquet`.

Everything is checked before anything is published. Then the systems are published one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, WorkspaceError
from pipeline.fingerprint import digest_file, digest_json
from pipeline.imports.intake import CandidateBatch, Counts, Intake, existing, query_ranges
from pipeline.imports.list_parts import ListWriter
from pipeline.imports.positives import settle_positives
from pipeline.imports.settings import ListOptions
from pipeline.names import check_name, refuse_case_twins
from pipeline.storage.workspace import Workspace, replace_directory
from pipeline.tables.database import connect
from pipeline.tables.parts import content_fingerprint, footer_of, read_footers

SMALL_MEMORY = "128MB"
CandidateReader = Callable[[dict[str, int]], Iterator[CandidateBatch]]
"""Reads the rows. Fills the dict that it gets with the number of each system's list."""


@dataclass(frozen=True)
class ImportedLists:
    """What an import added."""

    systems: dict[str, int]
    """System → number of rows."""
    counts: Counts
    judgements: int
    """Positives added to the judgements."""
    unchanged: bool
    """Whether the workspace had all of it already."""


@dataclass(frozen=True)
class CandidateSource:
    """Candidates of a published file or table, not read yet."""

    where: Path
    """File or table, for messages and footers."""
    content: str
    """Fingerprint of everything that decides the rows."""
    read: CandidateReader
    unit: str = "line"
    """What `CandidateBatch.line` counts: line, row or query."""
    by_text: bool = False
    """Whether rows name queries and passages by text instead of by id."""


def file_source(
    path: Path, kind: str, read: Callable[[Path, dict[str, int]], Iterator[CandidateBatch]], **more: Any
) -> CandidateSource:
    """The candidates of a file that names its systems.

    Args:
        path: the file.
        kind: name of the format, for the fingerprint.
        read: reader of the format.
        more: JSON values that decide the rows beside the file, for the fingerprint.

    Raises:
        InputError: no such file.
    """
    return CandidateSource(
        path, digest_json([kind, digest_file(existing(path)), more]), lambda systems: read(path, systems)
    )


def system_source(
    path: Path, kind: str, system: str, read: Callable[[Path], Iterator[CandidateBatch]]
) -> CandidateSource:
    """The candidates of a file that holds the lists of one system, without its name.

    Raises:
        InputError: no such file.
    """
    check_name("system", system)

    def named(path: Path, systems: dict[str, int]) -> Iterator[CandidateBatch]:
        systems[system] = 0
        return read(path)

    return file_source(path, kind, named, system=system)


def import_lists(workspace: Workspace, source: CandidateSource, options: ListOptions) -> ImportedLists:
    """Import the lists of all systems of a source.

    Raises:
        InputError: from the reader; no query or passage of the file is in the workspace; with `strict`, also an
            unknown id, or different scores of the same pair.
        WorkspaceError: the workspace has no collection; it has lists from another source under the same name, or under
            a name that differs in case only; another import is running.
    """
    with workspace.exclusive("import"), workspace.staging("import") as staging:
        inputs = {"source": source.content}
        for table in ("passages", "queries"):
            # Inputs called "passages" would make the lists stale when the collection grows.
            inputs[f"known {table}"] = content_fingerprint(read_footers(workspace.parts(table)))
        origin = digest_json([inputs, options.prefix, options.reconciled, options.add_positives])
        done = _done(workspace, origin)
        # Reading the file again is the only way to report what `strict` refuses.
        judged = bool(workspace.parts("qrels")) or not options.add_positives
        if done is not None and judged and not options.strict:
            return ImportedLists(done, Counts(), 0, unchanged=True)
        systems: dict[str, int] = {}
        intake = Intake(
            workspace,
            source.where,
            staging / "rows",
            query_ranges(workspace),
            options.strict,
            source.unit,
            source.by_text,
        )
        intake.take(source.read(systems))
        names = {number: options.prefix + system for system, number in systems.items()}
        _refuse_others(workspace, list(names.values()), origin, options)
        writer = ListWriter(staging, {"source": source.where.name, "origin": origin}, inputs, options.reconciled)
        with connect(staging / "spill", memory_limit=SMALL_MEMORY) as connection:
            buckets = writer.buckets(intake, names)
            judgements = settle_positives(
                workspace, connection, staging, buckets, intake.counts, add=options.add_positives
            )
        if not any(writer.rows.values()) and not judgements:
            raise _nothing(source.where, intake.counts)
        refuse_contradictions(intake)
        _publish(workspace, staging, list(writer.rows))
        return ImportedLists(writer.rows, intake.counts, judgements, unchanged=False)


def refuse_contradictions(intake: Intake) -> None:
    """Refuse different scores of the same pair, if the intake is strict.

    Raises:
        InputError: there are some.
    """
    if intake.strict and intake.counts.contradictions:
        raise InputError(
            f"{intake.counts.contradictions:,} pairs have scores that contradict each other",
            where=intake.path,
            found=f"differences up to {intake.counts.largest_difference:g}",
            todo="leave out --strict to take their mean",
        )


def _done(workspace: Workspace, origin: str) -> dict[str, int] | None:
    """System → rows of an earlier import of the same source, if all its systems are still there."""
    rows: dict[str, int] = {}
    expected: set[str] = set()
    for system in workspace.names("retrieved"):
        footers = read_footers(workspace.parts("retrieved", system))
        complete = bool(footers) and len(footers) == footers[0].parts
        if complete and footers[0].recipe.settings.get("origin") == origin:
            rows[system] = sum(footer.rows for footer in footers)
            expected |= set(footers[0].extra["systems"])
    return rows if rows and expected == rows.keys() else None


def _refuse_others(workspace: Workspace, names: Sequence[str], origin: str, options: ListOptions) -> None:
    folded: dict[str, str] = {}
    for name in names:
        if folded.setdefault(name.casefold(), name) != name:
            raise InputError("two systems differ in case only", found=f"{name}, {folded[name.casefold()]}")
        check_name("system", name)
        parts = workspace.parts("retrieved", name)
        if parts and footer_of(parts[0]).recipe.settings.get("origin") != origin and not options.overwrite:
            raise WorkspaceError(
                f"there are lists of another origin under {name!r}",
                where=workspace.path("retrieved", name),
                todo="choose a --prefix, or pass --overwrite",
            )
    refuse_case_twins("retriever", [*workspace.names("retrieved"), *names])


def _nothing(path: Path, counts: Counts) -> InputError:
    found = f"{counts.rows:,} rows; {counts.unknown_queries:,} name an unknown query"
    return InputError(
        "nothing in it fits the workspace",
        where=path,
        expected="ids of the workspace's queries and passages",
        found=f"{found}, {counts.unknown_passages:,} an unknown passage",
    )


def _publish(workspace: Workspace, staging: Path, systems: list[str]) -> None:
    qrels = staging / "qrels"
    if qrels.is_dir():
        replace_directory(qrels, workspace.path("qrels"))
    for system in systems:
        replace_directory(staging / "staged" / system, workspace.path("retrieved", system))
