"""The rule of staleness: a set is usable while everything it was made from is what the workspace has now.

Each stage describes by a `Recipe` what it would make today, from inputs that are usable themselves; `require_current`
compares that with the recipe in the footers. Every loader of a set that depends on others asks here, so that a change
of judgements reaches pairs, scores, triples and lists. A stale set is refused with the command that makes it again,
unless the workspace was opened with `stale_ok`: then the use is recorded in `Workspace.accepted`, and `stale_facts`
goes into the provenance of what is made.

Tables of texts and judgements are roots and never stale. A trained model is no set: it stays usable.
"""

from __future__ import annotations

from typing import Any

from pipeline.errors import StaleError
from pipeline.fingerprint import digest_json
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace
from pipeline.tables.provenance import Recipe

STALE_INPUTS = "stale_inputs"
_SETTINGS = {"sql": "the statements of this version of prep", "systems": "the names of the retrievers"}


def changes(made: Recipe, now: Recipe) -> list[str]:
    """Names of the inputs and settings of `made` that differ from `now`; empty if both give the same rows."""
    if made.fingerprint == now.fingerprint:
        return []
    names = [*dict.fromkeys([*made.inputs, *now.inputs])]
    inputs = [name for name in names if made.inputs.get(name) != now.inputs.get(name)]
    keys = [*dict.fromkeys([*made.settings, *now.settings])]
    differing = [key for key in keys if digest_json(made.settings.get(key)) != digest_json(now.settings.get(key))]
    return [*inputs, *(_SETTINGS.get(key, f"the setting {key}") for key in differing)] or ["its description"]


def require_current(
    workspace: Workspace, dataset: str, made: Recipe, now: Recipe, *, where: AnyPath, todo: str
) -> None:
    """Check that a set is what its stage would make now.

    Raises:
        StaleError: an input or a statement has changed, and the workspace accepts no stale sets.
    """
    changed = changes(made, now)
    if changed:
        refuse_stale(workspace, dataset, f"changed since: {', '.join(changed)}", where=where, todo=todo)


def refuse_stale(workspace: Workspace, dataset: str, why: str, *, where: AnyPath, todo: str) -> None:
    """Refuse a stale set, or record that the workspace accepts it.

    Args:
        workspace: decides whether stale sets are accepted.
        dataset: the set, as in "pairs" or "triples 'default'".
        why: what has changed.
        where: path of the set.
        todo: the command that makes it again.

    Raises:
        StaleError: the workspace accepts no stale sets.
    """
    verb = "is" if "/" in dataset else "are"
    workspace.take_stale(dataset, StaleError(f"{dataset} {verb} stale", where=where, found=why, todo=todo))


def stale_facts(workspace: Workspace) -> dict[str, Any]:
    """What goes into the provenance of data that was made from stale sets; empty if there were none."""
    return {STALE_INPUTS: dict(workspace.accepted)} if workspace.accepted else {}


def then(first: str | None, second: str) -> str:
    """Joins two instructions; the first may be missing.

    >>> then("run: prep build-pairs", "prep score")
    'run: prep build-pairs, then: prep score'
    """
    return f"{first}, then: {second}" if first else f"run: {second}"
