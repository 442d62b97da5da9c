"""The registry of student architectures.

To add an architecture, write a module with a subclass of `Student` (or of `SeparateStudent`) and add the class to
`ARCHITECTURES`. Everything else reads the class: command line, training, scoring, search and the model card.
"""

from __future__ import annotations

from pipeline.errors import UsageError
from students.architectures.base import Student
from students.architectures.bert_cat import BertCat
from students.architectures.bert_dot import BertDot
from students.architectures.colbert import ColBert
from students.architectures.prettr import PreTtr
from students.architectures.sparse import Sparse
from students.architectures.tk import Tk

ARCHITECTURES: dict[str, type[Student]] = {cls.name: cls for cls in (BertCat, BertDot, ColBert, PreTtr, Sparse, Tk)}
"""Name → class."""


def architecture(name: str) -> type[Student]:
    """The class of a student architecture.

    Raises:
        UsageError: no architecture has this name.

    >>> architecture("colbert").searches
    True
    """
    try:
        return ARCHITECTURES[name]
    except KeyError:
        raise UsageError(f"no architecture {name!r}", expected=f"one of: {', '.join(sorted(ARCHITECTURES))}") from None
