"""Names that become file names: retrievers, splits, teachers, triple sets, students."""

from __future__ import annotations

import re
from collections.abc import Iterable

from pipeline.errors import UsageError, WorkspaceError

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


def check_name(kind: str, name: str) -> str:
    """The name, if it is safe as a file name.

    Raises:
        UsageError: it is not.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"bad name for a {kind}",
            expected="letters, digits, '.', '_' and '-', starting with a letter or digit, at most 100",
            found=repr(name),
        )
    return name


def refuse_case_twins(kind: str, names: Iterable[str]) -> None:
    """Names that differ in case only would be one column to a database.

    Raises:
        WorkspaceError: there are two.
    """
    folded: dict[str, str] = {}
    for name in names:
        other = folded.setdefault(name.casefold(), name)
        if other != name:
            raise WorkspaceError(
                f"two {kind}s differ in case only",
                found=f"{other}, {name}",
                todo="rename one of them: remove it, and make it again under another name",
            )
