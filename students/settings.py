"""What a student is and how it is trained: the options, checked when built, saved with what they made.

Imports no torch, so that a plan or a status costs nothing.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from pipeline.errors import UsageError

Pooling = Literal["cls", "mean"]
Precision = Literal["float32", "bfloat16", "float16"]
LossName = Literal["margin_mse", "ranknet", "bce"]
NEEDS_TEACHER: frozenset[LossName] = frozenset({"margin_mse"})
STUDENT_FILE = "prep.json"
"""What made a student, beside its weights."""


@dataclass(frozen=True)
class StudentSettings:
    """What shapes a student besides its weights; each architecture reads what concerns it."""

    max_query_tokens: int = 30
    """Longest query, special tokens included."""
    max_passage_tokens: int = 200
    """Longest passage, special tokens included."""
    max_length_tokens: int = 230
    """Longest pair, special tokens included, where query and passage are read together."""
    num_layers: int | None = None
    """Keep only the first layers of the encoder; None keeps all."""
    pooling: Pooling | None = None
    """How a text's vector is made from its tokens; None takes the checkpoint's own, else the first token."""
    normalize: bool | None = None
    """Vectors of unit length; None takes the checkpoint's own, else no."""
    scale: float = 20.0
    """What the cosine of unit vectors is multiplied with in training, so that it can reach the teachers' margins;
    sentence-transformers' factor for its ranking loss."""

    def __post_init__(self) -> None:
        for name in ("max_query_tokens", "max_passage_tokens", "max_length_tokens"):
            if getattr(self, name) < 4:
                raise UsageError(f"{name} must be 4 or more", found=getattr(self, name))
        if self.num_layers is not None and self.num_layers < 1:
            raise UsageError("num_layers must be positive", found=self.num_layers)
        if not self.scale > 0:
            raise UsageError("scale must be positive", found=self.scale)
        if self.pooling not in (None, "cls", "mean"):
            raise UsageError("unknown pooling", expected="cls or mean", found=self.pooling)


@dataclass(frozen=True)
class TrainSettings:
    """One training run."""

    architecture: str
    init: str
    """Checkpoint to start from: a Hub name or a local directory."""
    loss: LossName
    triples: str | None = None
    """Triple set to learn from; None learns from judgements (`--targets qrels`)."""
    split: str = "train"
    """Queries to learn from, for judgements; triples carry their own."""
    negatives: int = 1
    """Retrieved negatives of each positive, for judgements."""
    random_negatives: int = 0
    """Negatives more of each positive, from what was retrieved for other queries."""
    batch_size: int = 32
    """Queries of one step."""
    epochs: float = 1.0
    max_steps: int | None = None
    """Stop after that many steps, whatever the epochs; 0 only brings the start into the student's form."""
    learning_rate: float = 2e-5
    head_learning_rate: float | None = None
    """Of a cross-encoder's head and pooler, which start from nothing; None takes `learning_rate`."""
    warmup_share: float = 0.1
    """Share of the steps with a rising learning rate; it falls linearly to 0 after that."""
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    precision: Precision = "float32"
    """Arithmetic of the forward pass (autocast); weights stay float32."""
    seed: int = 0
    save_steps: int = 500
    """Steps between checkpoints that a killed run goes on from."""
    student: StudentSettings = field(default_factory=StudentSettings)

    def __post_init__(self) -> None:
        if self.loss not in get_args(LossName):
            raise UsageError(f"no loss {self.loss!r}", expected=f"one of: {', '.join(get_args(LossName))}")
        if self.loss in NEEDS_TEACHER and self.triples is None:
            raise UsageError(f"loss {self.loss} learns from teacher scores", todo="name the triples: --triples NAME")
        if self.precision not in get_args(Precision):
            raise UsageError("unknown precision", expected=" or ".join(get_args(Precision)), found=self.precision)
        for name in ("negatives", "batch_size", "save_steps"):
            if getattr(self, name) < 1:
                raise UsageError(f"{name} must be positive", found=getattr(self, name))
        for name in ("random_negatives", "max_steps"):
            if (getattr(self, name) or 0) < 0:
                raise UsageError(f"{name} must not be negative", found=getattr(self, name))
        rates = [self.learning_rate, self.learning_rate if self.head_learning_rate is None else self.head_learning_rate]
        if self.epochs <= 0 or min(rates) <= 0:
            raise UsageError("epochs and learning rates must be positive", found=(self.epochs, *rates))

    def steps(self, rows: int) -> int:
        """Optimizer steps over a source of that many rows; a last batch may be smaller."""
        per_epoch = -(-rows // self.batch_size)
        return self.max_steps if self.max_steps is not None else max(1, round(per_epoch * self.epochs))

    def as_dict(self) -> dict[str, Any]:
        """The options as JSON values."""
        return asdict(self)
