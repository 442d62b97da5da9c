"""Which columns a reader uses, and what becomes of all others: one rule for every format.

A reader declares a `Layout`: the columns that it uses and those known to hold nothing that it needs. Any other column
is either named in the report of the import, or refused by name where leaving it out would change what the rows mean:
scores, grades, and lists of positives or negatives.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from pipeline.errors import InputError


class Layout(NamedTuple):
    """The columns of a format, or the keys of its JSON objects."""

    what: str
    """What the rows are, for messages."""
    used: frozenset[str]
    harmless: frozenset[str] = frozenset()
    """Columns that may be there and are not worth a line in the report."""


class _Meaning(NamedTuple):
    words: str
    """Pattern of words in the names of columns."""
    what: str
    todo: str


_MEANINGS = [
    _Meaning(r"scores?|logits?|margins?", "scores", "prep import scores, or prep import hub --as scores, reads scores"),
    _Meaning(
        r"labels?|grades?|relevan(t|ce)|rel|qrels?|judge?ments?",
        "labels or grades",
        "prep import hub --as qrels reads grades, and --as scores a teacher's labels",
    ),
    _Meaning(
        r"pos|positives?|neg|negatives?|gold|excluded|ranked",
        "positives or negatives",
        "prep import hub --as lists --system NAME reads lists of positives and negatives",
    ),
]
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")


def meaning_of(column: str) -> _Meaning | None:
    """What a column would mean to an import, by the words of its name; None for columns like `url` or `title`.

    >>> meaning_of("neg_ids.score").what, meaning_of("gold-ids").what, meaning_of("metadata")
    ('scores', 'positives or negatives', None)
    """
    words = [word.lower() for word in _WORD.findall(column)]
    return next((m for m in _MEANINGS if any(re.fullmatch(m.words, word) for word in words)), None)


@dataclass
class ColumnCheck:
    """Checks the columns of one import, and gathers those that it does not use."""

    layout: Layout
    where: object
    lenient: bool = False
    """Whether columns that change the meaning are only named, because the user said what to read."""
    unused: dict[str, None] = field(default_factory=dict)
    """Names of the columns that are not used, in the order of their appearance."""
    _seen: set[tuple[str, ...]] = field(default_factory=set)

    def see(self, columns: Iterable[str], line: int | None = None) -> None:
        """Check the columns of a table, or the keys of the object on a line.

        Raises:
            InputError: a column is not used that changes the meaning of the rows.
        """
        names = tuple(columns)
        if names in self._seen:
            return
        self._seen.add(names)
        for name in names:
            if name in self.layout.used or name in self.layout.harmless:
                continue
            meaning = meaning_of(name)
            if meaning and not self.lenient:
                at = "" if line is None else f"line {line}: "
                raise InputError(
                    f"{at}column {name!r} holds {meaning.what}, which this import would leave out",
                    where=self.where,
                    expected=f"{self.layout.what} ({', '.join(sorted(self.layout.used))})",
                    found=", ".join(names),
                    todo=f"{meaning.todo}; or remove the column",
                )
            self.unused[name or "(a column without a name)"] = None


def pick(names: Sequence[str], known: Sequence[str], role: str, where: object) -> str | None:
    """The only column of a table among those known for a role; None if there is none.

    Raises:
        InputError: there are several, so that it would be a guess.
    """
    found = [name for name in known if name in names]
    if len(found) > 1:
        what, todo = f"several columns may hold the {role}", "remove or rename all but one of them"
        raise InputError(what, where=where, expected="one column", found=", ".join(found), todo=todo)
    return found[0] if found else None


def unused_line(columns: Collection[str]) -> str:
    """The line of the report that names unused columns.

    >>> unused_line(["url", "metadata"])
    'columns that were not used: url, metadata'
    """
    return f"columns that were not used: {', '.join(columns)}"
