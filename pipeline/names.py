"""Names that become file names: retrievers, splits, teachers, triple sets, students."""

from __future__ import annotations

import re

from pipeline.errors import UsageError

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
