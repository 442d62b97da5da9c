"""Published candidate lists into `retrieved/<system>/imported-NNNNN.parquet`.

Everything is checked before anything is published; then one system after the other is put in its place.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.errors import InputError, WorkspaceError
from pipeline.fingerprint import digest_file, digest_json
from pipeline.imports.intake import Counts, Intake, Rows, existing, query_ranges
from pipeline.imports.list_parts import ListWriter
from pipeline.imports.positives import settle_positives
from pipeline.names import check_name, refuse_case_twins
from pipeline.storage.workspace import Workspace, replace_directory
from pipeline.tables.database import connect
from pipeline.tables.parts import content_fingerprint, footer_of, read_footers

SMALL_MEMORY = "128MB"
Reader = Callable[[dict[str, int]], Iterator[Rows]]
"""Yields rows, and numbers the systems in the dict it is given as it meets them."""


@dataclass(frozen=True)
class ImportedLists:
    """What came in."""

    systems: dict[str, int]
    """Rows of each system."""
    counts: Counts
    judgements: int
    """Positives added to the judgements."""
    unchanged: bool


@dataclass(frozen=True)
class ListOptions:
    """How a file's lists are taken."""

    prefix: str = ""
    """Put before each system's name."""
    add_positives: bool = False
    """Whether the file's positives become judgements of grade 1."""
    strict: bool = False
    """Whether ids that the workspace does not know are an error."""
    overwrite: bool = False
    """Whether lists of the same name but other origin are replaced."""
    reconciled: bool = False
    """Whether scores of a pair that contradict each other give their mean; otherwise the highest counts."""

    def __post_init__(self) -> None:
        if self.prefix:
            check_name("prefix", self.prefix)


@dataclass(frozen=True)
class Source:
    """Where rows come from."""

    where: Path
    """For messages."""
    content: str
    """Fingerprint of all that decides the rows."""
    read: Reader
    unit: str = "line"
    """What `Rows.line` counts."""
    by_text: bool = False
    """Whether rows name texts, not ids."""


def file_source(path: Path, kind: str, read: Callable[[Path, dict[str, int]], Iterator[Rows]], **more: Any) -> Source:
    """A file of some kind, with what else decides its rows; JSON values.

    Raises:
        InputError: no such file.
    """
    return Source(path, digest_json([kind, digest_file(existing(path)), more]), lambda systems: read(path, systems))


def one_list(path: Path, kind: str, system: str, read: Callable[[Path], Iterator[Rows]]) -> Source:
    """A file that holds the lists of one system, which it does not name.

    Raises:
        InputError: no such file.
    """
    check_name("system", system)

    def named(path: Path, systems: dict[str, int]) -> Iterator[Rows]:
        systems[system] = 0
        return read(path)

    return file_source(path, kind, named, system=system)


def import_lists(workspace: Workspace, source: Source, options: ListOptions) -> ImportedLists:
    """Import all lists of a source.

    Raises:
        InputError: the reader's; an id unknown or scores that contradict each other, and `strict`; nothing of the
            file fits the workspace.
        WorkspaceError: nothing imported yet, lists of another origin are there or some whose name differs in case only,
            an import is running.
    """
    with workspace.exclusive("import"), workspace.staging("import") as staging:
        inputs = {"source": source.content}
        for table in ("passages", "queries"):
            # Not under the table's own name: lists that were imported do not become stale when it grows.
            inputs[f"known {table}"] = content_fingerprint(read_footers(workspace.parts(table)))
        origin = digest_json([inputs, options.prefix, options.reconciled, options.add_positives])
        done = _done(workspace, origin)
        # Who is strict wants to know what is in the file.
        if done is not None and not options.strict:
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
    """Where the intake is strict, scores must agree.

    Raises:
        InputError: they do not.
    """
    if intake.strict and intake.counts.contradictions:
        raise InputError(
            f"{intake.counts.contradictions:,} pairs have scores that contradict each other",
            where=intake.path,
            found=f"differences up to {intake.counts.largest_difference:g}",
            todo="leave out --strict to take their mean",
        )


def _done(workspace: Workspace, origin: str) -> dict[str, int] | None:
    """Rows by system of an earlier import of the same, if all of it is there."""
    found: dict[str, int] = {}
    wanted: set[str] = set()
    for system in workspace.names("retrieved"):
        footers = read_footers(workspace.parts("retrieved", system))
        if footers and footers[0].recipe.settings.get("origin") == origin:
            found[system] = sum(footer.rows for footer in footers)
            wanted |= set(footers[0].extra["systems"])
    return found if found and wanted == found.keys() else None


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
