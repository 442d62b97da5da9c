"""What a student is and how it is trained: the options, checked when built, saved with what they made.

Imports no torch, so that a plan or a status costs nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple, get_args

from pipeline.errors import UsageError
from students.losses import LOSSES

Pooling = Literal["cls", "mean"]
Precision = Literal["float32", "bfloat16", "float16"]
Schedule = Literal["linear", "cosine", "constant"]
NEEDS_TEACHER = frozenset(name for name, loss in LOSSES.items() if loss.teacher_scores)
NEEDS_IN_BATCH_TEACHER = frozenset(name for name, loss in LOSSES.items() if loss.in_batch_teacher)
_COUNTS = (
    "negatives",
    "batch_size",
    "save_steps",
    "micro_batch_size",
    "eval_steps",
    "patience",
    "eval_queries",
    "eval_depth",
)
_NOT_NEGATIVE = (
    "random_negatives",
    "max_steps",
    "min_steps",
    "warmup_steps",
    "warmup_share",
    "weight_decay",
    "freeze_layers",
    "flops_query",
    "flops_passage",
)
_POSITIVE = (
    "epochs",
    "learning_rate",
    "head_learning_rate",
    "embedding_learning_rate",
    "max_gradient_norm",
    "temperature",
    "mnrl_scale",
    "agreement",
)
Storage = Literal["float32", "float16"]
STUDENT_FILE = "prep.json"
"""What made a student, beside its weights."""
ENCODED_FILE = "encoded.json"
"""What made encoded texts, beside their values."""


class LossTerm(NamedTuple):
    """One part of a loss."""

    factor: float
    name: str


def parse_loss(text: str) -> tuple[LossTerm, ...]:
    """Read a loss: names with optional factors, joined by plus signs: "margin_mse", "margin_mse+0.2*mnrl".

    Raises:
        UsageError: an unknown name, one named twice, or a factor that is no positive number.
    """
    terms = []
    for part in text.split("+"):
        factor, star, name = part.strip().rpartition("*")
        if name.strip() not in LOSSES:
            raise UsageError(f"no loss {name.strip()!r}", expected=f"one of: {', '.join(LOSSES)}", found=text)
        try:
            value = float(factor) if star else 1.0
        except ValueError:
            value = math.nan
        if not 0 < value < math.inf:
            raise UsageError("a loss's factor must be a positive number", expected="0.2*mnrl", found=part.strip())
        terms.append(LossTerm(value, name.strip()))
    if len({term.name for term in terms}) < len(terms):
        raise UsageError("a loss is named twice", found=text)
    return tuple(terms)


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
    shared_groups: int | None = None
    """bert_cat: layers share their weights, as ALBERT's, so that only that many differ; None shares none."""
    pooling: Pooling | None = None
    """How a text's vector is made from its tokens; None takes the checkpoint's own, else the first token."""
    normalize: bool | None = None
    """Vectors of unit length; None takes the checkpoint's own, else no."""
    scale: float = 20.0
    """What the cosine of unit vectors is multiplied with in training, so that it can reach the teachers' margins;
    sentence-transformers' factor for its ranking loss."""
    projection_width: int | None = None
    """colbert: values of a token's vector; None takes the checkpoint's own, else the encoder's width."""
    query_marker: str = ""
    """colbert: text after a query's first token, like "[Q]"."""
    passage_marker: str = ""
    """colbert: text after a passage's first token, like "[D]"."""
    expand_queries: bool = False
    """colbert: fill every query up to `max_query_tokens` with mask tokens."""
    query_masks: int = 0
    """colbert: that many mask tokens after every query; 8 in the paper's published checkpoint."""
    split_layer: int = 3
    """prettr: layers that query and passage run through apart."""
    tk_layers: int = 2
    """tk: transformer layers."""
    tk_heads: int = 10
    """tk: attention heads; the next smaller number that divides the vectors' width."""
    tk_inner: int = 300
    """tk: width of the feed-forward part."""

    def __post_init__(self) -> None:
        for name in ("max_query_tokens", "max_passage_tokens", "max_length_tokens"):
            if getattr(self, name) < 4:
                raise UsageError(f"{name} must be 4 or more", found=getattr(self, name))
        for name in (
            "num_layers",
            "shared_groups",
            "projection_width",
            "split_layer",
            "tk_layers",
            "tk_heads",
            "tk_inner",
        ):
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"{name} must be positive", found=getattr(self, name))
        if self.query_masks < 0 or (self.query_masks and self.expand_queries):
            raise UsageError(
                "queries are followed by a number of mask tokens, or filled up with them",
                found=f"query_masks {self.query_masks}, expand_queries {self.expand_queries}",
            )
        if not self.scale > 0:
            raise UsageError("scale must be positive", found=self.scale)
        if self.pooling not in (None, *get_args(Pooling)):
            raise UsageError("unknown pooling", expected="cls or mean", found=self.pooling)


@dataclass(frozen=True)
class TrainSettings:
    """One training run."""

    architecture: str
    init: str
    """Checkpoint to start from: a Hub name or a local directory; for tk also a file of word vectors."""
    loss: str
    """Names with optional factors, joined by plus signs."""
    triples: str | None = None
    """Triple set to learn from; None, and no lists, learns from judgements (`--targets qrels`)."""
    split: str = "train"
    """Queries to learn from, for judgements; triples carry their own."""
    negatives: int = 1
    """Retrieved negatives of each positive, for judgements."""
    random_negatives: int = 0
    """Negatives more of each positive, from what was retrieved for other queries."""
    one_per_query: bool = False
    """Of triples, only one of each query an epoch: its next positive with that one's next negative."""
    batch_size: int = 32
    """Queries of one step, over all workers."""
    epochs: float = 1.0
    max_steps: int | None = None
    """Stop after that many steps, whatever the epochs; 0 only brings the start into the student's form."""
    learning_rate: float = 2e-5
    head_learning_rate: float | None = None
    """Of what stands above the encoder and starts from nothing; None takes `learning_rate`."""
    warmup_share: float = 0.1
    """Share of the steps with a rising learning rate."""
    weight_decay: float = 0.01
    max_gradient_norm: float = 1.0
    precision: Precision = "float32"
    """Arithmetic of the forward pass (autocast); weights stay float32."""
    seed: int = 0
    save_steps: int = 500
    """Steps between checkpoints that a killed run goes on from."""
    student: StudentSettings = field(default_factory=StudentSettings)
    lists: str | None = None
    """Set of lists of several passages to learn from, instead of triples."""
    list_size: int = 8
    """Passages of each list, the first ones; the first of all is the positive."""
    micro_batch_size: int | None = None
    """Queries that run together, gradients being summed to `batch_size`; None runs a worker's share at once."""
    warmup_steps: int | None = None
    """Steps with a rising learning rate; None takes `warmup_share`."""
    schedule: Schedule = "linear"
    """How the learning rate falls after that: to 0 in a line or a half wave, or not."""
    embedding_learning_rate: float | None = None
    """Of the table of word embeddings; None takes `learning_rate`."""
    freeze_layers: int | None = None
    """Keep the embeddings and that many first layers as they are; 0 keeps the embeddings alone, None nothing."""
    in_batch_teacher: str | None = None
    """Checkpoint of a student that reads query and passage apart, for losses over all passages of a batch."""
    temperature: float = 1.0
    """kl and in_batch_kl: what all scores are divided by."""
    mnrl_scale: float = 1.0
    """mnrl: what scores are multiplied with, on top of the cosine's `scale`."""
    agreement: float | None = None
    """Deviation among the teachers' margins, in raw logits, at which a triple counts half; None counts all alike."""
    flops_query: float = 0.0
    """sparse: weight of the queries' FLOPS in the loss."""
    flops_passage: float = 0.0
    """sparse: weight of the passages' FLOPS in the loss."""
    eval_steps: int | None = None
    """Steps between validations by nDCG@10, the best state of which is kept; None keeps the last state."""
    patience: int | None = None
    """Validations without a gain after which training ends; None goes to the end."""
    min_steps: int = 0
    """Steps before which training does not end for want of a gain."""
    eval_split: str = "dev"
    """Queries to validate on."""
    eval_queries: int | None = 100
    """A stable sample of that many judged ones."""
    eval_candidates: str = "bm25"
    """Retriever whose lists are re-ranked for validation."""
    eval_depth: int = 50
    """Passages of each list that are re-ranked for validation."""

    def __post_init__(self) -> None:
        for value, kind in ((self.precision, Precision), (self.schedule, Schedule)):
            if value not in get_args(kind):
                raise UsageError("unknown option value", expected=" or ".join(get_args(kind)), found=value)
        self._check_source()
        for name in _COUNTS:
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise UsageError(f"{name} must be positive", found=getattr(self, name))
        for name in _NOT_NEGATIVE:
            if (getattr(self, name) or 0) < 0:
                raise UsageError(f"{name} must not be negative", found=getattr(self, name))
        for name in _POSITIVE:
            if getattr(self, name) is not None and not 0 < getattr(self, name) < math.inf:
                raise UsageError(f"{name} must be a positive number", found=getattr(self, name))
        if self.patience is not None and self.eval_steps is None:
            raise UsageError("patience counts validations", todo="say how often: --eval-steps N")

    def _check_source(self) -> None:
        """The loss and the options fit what is learned from."""
        if self.list_size < 2:
            raise UsageError("list_size must be 2 or more", found=self.list_size)
        if self.triples and self.lists:
            raise UsageError("triples and lists exclude each other", found=f"{self.triples}, {self.lists}")
        needy = [term.name for term in parse_loss(self.loss) if term.name in NEEDS_TEACHER]
        if needy and self.triples is None and self.lists is None:
            raise UsageError(f"loss {needy[0]} learns from teacher scores", todo="name the triples: --triples NAME")
        asked = [term.name for term in parse_loss(self.loss) if term.name in NEEDS_IN_BATCH_TEACHER]
        if asked and self.in_batch_teacher is None:
            raise UsageError(f"loss {asked[0]} learns from a teacher in training", todo="pass --in-batch-teacher NAME")
        if self.in_batch_teacher is not None and not asked:
            expected = " or ".join(sorted(NEEDS_IN_BATCH_TEACHER))
            raise UsageError("no loss would use the in-batch teacher", expected=expected, found=self.loss)
        if self.one_per_query and self.triples is None:
            raise UsageError("one_per_query takes turns with triples", todo="name the triples: --triples NAME")
        if self.agreement is not None and self.triples is None:
            raise UsageError("agreement is that of the teachers of a triple", todo="name the triples: --triples NAME")

    def steps(self, rows: int) -> int:
        """Optimizer steps over a source of that many rows; a last batch may be smaller."""
        per_epoch = -(-rows // self.batch_size)
        return self.max_steps if self.max_steps is not None else max(1, round(per_epoch * self.epochs))

    def warmup(self, steps: int) -> int:
        """Steps of a run with a rising learning rate."""
        return round(self.warmup_share * steps) if self.warmup_steps is None else self.warmup_steps

    def as_dict(self) -> dict[str, Any]:
        """The options as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, given: Mapping[str, Any]) -> TrainSettings:
        """What `as_dict` said; an option that is younger than it has its default."""
        return cls(**{**given, "student": StudentSettings(**given["student"])})
