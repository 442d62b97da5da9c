"""The one error tree, and the exit code each branch ends with.

    PrepError                 1  failed
    ├── InputError            1  a file given from outside is not what it should be
    ├── WorkspaceError        1  a workspace lacks something, or holds something stale or foreign
    │   └── MissingError      1  a stage that others need has not run at all
    ├── ModelError            1  a checkpoint cannot do what is asked of it
    ├── UsageError            2  the command was given words that do not fit together
    └── IncompleteError       3  ended in order, but some shards failed after their retries

A message names the place, what was expected, what was found and what to do. Standard library only.
"""

from __future__ import annotations


class PrepError(Exception):
    """A failure that the user can act on; printed without a traceback."""

    exit_code = 1

    def __init__(
        self,
        what: str,
        *,
        where: object = None,
        expected: object = None,
        found: object = None,
        todo: str | None = None,
    ) -> None:
        self.what, self.where, self.expected, self.found, self.todo = what, where, expected, found, todo
        lines = [f"{where}: {what}" if where is not None else what]
        lines += [f"  expected: {expected}"] if expected is not None else []
        lines += [f"  found:    {found}"] if found is not None else []
        lines += [f"  to do:    {todo}"] if todo is not None else []
        super().__init__("\n".join(lines))

    def __reduce__(self) -> tuple[object, ...]:
        """Errors cross process borders (workers, actors) with their fields."""
        return _rebuild, (type(self), self.what, self.where, self.expected, self.found, self.todo)


def _rebuild(
    kind: type[PrepError], what: str, where: object, expected: object, found: object, todo: str | None
) -> PrepError:
    return kind(what, where=where, expected=expected, found=found, todo=todo)


class InputError(PrepError):
    """A file from outside is malformed or contradicts the workspace."""


class WorkspaceError(PrepError):
    """The workspace lacks what a stage needs, or holds something stale, foreign or newer."""


class MissingError(WorkspaceError):
    """A stage has not run: nothing of its output exists, so that `prep status` calls it missing, not incomplete."""


class ModelError(PrepError):
    """A checkpoint cannot be loaded as what it is asked to be."""


class UsageError(PrepError):
    """Options that do not fit together."""

    exit_code = 2


class IncompleteError(PrepError):
    """The run ended in order, but part of the work failed after its retries."""

    exit_code = 3
