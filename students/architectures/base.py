"""What every student is: a module that scores K candidates for each of B queries, and can be saved and loaded.

Shapes: B queries, K candidates of each, T tokens, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from pipeline.errors import ModelError
from students.settings import StudentSettings


class Student(nn.Module, ABC):
    """A student under training."""

    name: ClassVar[str]
    """The architecture's name on the command line."""

    def __init__(self, encoder: nn.Module, tokenizer: PreTrainedTokenizerBase, settings: StudentSettings) -> None:
        super().__init__()
        self.encoder, self.tokenizer, self.settings = encoder, tokenizer, settings

    @classmethod
    @abstractmethod
    def from_checkpoint(cls, init: str, settings: StudentSettings) -> Self:
        """Start from a checkpoint: a Hub name or a local directory.

        Raises:
            ModelError: it cannot be the start of this architecture.
        """

    @abstractmethod
    def features(self, queries: Sequence[str], passages: Sequence[str]) -> dict[str, Tensor]:
        """Model inputs for B queries and B x K passages, row by row; runs in the data loader."""

    @abstractmethod
    def forward(self, **features: Tensor) -> Tensor:
        """Raw scores (B, K)."""

    def head(self) -> list[nn.Parameter]:
        """The parameters above the encoder, which may learn at a rate of their own."""
        return []

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write model and tokenizer so that the ecosystem's own classes load the directory."""


def layers_override(config: PreTrainedConfig, num_layers: int | None, where: object) -> dict[str, Any]:
    """Keyword for `from_pretrained` that keeps the first layers.

    Raises:
        ModelError: the checkpoint has fewer.
    """
    if num_layers is None:
        return {}
    if num_layers > config.num_hidden_layers:
        raise ModelError(
            "fewer layers than asked for", where=where, expected=num_layers, found=config.num_hidden_layers
        )
    return {"num_hidden_layers": num_layers}


def refuse_missing(info: dict[str, Any], where: object, *, may_be_new: tuple[str, ...]) -> None:
    """Check loading info: no weight may be random but those whose names hold one of `may_be_new`.

    Raises:
        ModelError: others are missing or of another shape.
    """
    lost = [key for key in info["missing_keys"] if not any(part in key for part in may_be_new)]
    lost += [key for key, *_ in info["mismatched_keys"] if not any(part in key for part in may_be_new)]
    if lost:
        raise ModelError(
            "weights missing or of another shape",
            where=where,
            found=", ".join(sorted(lost)[:5]),
            todo="name another checkpoint",
        )
