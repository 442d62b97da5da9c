"""Student architectures by name."""

from __future__ import annotations

from pipeline.errors import UsageError
from students.architectures.base import Student
from students.architectures.bert_cat import BertCat
from students.architectures.bert_dot import BertDot
from students.architectures.colbert import ColBert
from students.architectures.prettr import PreTtr
from students.architectures.sparse import Sparse
from students.architectures.tk import Tk

ARCHITECTURES: dict[str, type[Student]] = {kind.name: kind for kind in (BertCat, BertDot, ColBert, PreTtr, Sparse, Tk)}


def architecture(name: str) -> type[Student]:
    """The class of a student architecture.

    Raises:
        UsageError: unknown name.
    """
    try:
        return ARCHITECTURES[name]
    except KeyError:
        raise UsageError(f"no architecture {name!r}", expected=f"one of: {', '.join(sorted(ARCHITECTURES))}") from None
