"""Loads the retrieved lists of a workspace, and refuses incomplete or stale ones."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline import schemas
from pipeline.errors import WorkspaceError
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace
from pipeline.tables.parts import content_fingerprint, read_footers, require_complete
from pipeline.tables.provenance import Footer

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


def load_retrieved(workspace: Workspace, system: str, passages: str | None = None) -> RetrievedSet:
    """Load the lists of a retriever.

    Args:
        workspace: the workspace to read.
        system: name of the retriever.
        passages: content fingerprint of the collection that mined lists must come from; None accepts any.

    Raises:
        WorkspaceError: the retriever is unknown, a split is incomplete, or lists come from another state of the
            collection.
    """
    paths = workspace.parts("retrieved", system)
    todo = f"run: prep mine --system {system}"
    if not paths:
        known = ", ".join(workspace.names("retrieved")) or "none yet"
        raise WorkspaceError(f"no retriever {system!r}", where=workspace.root, expected=f"one of: {known}", todo=todo)
    retrieved = RetrievedSet(system, paths, read_footers(paths, schemas.RETRIEVED))
    for split, footers in retrieved.splits().items():
        if split == IMPORTED:
            # Ids are append-only: these lists stay valid when the collection grows.
            require_complete(f"retrieved/{system}", paths, footers, "import it again with --overwrite")
            continue
        require_complete(f"retrieved/{system} of split {split}", paths, footers, f"{todo} --split {split}")
        if len({footer.fingerprint for footer in footers}) > 1:
            raise WorkspaceError(
                f"split {split} was mined only in part", where=paths[0].parent, todo=f"{todo} --split {split}"
            )
        if passages is not None and footers[0].recipe.inputs["passages"] != passages:
            raise WorkspaceError(
                f"split {split} was mined from another state of the collection",
                where=paths[0].parent,
                todo=f"{todo} --split {split}",
            )
    return retrieved
