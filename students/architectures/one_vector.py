"""Students that encode a text as one vector and score by the dot product.

Shapes: B queries, N texts or pairs, D width.
"""

from __future__ import annotations

from typing import ClassVar

from torch import Tensor

from students.architectures.separate import SeparateStudent, States, exactly


class OneVectorStudent(SeparateStudent):
    """A student whose states are (N, 1, D)."""

    searches: ClassVar[bool] = True

    def interact(self, queries: States, passages: States) -> Tensor:
        """Dot products (N,)."""
        return (queries.values * passages.values).sum((1, 2))

    def interact_all(self, queries: States, passages: States) -> Tensor:
        """Dot products (B, N)."""
        with exactly(queries):
            return queries.values[:, 0] @ passages.values[:, 0].T
