"""Exports triples or n-way lists of a workspace in the format of a trainer, as a directory that `datasets` loads.

The directory is written under a temporary name and renamed, so a directory that exists is complete.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb

from pipeline.errors import UsageError, WorkspaceError
from pipeline.exports.card import Config, Origin, card, is_card
from pipeline.exports.files import name_by_content
from pipeline.exports.formats import FORMATS
from pipeline.exports.rows import Groups, list_groups, triple_batches, triple_groups
from pipeline.exports.settings import ExportSettings
from pipeline.exports.text_lookup import TextLookup, TextTable
from pipeline.storage.location import AnyPath
from pipeline.storage.published_sets import restore, staged_directory
from pipeline.storage.workspace import Workspace
from pipeline.tables.database import connect, sql, view_parquet
from pipeline.tables.parts import footer_of
from pipeline.tables.provenance import Footer
from pipeline.triples.funnel import Funnel
from pipeline.triples.scales import recorded_warnings
from pipeline.triples.sets import usable_set

CARD = "README.md"
_PATTERNS = [re.escape(CARD), *(pattern for form in FORMATS.values() for pattern in form.files)]
_CACHES = re.compile("|".join(pattern for form in FORMATS.values() for pattern in form.caches))
_FILES = re.compile("|".join(_PATTERNS))
_FOLDERS = {pattern.rpartition("/")[0] for pattern in _PATTERNS} - {""}


@dataclass(frozen=True)
class Exported:
    """What an export wrote."""

    directory: Path
    configs: list[Config]
    left_out: int
    """Groups left out because they have too few negatives."""
    left_out_passages: int
    """Passages left out of runs, since they are not in the set with the others of their query."""
    fingerprint: str
    """Digest of all files but the card."""


def export(workspace: Workspace, directory: Path, settings: ExportSettings) -> Exported:
    """Write an export to a directory, which must be missing or empty, or hold an export and `overwrite` be set.

    Raises:
        WorkspaceError: no such triples or lists, or the directory holds something else.
        StaleError: the triples or lists are stale.
        UsageError: all groups have too few negatives.
    """
    directory = directory.expanduser().absolute()
    restore(directory)
    _refuse_foreign(directory, settings.overwrite)
    paths, origin = _load(workspace, settings)
    with staged_directory(directory, replace=True) as staged:
        form = FORMATS[settings.form]
        lookup = TextLookup(
            TextTable(workspace, "queries"), TextTable(workspace, "passages"), settings.ids or form.content == "ids"
        )
        reader = _RowReader(settings)
        with workspace.staging("export") as scratch, connect(scratch, memory_limit="1GB") as connection:
            configs = form.write(reader.read(connection, paths), lookup, staged)
        if not configs[0].rows:
            raise UsageError(
                "nothing to export",
                expected=f"queries with {reader.negatives} negatives",
                found=f"{reader.left_out:,} groups have fewer",
                todo="lower --negatives",
            )
        left_out = {
            "groups with too few negatives": reader.left_out,
            "passages that are not in the set with the others of their query": reader.left_out_passages,
        }
        fingerprint, configs = name_by_content(staged, configs)
        title = f"{settings.form} from {origin.dataset}"
        text = card(title, form.usage, configs, origin, settings.licence, left_out, fingerprint)
        (staged / CARD).write_text(text + _stale_note(workspace), encoding="utf-8")
    return Exported(directory, configs, reader.left_out, reader.left_out_passages, fingerprint)


class _RowReader:
    """Reads the rows that a format takes, and counts the groups that it leaves out."""

    def __init__(self, settings: ExportSettings) -> None:
        self._settings, self._form = settings, FORMATS[settings.form]
        self.negatives = settings.negatives or self._form.negatives
        self.left_out = self.left_out_passages = 0

    def read(self, connection: duckdb.DuckDBPyConnection, paths: list[AnyPath]) -> Iterator[Any]:
        """Yields batches of triples, or `Groups`, as the format says."""
        if self._settings.lists is not None and self._form.rows == "positive":
            # In their order, without a draw: the negatives of a list were drawn when it was built.
            return self._even(list_groups(paths, self.negatives and self.negatives + 1))
        if self._settings.lists is not None:
            view_parquet(connection, "lists", paths)
            connection.execute(f"CREATE VIEW triples AS {sql('exports/list_triples')}")
        else:
            view_parquet(connection, "triples", paths)
        if self._form.rows == "triples":
            return triple_batches(connection)
        groups = triple_groups(connection, self._settings.seed, self._form.rows, self.negatives, self._leave_out)
        return self._even(groups)

    def _leave_out(self, passages: int) -> None:
        self.left_out_passages += passages

    def _even(self, groups: Iterator[Groups]) -> Iterator[Groups]:
        for group in groups:
            kept = group
            if self._form.even and self.negatives is not None:
                enough = group.lengths == self.negatives + 1
                self.left_out += int((~enough).sum())
                kept = group.where(enough)
            if len(kept.query):
                yield kept


def _load(workspace: Workspace, settings: ExportSettings) -> tuple[list[AnyPath], Origin]:
    dataset, name = ("triples", settings.triples) if settings.lists is None else ("lists", settings.lists)
    paths, footers = usable_set(workspace, dataset, name)
    return paths, _origin(workspace, f"{dataset}/{name}", footers[0])


def _stale_note(workspace: Workspace) -> str:
    """A paragraph of the card on stale sets that were exported; empty if all were fresh."""
    if not workspace.accepted:
        return ""
    listed = "".join(f"- {dataset}: {why}\n" for dataset, why in workspace.accepted.items())
    return f"\nExported from stale data (`--stale-ok`):\n\n{listed}"


def _origin(workspace: Workspace, dataset: str, footer: Footer) -> Origin:
    teachers: dict[str, dict[str, Any]] = {}
    for name in footer.recipe.settings.get("teachers", []):
        parts = workspace.parts("scores", name)
        teachers[name] = dict(footer_of(parts[0]).recipe.settings) if parts else {}
        teachers[name]["scores"] = footer.recipe.inputs.get(f"scores/{name}", "")
    counts = footer.extra.get("funnel")
    funnel = Funnel.from_dict(counts) if counts else None
    warnings = recorded_warnings(footer)
    return Origin(dataset, footer.recipe.settings, footer.fingerprint, teachers, funnel, warnings)


def _refuse_foreign(directory: Path, overwrite: bool) -> None:
    if not directory.exists() or (directory.is_dir() and not any(directory.iterdir())):
        return
    foreign = _foreign(directory)
    if foreign or not overwrite:
        todo = "name a new directory" if foreign else "pass --overwrite to replace it"
        expected = "an earlier export and nothing else" if foreign else None
        raise WorkspaceError("the directory is not empty", where=directory, expected=expected, found=foreign, todo=todo)


def _foreign(directory: Path) -> str | None:
    """The first file or folder that no export writes, if there is one."""
    file = directory / CARD
    if not file.is_file() or not is_card(file.read_text(encoding="utf-8", errors="replace")):
        return f"no {CARD} of an export"
    for path in sorted(directory.rglob("*")):
        name = path.relative_to(directory).as_posix()
        expected = name in _FOLDERS if path.is_dir() else _FILES.fullmatch(name)
        if path.is_symlink() or not (expected or _CACHES.fullmatch(name)):
            return name
    return None
