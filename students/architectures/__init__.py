"""Student architectures by name."""

from __future__ import annotations

from pipeline.errors import UsageError
from students.architectures.base import Student
from students.architectures.bert_cat import BertCat
from students.architectures.bert_dot import BertDot

ARCHITECTURES: dict[str, type[Student]] = {"bert_cat": BertCat, "bert_dot": BertDot}


def architecture(name: str) -> type[Student]:
    """The class of a student architecture.

    Raises:
        UsageError: unknown name.
    """
    try:
        return ARCHITECTURES[name]
    except KeyError:
        raise UsageError(f"no architecture {name!r}", expected=f"one of: {', '.join(sorted(ARCHITECTURES))}") from None
