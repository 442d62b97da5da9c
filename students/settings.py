"""Settings of a student and of its training, checked when built and saved with the student.

The fields are the options of `prep train` and the keys of its recipes (see `pipeline.settings`). Standard library only:
training runs where no command-line library is installed, and a plan or a status loads no model library.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, NamedTuple

from pipeline.errors import UsageError
from pipeline.settings import check_settings, setting
from students.losses import LOSSES

DATA, MODEL, LOSS = "Data", "Model", "Loss"
OPTIMISATION, VALIDATION = "Optimisation", "Validation"
Pooling = Literal["cls", "mean"]
Precision = Literal["float32", "bfloat16", "float16"]
Schedule = Literal["linear", "cosine", "constant"]
NEEDS_TEACHER = frozenset(name for name, loss in LOSSES.items() if loss.teacher_scores)
"""Losses that learn from the teacher scores in triples and lists."""
NEEDS_IN_BATCH_TEACHER = frozenset(name for name, loss in LOSSES.items() if loss.in_batch_teacher)
"""Losses that learn from a teacher that scores each query with all passages of the batch."""
Storage = Literal["float32", "float16"]
STUDENT_FILE = "prep.json"
"""File beside a student's weights: its settings and the fingerprints of its inputs, as JSON."""
ENCODED_FILE = "encoded.json"
"""File beside encoded texts: what encoded them, as JSON."""


class LossTerm(NamedTuple):
    """One term of a weighted sum of losses."""

    factor: float
    name: str


def parse_loss(text: str) -> tuple[LossTerm, ...]:
    """Parse a loss: names with optional factors, joined by plus signs.

    >>> parse_loss("margin_mse+0.2*mnrl")
    (LossTerm(factor=1.0, name='margin_mse'), LossTerm(factor=0.2, name='mnrl'))

    Raises:
        UsageError: an unknown name, a name given twice, or a factor that is not a positive number.
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
            raise UsageError("the factor of a loss must be a positive number", expected="0.2*mnrl", found=part.strip())
        terms.append(LossTerm(value, name.strip()))
    if len({term.name for term in terms}) < len(terms):
        raise UsageError("a loss is named twice", found=text, todo="add its factors")
    return tuple(terms)


@dataclass(frozen=True)
class StudentSettings:
    """Shape of a student, apart from its weights. An architecture ignores the settings of the others."""

    max_query_tokens: int = setting(
        30,
        option="--max-query-length",
        panel=MODEL,
        minimum=4,
        help="Truncate queries to this many tokens, special tokens included.",
    )
    max_passage_tokens: int = setting(
        200,
        option="--max-passage-length",
        panel=MODEL,
        minimum=4,
        help="Truncate passages to this many tokens, special tokens included.",
    )
    max_length_tokens: int = setting(
        230,
        option="--max-length",
        panel=MODEL,
        minimum=4,
        help="bert_cat: truncate pairs of query and passage to this many tokens, special tokens included.",
    )
    num_layers: int | None = setting(
        None,
        panel=MODEL,
        minimum=1,
        unset="all layers",
        help="Keep only the first N layers of the encoder.",
    )
    shared_groups: int | None = setting(
        None,
        panel=MODEL,
        minimum=1,
        unset="no shared weights",
        help="bert_cat: split the layers into N groups of neighbours that share their weights, as ALBERT's layers do.",
    )
    pooling: Pooling | None = setting(
        None,
        panel=MODEL,
        unset="as in the checkpoint, else cls",
        help="bert_dot: make a text's vector from the first token (cls) or from the mean of all tokens (mean).",
    )
    normalize: bool | None = setting(
        None,
        panel=MODEL,
        unset="as in the checkpoint, else no",
        help="bert_dot, colbert: scale vectors to unit length.",
    )
    # 20 is the factor of sentence-transformers' MultipleNegativesRankingLoss.
    scale: float = setting(
        20.0,
        panel=MODEL,
        above=0,
        help="Multiply the cosine of unit vectors by this factor in training, to reach the range of teachers' margins.",
    )
    projection_width: int | None = setting(
        None,
        panel=MODEL,
        minimum=1,
        unset="as in the checkpoint, else the encoder's width",
        help="colbert: width of a token's vector.",
    )
    query_marker: str = setting(
        "",
        panel=MODEL,
        metavar="TEXT",
        help='colbert: insert this text after the first token of a query, such as "[Q]".',
    )
    passage_marker: str = setting(
        "",
        panel=MODEL,
        metavar="TEXT",
        help='colbert: insert this text after the first token of a passage, such as "[D]".',
    )
    expand_queries: bool = setting(
        False, panel=MODEL, flag=True, help="colbert: fill every query up to --max-query-length with mask tokens."
    )
    query_masks: int = setting(
        0,
        panel=MODEL,
        minimum=0,
        help="colbert: append this many mask tokens to every query; the paper's published checkpoint has 8.",
    )
    split_layer: int = setting(
        3, panel=MODEL, minimum=1, help="prettr: number of first layers that encode query and passage separately."
    )
    tk_layers: int = setting(2, panel=MODEL, minimum=1, help="tk: number of transformer layers.")
    tk_heads: int = setting(
        10,
        panel=MODEL,
        minimum=1,
        help="tk: number of attention heads, lowered to the next divisor of the vectors' width.",
    )
    tk_inner: int = setting(300, panel=MODEL, minimum=1, help="tk: width of the feed-forward layers.")

    def __post_init__(self) -> None:
        check_settings(self)
        if self.query_masks and self.expand_queries:
            raise UsageError(
                "--query-masks and --expand-queries exclude each other",
                found=f"--query-masks {self.query_masks} --expand-queries",
                todo="leave one of them out",
            )


@dataclass(frozen=True)
class TrainSettings:
    """Settings of one training run, in the order in which a student's file lists them."""

    architecture: str = setting(
        "bert_dot",
        panel=MODEL,
        metavar="NAME",
        help="Architecture of the student: bert_dot, bert_cat, colbert, prettr, tk or sparse.",
    )
    init: str = setting(
        "",
        panel=MODEL,
        metavar="CHECKPOINT",
        help="Checkpoint to start from: a Hub name, a directory or a student of the workspace; for tk also a file of "
        "word vectors.",
    )
    loss: str = setting(
        "margin_mse",
        panel=LOSS,
        metavar="LOSS",
        help="Loss, or a weighted sum such as margin_mse+0.2*mnrl. "
        f"From teacher scores: {', '.join(name for name in LOSSES if name in NEEDS_TEACHER)}. "
        f"From labels: {', '.join(name for name in LOSSES if name not in NEEDS_TEACHER | NEEDS_IN_BATCH_TEACHER)}. "
        f"From an in-batch teacher: {', '.join(name for name in LOSSES if name in NEEDS_IN_BATCH_TEACHER)}.",
    )
    triples: str | None = setting(
        None,
        panel=DATA,
        metavar="NAME",
        unset="the set named default, for losses from teacher scores",
        help="Train on this set of triples.",
    )
    split: str = setting(
        "train", panel=DATA, metavar="SPLIT", help="With --targets qrels: train on the queries of this split."
    )
    negatives: int = setting(
        1,
        panel=DATA,
        minimum=1,
        help="With --targets qrels: number of retrieved negatives per positive.",
    )
    random_negatives: int = setting(
        0,
        panel=DATA,
        minimum=0,
        help="With --targets qrels: number of extra negatives per positive, drawn from passages retrieved for other "
        "queries; they speed up training from an untrained encoder.",
    )
    one_per_query: bool = setting(
        False,
        panel=DATA,
        flag=True,
        help="Use one triple per query in each epoch: the next positive of the query, with the next negative of that "
        "positive.",
    )
    batch_size: int = setting(
        32, panel=OPTIMISATION, minimum=1, help="Number of queries in one optimiser step, over all workers."
    )
    epochs: float = setting(1.0, panel=OPTIMISATION, above=0, help="Number of passes over the training rows.")
    max_steps: int | None = setting(
        None,
        panel=OPTIMISATION,
        minimum=0,
        unset="as --epochs says",
        help="Stop after this many steps, whatever --epochs says; 0 saves the untrained student.",
    )
    learning_rate: float = setting(2e-5, panel=OPTIMISATION, above=0, help="Peak learning rate.")
    head_learning_rate: float | None = setting(
        None,
        panel=OPTIMISATION,
        above=0,
        unset="--learning-rate",
        help="Peak learning rate of the layers above the encoder, which start untrained; a value several times "
        "--learning-rate saves steps.",
    )
    warmup_share: float = setting(
        0.1,
        panel=OPTIMISATION,
        minimum=0,
        maximum=1,
        help="Fraction of the training steps over which the learning rate warms up.",
    )
    weight_decay: float = setting(0.01, panel=OPTIMISATION, minimum=0, help="Weight decay of AdamW.")
    max_gradient_norm: float = setting(
        1.0, panel=OPTIMISATION, above=0, help="Scale gradients with a larger norm down to this norm."
    )
    precision: Precision = setting(
        "float32",
        panel=OPTIMISATION,
        help="Arithmetic of the forward pass (autocast): {choices}. Weights stay float32.",
    )
    seed: int = setting(0, panel=OPTIMISATION, help="Seed of new weights, of dropout and of the order of the rows.")
    save_steps: int = setting(
        500, panel=OPTIMISATION, minimum=1, help="Steps between checkpoints; an interrupted run resumes from the last."
    )
    student: StudentSettings = field(default_factory=StudentSettings)
    lists: str | None = setting(
        None, panel=DATA, metavar="NAME", help="Train on this set of lists of several passages, instead of triples."
    )
    list_size: int = setting(
        8, panel=DATA, minimum=2, help="With --lists: number of passages used of each list; the first is the positive."
    )
    micro_batch_size: int | None = setting(
        None,
        panel=OPTIMISATION,
        minimum=1,
        unset="the worker's share of --batch-size",
        help="Number of queries in one forward pass; gradients are summed over the batch of --batch-size.",
    )
    warmup_steps: int | None = setting(
        None,
        panel=OPTIMISATION,
        minimum=0,
        unset="as --warmup-share says",
        help="Number of training steps over which the learning rate warms up.",
    )
    schedule: Schedule = setting("linear", panel=OPTIMISATION, help="Learning-rate schedule after warm-up: {choices}.")
    embedding_learning_rate: float | None = setting(
        None,
        panel=OPTIMISATION,
        above=0,
        unset="--learning-rate",
        help="Peak learning rate of the word embeddings.",
    )
    freeze_layers: int | None = setting(
        None,
        panel=OPTIMISATION,
        minimum=0,
        unset="nothing is frozen",
        help="Freeze the embeddings and the first N layers; 0 freezes the embeddings alone.",
    )
    in_batch_teacher: str | None = setting(
        None,
        panel=LOSS,
        metavar="CHECKPOINT",
        help="Trained student that scores all passages of a batch for in_batch_margin_mse and in_batch_kl: a student "
        "of the workspace, a directory or a Hub name. It must encode query and passage separately.",
    )
    temperature: float = setting(
        1.0, panel=LOSS, above=0, help="kl, in_batch_kl: divide all scores by this temperature."
    )
    mnrl_scale: float = setting(
        1.0, panel=LOSS, above=0, help="mnrl: multiply scores by this factor, on top of --scale."
    )
    agreement: float | None = setting(
        None,
        panel=LOSS,
        above=0,
        unset="equal weights",
        help="Weight triples by how well the teachers agree: a standard deviation of this size among their margins, in "
        "raw logits, halves the weight.",
    )
    flops_query: float = setting(
        0.0, panel=LOSS, minimum=0, help="sparse: weight of the FLOPS regulariser of queries in the loss."
    )
    flops_passage: float = setting(
        0.0, panel=LOSS, minimum=0, help="sparse: weight of the FLOPS regulariser of passages in the loss."
    )
    eval_steps: int | None = setting(
        None,
        panel=VALIDATION,
        minimum=1,
        unset="no validation; the last state is kept",
        help="Steps between validations, which re-rank candidates; the state with the best nDCG@10 is kept.",
    )
    patience: int | None = setting(
        None,
        panel=VALIDATION,
        minimum=1,
        unset="no early stopping",
        help="Stop early after this many validations without a gain.",
    )
    min_steps: int = setting(0, panel=VALIDATION, minimum=0, help="Do not stop early before this many steps.")
    eval_split: str = setting("dev", panel=VALIDATION, metavar="SPLIT", help="Validate on the queries of this split.")
    eval_queries: int | None = setting(
        100,
        panel=VALIDATION,
        minimum=1,
        help="Validate on this many judged queries of the split, the same sample every time.",
    )
    eval_candidates: str = setting(
        "bm25", panel=VALIDATION, metavar="NAME", help="Retriever whose lists are re-ranked in a validation."
    )
    eval_depth: int = setting(
        50, panel=VALIDATION, minimum=1, help="Number of passages of each list that are re-ranked in a validation."
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if not self.init:
            raise UsageError("no checkpoint to start from", todo="pass --init, or --recipe with a recipe that has it")
        self._check_source()
        if self.patience is not None and self.eval_steps is None:
            raise UsageError("--patience counts validations, and there are none", todo="pass --eval-steps N")

    def _check_source(self) -> None:
        """Check that the loss and the options fit the training data."""
        if self.triples and self.lists:
            raise UsageError(
                "--triples and --lists exclude each other",
                found=f"--triples {self.triples} --lists {self.lists}",
                todo="leave one of them out",
            )
        losses = [term.name for term in parse_loss(self.loss)]
        from_scores = [name for name in losses if name in NEEDS_TEACHER]
        if from_scores and self.triples is None and self.lists is None:
            raise UsageError(f"loss {from_scores[0]} learns from teacher scores", todo="pass --triples or --lists NAME")
        in_batch = [name for name in losses if name in NEEDS_IN_BATCH_TEACHER]
        if in_batch and self.in_batch_teacher is None:
            raise UsageError(f"loss {in_batch[0]} learns from an in-batch teacher", todo="pass --in-batch-teacher NAME")
        if self.in_batch_teacher is not None and not in_batch:
            expected = " or ".join(sorted(NEEDS_IN_BATCH_TEACHER))
            raise UsageError("no loss uses --in-batch-teacher", expected=f"--loss {expected}", found=self.loss)
        if self.one_per_query and self.triples is None:
            raise UsageError("--one-per-query needs triples", todo="pass --triples NAME")
        if self.agreement is not None and self.triples is None:
            raise UsageError("--agreement needs triples", todo="pass --triples NAME")

    def steps(self, rows: int) -> int:
        """Number of optimiser steps over `rows` rows; the last batch of an epoch may be smaller."""
        per_epoch = -(-rows // self.batch_size)
        return self.max_steps if self.max_steps is not None else max(1, round(per_epoch * self.epochs))

    def warmup(self, steps: int) -> int:
        """Number of steps over which the learning rate warms up, in a run of `steps` steps."""
        return round(self.warmup_share * steps) if self.warmup_steps is None else self.warmup_steps

    def as_dict(self) -> dict[str, Any]:
        """The settings as JSON values."""
        return asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainSettings:
        """Settings from the values of `as_dict`; settings that an older version did not have take their defaults."""
        return cls(**{**values, "student": StudentSettings(**values["student"])})
