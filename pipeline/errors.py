"""The error tree, with the exit code of each class.

    PrepError                 1  the command failed
    ├── InputError            1  an input file is malformed or contradicts the workspace
    ├── WorkspaceError        1  data in the workspace is missing, stale, foreign or of a newer version
    │   ├── MissingError      1  a stage that others need has not run at all
    │   └── StaleError        2  what a set was made from has changed since; --stale-ok uses it all the same
    ├── ModelError            1  a checkpoint cannot be used for its purpose
    ├── UsageError            2  options are invalid or do not fit together
    └── IncompleteError       3  the run ended in order, but some shards failed after their retries

A message gives the path, what was expected, what was found and what to do. Standard library only.
"""

from __future__ import annotations


class PrepError(Exception):
    """A failure that the user can act on; printed without a traceback.

    >>> print(PrepError("empty file", where="qrels.tsv", expected="4 fields", todo="export it again"))
    qrels.tsv: empty file
      expected: 4 fields
      to do:    export it again
    """

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

    @property
    def reason(self) -> str:
        """What is wrong, with what was found, on one line."""
        return self.what if self.found is None else f"{self.what}: {self.found}"

    def __reduce__(self) -> tuple[object, ...]:
        """Pickle with all fields: errors are sent from workers and actors."""
        return _rebuild, (type(self), self.what, self.where, self.expected, self.found, self.todo)


def _rebuild(
    error_type: type[PrepError], what: str, where: object, expected: object, found: object, todo: str | None
) -> PrepError:
    return error_type(what, where=where, expected=expected, found=found, todo=todo)


class InputError(PrepError):
    """An input file is malformed or contradicts the workspace."""


class WorkspaceError(PrepError):
    """Data that a stage needs is missing from the workspace, stale, foreign or of a newer version."""


class MissingError(WorkspaceError):
    """A stage has not run: nothing of its output exists, so that `prep status` calls it missing, not incomplete."""


class StaleError(WorkspaceError):
    """What a set was made from has changed since: using it would give numbers that look right and are not."""

    exit_code = 2


class ModelError(PrepError):
    """A checkpoint cannot be loaded, or not in the requested role."""


class UsageError(PrepError):
    """Options are invalid or do not fit together."""

    exit_code = 2


class IncompleteError(PrepError):
    """The run ended in order, but part of the work failed after its retries."""

    exit_code = 3
