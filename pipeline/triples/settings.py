"""Settings of `build-triples`, `build-lists` and `explore-threshold`, checked when built.

`TripleSettings` decide the rows and are saved in every file of a set; `Resources` change nothing but the speed.
Standard library only.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from pipeline.errors import UsageError
from pipeline.settings import check_settings, option_of, setting

FILTERS, NEGATIVES, ENSEMBLE, RESOURCES = "Filters", "Rows", "Ensemble", "Resources"

Anchor = Literal["own", "min"]
EnsembleKind = Literal["mean", "weighted", "zscore"]
Strategy = Literal["top", "random", "log_random"]
Pairing = Literal["judged", "scored"]


@dataclass(frozen=True)
class TripleSettings:
    """Settings that decide which triples or lists are built. Bounds are inclusive."""

    threshold: float | None = setting(
        3.0,
        panel=FILTERS,
        none="none",
        help="Keep negatives whose ensemble score, a raw logit, is at least this far below their positive's; none "
        "keeps all.",
    )
    threshold_on: str = setting(
        "mean",
        panel=FILTERS,
        metavar="WHICH",
        help="Margins that must reach --threshold: the ensemble's (mean), every teacher's (all), at least one "
        "teacher's (any), or those of at least this many teachers (a number).",
    )
    anchor: Anchor = setting(
        "own",
        panel=FILTERS,
        help="Positive that --threshold is measured from: the triple's positive (own), or the positive of the query "
        "with the lowest score (min).",
    )
    relative_margin: float | None = setting(
        None,
        panel=FILTERS,
        minimum=0,
        help="Keep negatives with a margin of at least this fraction of the positive's absolute score.",
    )
    min_score: float | None = setting(
        None, panel=FILTERS, help="Skip negatives with an ensemble score below this raw logit."
    )
    max_score: float | None = setting(
        None, panel=FILTERS, help="Skip negatives with an ensemble score above this raw logit."
    )
    rank_from: int | None = setting(
        None,
        panel=FILTERS,
        minimum=1,
        help="Skip negatives that any retriever ranks above this position, counted from 1, and negatives that no "
        "retriever returned.",
    )
    rank_to: int | None = setting(
        None,
        panel=FILTERS,
        minimum=1,
        help="Skip negatives ranked below this position by every retriever, and negatives that no retriever returned.",
    )
    max_margin_std: float | None = setting(
        None,
        panel=FILTERS,
        minimum=0,
        help="Skip triples whose teachers disagree more than this: the standard deviation of their margins.",
    )
    negatives_per_query: int | None = setting(
        None,
        panel=NEGATIVES,
        minimum=1,
        unset="all",
        help="Keep at most this many negatives for each positive of a query, chosen by --strategy.",
    )
    negatives_per_system: int | None = setting(
        None,
        panel=NEGATIVES,
        minimum=1,
        unset="all",
        help="Take at most this many negatives for each positive from each retriever, in the order of its ranks and "
        "without those that another retriever gave already.",
    )
    strategy: Strategy = setting(
        "random",
        panel=NEGATIVES,
        help="Negatives that are kept if there are more than the limit: those with the highest scores (top), a random "
        "sample (random), or a random sample that favours high scores (log_random).",
    )
    pairs: Pairing = setting(
        "judged",
        panel=NEGATIVES,
        help="Queries without a judged positive give no triples (judged), or have their passages paired with each "
        "other by score (scored, with --threshold none).",
    )
    collapse_duplicates: bool = setting(
        False,
        panel=NEGATIVES,
        flag=True,
        help="Keep one passage of each normalised text among a query's positives, and one among its negatives.",
    )
    ensemble: EnsembleKind = setting(
        "mean",
        panel=ENSEMBLE,
        help="Combine teachers by the mean of their raw logits (mean), a weighted mean (weighted), or the mean of "
        "logits divided by each teacher's spread (zscore).",
    )
    weights: Mapping[str, float] | None = setting(
        None,
        option="--weight",
        panel=ENSEMBLE,
        metavar="TEACHER=NUMBER",
        minimum=0,
        unset="fitted on judged queries",
        help="Weight of a teacher in --ensemble weighted. Repeatable.",
    )
    seed: int = setting(0, panel=NEGATIVES, help="Seed of random choices and of the shuffle.")
    split: str = setting("train", panel=NEGATIVES, metavar="SPLIT", help="Use the queries of this split only.")
    relevance_level: int = setting(
        1,
        panel=NEGATIVES,
        minimum=1,
        help="Lowest grade that counts as relevant; unjudged passages and those of grade 0 or below are negatives.",
    )

    def __post_init__(self) -> None:
        check_settings(self)
        for low, high in (("min_score", "max_score"), ("rank_from", "rank_to")):
            first, last = getattr(self, low), getattr(self, high)
            if first is not None and last is not None and first > last:
                words = [option_of(TripleSettings, name).word for name in (low, high)]
                raise UsageError(f"{words[0]} is above {words[1]}", found=f"{first} and {last}")
        self._check_together()

    def _check_together(self) -> None:
        if self.threshold_on not in ("mean", "all", "any") and not (
            self.threshold_on.isdecimal() and int(self.threshold_on)
        ):
            expected = "mean, all, any or a number of teachers"
            raise UsageError("malformed --threshold-on", expected=expected, found=repr(self.threshold_on))
        if self.pairs == "scored" and self.threshold is not None:
            raise UsageError("--pairs scored has no positive to measure --threshold from", todo="add --threshold none")
        if self.weights is not None and self.ensemble != "weighted":
            raise UsageError("--weight needs --ensemble weighted", found=f"--ensemble {self.ensemble}")
        if self.weights is not None and not any(self.weights.values()):
            raise UsageError("all weights are 0", expected="--weight above 0 for a teacher", found=dict(self.weights))

    def least_agreeing(self, teachers: int) -> int | None:
        """How many of the `teachers` must have a margin that reaches the threshold; None if the ensemble's margin must.

        Raises:
            UsageError: `threshold_on` is a larger number.
        """
        if self.threshold_on == "mean":
            return None
        least = {"all": teachers, "any": 1}.get(self.threshold_on) or int(self.threshold_on)
        if least > teachers:
            raise UsageError("--threshold-on exceeds the number of teachers", expected=teachers, found=least)
        return least

    @property
    def limits_differ_by_positive(self) -> bool:
        """Whether a limit on negatives can keep different negatives for two positives of a query.

        It cannot if all filters give the same verdict on a negative for each of them.
        """
        limited = self.negatives_per_query is not None or self.negatives_per_system is not None
        by_own_score = self.anchor == "own" and (self.threshold is not None or self.relative_margin is not None)
        return limited and (by_own_score or self.max_margin_std is not None)

    def __hash__(self) -> int:
        values = {**vars(self), "weights": tuple(sorted(self.weights.items())) if self.weights else None}
        return hash(tuple(values.values()))


@dataclass(frozen=True)
class Resources:
    """Limits of a build; they do not change its result."""

    processes: int | None = setting(
        None,
        panel=RESOURCES,
        minimum=1,
        unset="one per core, if there is enough work",
        help="Number of worker processes.",
    )
    threads: int | None = setting(
        None,
        panel=RESOURCES,
        minimum=1,
        unset="the cores divided among the processes",
        help="Database threads of each process.",
    )
    memory_limit: str = setting(
        "4GB",
        panel=RESOURCES,
        metavar="SIZE",
        help="Memory that each process's database may use before it spills to disk.",
    )
    temp_directory: Path | None = setting(
        None,
        panel=RESOURCES,
        metavar="DIRECTORY",
        unset="in the workspace, or on this disk if the workspace is in an object store",
        help="Directory for intermediate rows and for databases that spill.",
    )

    def __post_init__(self) -> None:
        check_settings(self)
