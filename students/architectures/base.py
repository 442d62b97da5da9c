"""The contract of a student: a module that scores K candidates for each of B queries, and can be saved and loaded.

Shapes: B queries, K candidates of each, N pairs or texts, T tokens, D width.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from transformers import (
    AutoModel,
    MT5EncoderModel,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
    T5EncoderModel,
    UMT5EncoderModel,
)

from pipeline.errors import ModelError, UsageError
from students.settings import StudentSettings
from students.token_rows import TextRows
from teachers.checkpoints.checkpoint import Checkpoint
from teachers.checkpoints.cross_encoder import positions_of
from teachers.checkpoints.definition import Definition


class Student(nn.Module, ABC):
    """A model that is trained from teacher scores or labels; see `SeparateStudent` for those that encode separately."""

    name: ClassVar[str]
    """The architecture's name on the command line."""
    searches: ClassVar[bool] = False
    """Whether it can retrieve from a whole collection."""
    library_class: ClassVar[str | None] = None
    """The sentence-transformers class that loads its directory."""
    known_by_model_type: ClassVar[str | None] = None
    """The `model_type` that only checkpoints of this architecture have."""
    prompts: tuple[str, str] = ("", "")
    """Texts put before every query and before every passage where a loaded checkpoint scores; none in training."""
    penalties: Tensor | None = None
    """Regularisation terms of the last forward pass, (2,): of queries and of passages."""

    def __init__(self, encoder: nn.Module, tokenizer: PreTrainedTokenizerBase, settings: StudentSettings) -> None:
        super().__init__()
        self.encoder, self.tokenizer, self.settings = encoder, tokenizer, settings

    @classmethod
    @abstractmethod
    def from_checkpoint(cls, init: str | Checkpoint, settings: StudentSettings) -> Self:
        """Load a checkpoint, a Hub name, a local directory, or a resolved checkpoint.

        A checkpoint of the same architecture is loaded with all its weights. From any other, the encoder is loaded, and
        new weights above it are drawn by torch's global generator.

        Raises:
            ModelError: the architecture cannot start from this checkpoint.
        """

    def read(self, definition: Definition) -> None:
        """Score as the checkpoint's files say; for inference, since in training the settings alone decide."""
        self.prompts = definition.prompts

    @abstractmethod
    def features(self, queries: TextRows, passages: TextRows) -> dict[str, Tensor]:
        """Model inputs for B queries and B x K passages, those of each query together; runs in the data loader."""

    @abstractmethod
    def forward(self, *, in_batch: bool = False, **features: Tensor) -> Tensor:
        """Raw scores (B, K) of each query's candidates or, if `in_batch`, (B, B*K) of all passages of the batch.

        Raises:
            UsageError: `in_batch`, but the architecture reads query and passage together.
        """

    def score(self, queries: Sequence[str], passages: Sequence[str]) -> Tensor:
        """Raw scores (B,) of pairs: query i with passage i."""
        rows = (
            TextRows.of(self.tokenizer, texts, prompt)
            for texts, prompt in zip((queries, passages), self.prompts, strict=True)
        )
        device = next(self.parameters()).device
        features = {name: tensor.to(device) for name, tensor in self.features(*rows).items()}
        return self(**features).squeeze(1)  # type: ignore[no-any-return]

    @property
    @abstractmethod
    def input_limit(self) -> int:
        """The longest input in tokens that its settings allow."""

    def check_lengths(self) -> None:
        """Check that the encoder has a position for each token of the longest input.

        Raises:
            ModelError: it has fewer.
        """
        positions = positions_of(self.encoder, getattr(self.encoder, "config", None))
        if positions is not None and self.input_limit > positions:
            raise ModelError(
                "the maximum length exceeds the encoder's positions",
                where=getattr(getattr(self.encoder, "config", None), "name_or_path", None),
                expected=f"{positions} tokens or less",
                found=self.input_limit,
                todo="lower --max-length for bert_cat, --max-query-length and --max-passage-length for the others",
            )

    def head(self) -> list[nn.Parameter]:
        """The parameters above the encoder; `head_learning_rate` is their learning rate."""
        return []

    def embeddings(self) -> list[nn.Parameter]:
        """The table of word embeddings; `embedding_learning_rate` is its learning rate."""
        tables = [module for module in self.encoder.modules() if isinstance(module, nn.Embedding)]
        return list(max(tables, key=lambda table: table.num_embeddings).parameters())

    def freeze(self, layers: int) -> None:
        """Freeze the embeddings and the first `layers` layers of the encoder.

        Raises:
            UsageError: the encoder has fewer layers, or not a single list of layers.
        """
        stack = layers_of(self.encoder)
        if stack is None or layers > len(stack):
            count = "none" if stack is None else len(stack)
            raise UsageError("fewer layers than freeze_layers", expected=layers, found=count)
        frozen = [module for name, module in self.encoder.named_modules() if name.split(".")[-1] == "embeddings"]
        for module in [*frozen, *stack[:layers]]:
            module.requires_grad_(False)

    @abstractmethod
    def save(self, directory: Path) -> None:
        """Write model and tokenizer; `library_class`, if there is one, loads the directory."""


def layers_of(encoder: nn.Module) -> nn.ModuleList | None:
    """The transformer layers of an encoder, or of a model that contains one; None if they are not a single list."""
    for name, module in encoder.named_modules():
        if name.split(".")[-1] in ("layer", "layers") and isinstance(module, nn.ModuleList):
            return module
    return None


def freeze_pooler(encoder: nn.Module) -> None:
    """Freeze a pooler that the score does not use: distributed training would wait for its gradient."""
    pooler = getattr(encoder, "pooler", None)
    if pooler is not None:
        pooler.requires_grad_(False)


_ENCODERS = {"t5": T5EncoderModel, "mt5": MT5EncoderModel, "umt5": UMT5EncoderModel}


def encoder_class(config: PreTrainedConfig) -> Any:
    """The class that loads an encoder; of T5 and its kin the encoder alone, as sentence-transformers does."""
    return _ENCODERS.get(config.model_type, AutoModel)


def layers_override(config: PreTrainedConfig, num_layers: int | None, where: object) -> dict[str, Any]:
    """Arguments of `from_pretrained` that keep the first `num_layers` layers; none if it is None.

    Raises:
        ModelError: the checkpoint has fewer layers.
    """
    if num_layers is None:
        return {}
    if num_layers > config.num_hidden_layers:
        raise ModelError(
            "fewer layers than num_layers", where=where, expected=num_layers, found=config.num_hidden_layers
        )
    return {"num_hidden_layers": num_layers}


def refuse_unused(settings: StudentSettings, where: object, *names: str) -> None:
    """Check that settings are not given which this form of a checkpoint has no use for.

    Raises:
        UsageError: one of them is.
    """
    for name in names:
        if getattr(settings, name) is not None:
            raise UsageError(
                f"--{name.replace('_', '-')} has no effect on this checkpoint", where=where,
                found=getattr(settings, name), todo="leave it out, or name a checkpoint of transformers",
            )  # fmt: skip


def refuse_missing(info: dict[str, Any], where: object, *, may_be_new: tuple[str, ...]) -> None:
    """Check transformers' loading info: only weights whose names contain one of `may_be_new` may be newly initialised.

    Raises:
        ModelError: other weights are missing or have another shape.
    """
    lacking = [key for key in info["missing_keys"] if not any(part in key for part in may_be_new)]
    lacking += [key for key, *_ in info["mismatched_keys"] if not any(part in key for part in may_be_new)]
    if lacking:
        raise ModelError(
            "weights missing or of another shape",
            where=where,
            found=", ".join(sorted(lacking)[:5]),
            todo="name another checkpoint",
        )


def load_strictly(module: nn.Module, state: dict[str, Tensor], where: object) -> None:
    """Load a state dict that must have exactly the module's weights.

    Raises:
        ModelError: weights are missing, left over or of another shape.
    """
    expected = module.state_dict()
    wrong = sorted(set(expected) ^ set(state))
    wrong += [key for key in expected.keys() & state.keys() if expected[key].shape != state[key].shape]
    if wrong:
        raise ModelError(
            "weights missing, left over or of another shape",
            where=where,
            expected=f"the {len(expected)} weights of {type(module).__name__}",
            found=", ".join(wrong[:5]),
            todo="name another checkpoint",
        )
    with torch.no_grad():
        module.load_state_dict(state)
