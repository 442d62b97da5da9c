"""Checks for names that become file names: of retrievers, splits, teachers, triple sets and students."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipeline.errors import UsageError, WorkspaceError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_name(kind: str, name: str) -> str:
    """Return `name` if it is safe as a file name; `kind` says what it names, for the message.

    >>> check_name("teacher", "minilm-l6")
    'minilm-l6'

    Raises:
        UsageError: the name is not safe.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"bad name for a {kind}",
            expected="letters, digits, '.', '_' and '-', starting with a letter or digit, at most 100",
            found=repr(name),
        )
    return name


def refuse_case_twins(kind: str, names: Iterable[str]) -> None:
    """Refuse names that differ only in case, since a database takes them for the same column.

    Raises:
        WorkspaceError: two names differ only in case.
    """
    folded: dict[str, str] = {}
    for name in names:
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            raise WorkspaceError(
                f"two {kind}s differ in case only",
                found=f"{other}, {name}",
                todo="remove one of them and make it again under another name",
            )
