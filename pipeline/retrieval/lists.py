"""Loads the retrieved lists of a workspace, and refuses incomplete or stale ones.

Lists of a split that were mined depend on all passages and on the queries of the split at that time.
"""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import schemas
from pipeline.collection.selection import selected_before
from pipeline.errors import WorkspaceError
from pipeline.retrieval.settings import Bm25Settings
from pipeline.settings import command_words
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace
from pipeline.tables.parts import content_fingerprint, read_footers, require_complete
from pipeline.tables.provenance import Footer
from pipeline.tables.staleness import refuse_stale

IMPORTED = "imported"
"""Stands for the split of lists that were imported from a published file, whose queries may be of any split."""


@dataclass(frozen=True)
class RetrievedSet:
    """All retrieved lists of one retriever."""

    system: str
    paths: list[AnyPath]
    footers: list[Footer]

    @property
    def content(self) -> str:
        """Content fingerprint of all lists."""
        return content_fingerprint(self.footers)

    def splits(self) -> dict[str, list[Footer]]:
        """Footers by split."""
        groups: dict[str, list[Footer]] = {}
        for footer in self.footers:
            groups.setdefault(footer.recipe.settings["split"], []).append(footer)
        return groups

    def covers(self, split: str) -> bool:
        """Whether it may have lists for queries of the split: lists of the split itself, or imported ones."""
        return not {split, IMPORTED}.isdisjoint(self.splits())

    def paths_of(self, split: str) -> list[AnyPath]:
        """Files with all lists that may belong to queries of a split."""
        return [
            path
            for path, footer in zip(self.paths, self.footers, strict=True)
            if footer.recipe.settings["split"] in (split, IMPORTED)
        ]

    def content_of(self, split: str) -> str:
        """Content fingerprint of all lists that may belong to queries of a split."""
        return content_fingerprint(footer for group in (split, IMPORTED) for footer in self.splits().get(group, []))


def load_retrieved(workspace: Workspace, system: str, split: str | None = None) -> RetrievedSet:
    """Load the lists of a retriever, fresh or stale; see `usable_retrieved`.

    Args:
        workspace: the workspace to read.
        system: name of the retriever.
        split: check the lists of this split alone; None checks all.

    Raises:
        WorkspaceError: the retriever is unknown, or lists of a split are incomplete.
    """
    paths = workspace.parts("retrieved", system)
    if not paths:
        known = ", ".join(workspace.names("retrieved")) or "none yet"
        todo = f"run: prep mine --system {system}"
        raise WorkspaceError(f"no retriever {system!r}", where=workspace.root, expected=f"one of: {known}", todo=todo)
    retrieved = RetrievedSet(system, paths, read_footers(paths, schemas.RETRIEVED))
    for name, footers in retrieved.splits().items():
        if split not in (None, name) and name != IMPORTED:
            continue
        todo = f"run: {_command(footers[0])}"
        dataset = f"retrieved/{system}" if name == IMPORTED else f"retrieved/{system} of split {name}"
        require_complete(dataset, paths, footers, todo)
        if len({footer.fingerprint for footer in footers}) > 1:
            raise WorkspaceError(f"split {name} was mined only in part", where=paths[0].parent, todo=todo)
    return retrieved


def usable_retrieved(workspace: Workspace, system: str, split: str | None = None) -> RetrievedSet:
    """Load the lists of a retriever, which must come from today's passages and from all of today's queries.

    Imported lists stay usable when queries or passages are added: ids are append-only, and a published list is what it
    is. Lists of more queries than the split has today are usable too, as after `prep hold-out`.

    Args:
        workspace: the workspace to read.
        system: name of the retriever.
        split: check the lists of this split alone; None checks all.

    Raises:
        WorkspaceError: as `load_retrieved`.
        StaleError: passages or queries have changed since a split was mined.
    """
    retrieved = load_retrieved(workspace, system, split)
    for name, footers in retrieved.splits().items():
        if name != IMPORTED and split in (None, name):
            why = _changed(workspace, footers[0])
            if why:
                where, todo = retrieved.paths[0].parent, f"run: {_command(footers[0])}"
                refuse_stale(workspace, f"retrieved/{system} of split {name}", why, where=where, todo=todo)
    return retrieved


def _changed(workspace: Workspace, footer: Footer) -> str | None:
    """What has changed since a split was mined; None if nothing has."""
    settings, inputs = footer.recipe.settings, footer.recipe.inputs
    if inputs["passages"] != content_fingerprint(read_footers(workspace.parts("passages"))):
        return "mined from another state of the collection: passages have changed since"
    if "queries" not in inputs:
        return "mined by a version that did not record the queries"
    selections = selected_before(workspace, settings["split"], settings.get("max_queries"))
    if inputs["queries"] not in selections:
        return f"queries of split {settings['split']} have been added or changed since"
    return None


def _command(footer: Footer) -> str:
    """The command that makes the lists of a split again, with the options that were used."""
    settings = footer.recipe.settings
    system, split = settings["system"], settings["split"]
    if split == IMPORTED:
        return f"prep import again, from {settings.get('source')}, with --overwrite"
    words = ["prep mine", f"--system {system}", f"--split {split}"]
    words += [f"--{name.replace('_', '-')} {settings[name]}" for name in ("k", "max_queries") if settings.get(name)]
    if "student" in settings:
        words.append("--student CHECKPOINT")
    if settings.get("seed"):
        words.append(f"--seed {settings['seed']}")
    return " ".join([*words, *command_words(Bm25Settings, settings)])
