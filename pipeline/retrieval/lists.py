"""The retrieved lists of a workspace, checked before anything is built on them."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import schemas
from pipeline.errors import WorkspaceError
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace
from pipeline.tables.parts import require_complete, set_content, set_footers
from pipeline.tables.provenance import Footer

IMPORTED = "imported"
"""In place of a split: lists from a published file, of whatever queries it names."""


@dataclass(frozen=True)
class RetrievedSet:
    """All lists of one retriever."""

    system: str
    paths: list[AnyPath]
    footers: list[Footer]

    @property
    def content(self) -> str:
        """Content fingerprint of all lists."""
        return set_content(self.footers)

    def splits(self) -> dict[str, list[Footer]]:
        """Footers by split."""
        groups: dict[str, list[Footer]] = {}
        for footer in self.footers:
            groups.setdefault(footer.recipe.settings["split"], []).append(footer)
        return groups

    def covers(self, split: str) -> bool:
        """Whether it has lists for queries of the split, as far as is known."""
        return not {split, IMPORTED}.isdisjoint(self.splits())

    def content_of(self, split: str) -> str:
        """Content fingerprint of the lists that queries of a split may be in."""
        return set_content(footer for group in (split, IMPORTED) for footer in self.splits().get(group, []))


def load_retrieved(workspace: Workspace, system: str, passages: str | None = None) -> RetrievedSet:
    """The lists of a retriever, each split complete; with `passages`, made from that collection.

    Raises:
        WorkspaceError: unknown retriever, an interrupted run, or lists from another state of the collection.
    """
    paths = workspace.parts("retrieved", system)
    todo = f"run: prep mine --system {system}"
    if not paths:
        known = ", ".join(workspace.names("retrieved")) or "none yet"
        raise WorkspaceError(f"no retriever {system!r}", where=workspace.root, expected=f"one of: {known}", todo=todo)
    found = RetrievedSet(system, paths, set_footers(paths, schemas.RETRIEVED))
    for split, footers in found.splits().items():
        if split == IMPORTED:
            # Ids are append-only, so these lists stay what they are when the collection grows.
            require_complete(f"retrieved/{system}", paths, footers, "import it again with --overwrite")
            continue
        require_complete(f"retrieved/{system} of split {split}", paths, footers, f"{todo} --split {split}")
        if len({footer.fingerprint for footer in footers}) > 1:
            raise WorkspaceError(
                f"split {split} was mined in part only", where=paths[0].parent, todo=f"{todo} --split {split}"
            )
        if passages is not None and footers[0].recipe.inputs["passages"] != passages:
            raise WorkspaceError(
                f"split {split} was mined from another state of the collection",
                where=paths[0].parent,
                todo=f"{todo} --split {split}",
            )
    return found
