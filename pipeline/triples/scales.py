"""Warns where teachers are averaged whose scores have different scales, or do not correlate.

The mean of raw logits gives all teachers a say only if their logits spread about equally: a teacher with ten times the
spread of another decides nearly alone. It is no error, since it may be meant. Every command that averages warns of it.

Shapes: N pairs, K teachers.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np

from pipeline.tables.provenance import Footer
from pipeline.triples.ensemble import Ensemble, Sample
from pipeline.triples.settings import TripleSettings

MOST_RATIO = 3.0
"""Ratio of two teachers' spreads above which their mean follows the larger one."""
LEAST_CORRELATION = 0.2
"""Pearson correlation below which two teachers do not judge alike. Cross-encoders that work have 0.6 and more."""


def scale_warnings(
    ensemble: Ensemble, spread: Sequence[float], correlations: Sequence[Sequence[float]], *, fitted: bool = False
) -> list[str]:
    """Sentences about the scales of an ensemble's teachers; none if there is nothing to warn of.

    Args:
        ensemble: what is computed from the teachers' scores.
        spread: (K,) standard deviation of each teacher's raw logits.
        correlations: (K, K) Pearson correlations between the teachers.
        fitted: whether the weights were fitted to judged queries, and so to the scales.

    >>> scale_warnings(Ensemble.mean(["a", "b"]), [1.0, 8.0], [[1, 0.9], [0.9, 1]])[0][:51]
    'the spreads of the teachers differ by a factor of 8'
    """
    used = [i for i, weight in enumerate(ensemble.weights) if weight > 0]
    names = ensemble.teachers
    found = []
    if not fitted and len(used) > 1:
        scaled = {i: spread[i] / ensemble.scales[i] for i in used}
        shares = {i: ensemble.weights[i] * scaled[i] for i in used}
        # Weights that make up for the scales are no mistake, and weights on equal scales are a choice.
        if min(_ratio(scaled), _ratio(shares)) > MOST_RATIO:
            shown = ", ".join(f"{names[i]} {spread[i]:.3g}" for i in used)
            most = names[max(shares, key=lambda i: shares[i])]
            factor = f"by a factor of {_ratio(scaled):.3g}" if min(scaled.values()) > 0 else "without bound"
            found.append(
                f"the spreads of the teachers differ {factor} (standard deviations of raw logits: {shown}), so their "
                f"mean mostly follows {most}"
            )
    unlike = [(i, j) for i, j in combinations(used, 2) if correlations[i][j] < LEAST_CORRELATION]
    if unlike:
        shown = ", ".join(f"{names[i]} and {names[j]} {correlations[i][j]:.2f}" for i, j in unlike)
        found.append(
            f"teachers do not correlate ({shown}): one may be broken, or give relevant passages low scores; leave it "
            "out with --teacher"
        )
    return found


def recorded_warnings(footer: Footer) -> list[str]:
    """The warnings about a set of triples or lists; those about spreads only if its version recorded them."""
    extra, settings = footer.extra, footer.recipe.settings
    if not {"ensemble", "correlations"} <= extra.keys():
        return []
    ensemble = Ensemble.from_dict(extra["ensemble"])
    spread = extra.get("spreads", {})
    known = [spread.get(name, ensemble.scales[i]) for i, name in enumerate(ensemble.teachers)]
    return scale_warnings(ensemble, known, extra["correlations"], fitted=is_fitted(settings))


def is_fitted(settings: Any) -> bool:
    """Whether settings, as saved with a set, fit the weights of the teachers."""
    return settings["ensemble"] == "weighted" and settings["weights"] is None


def zscore_threshold(settings: TripleSettings, ensemble: Ensemble, sample: Sample) -> float | None:
    """The threshold on the mean of z-scores that keeps as many of the sample's candidates as `settings` do.

    Teachers with constant scores, which have no z-scores, do not count. None if there is no threshold or no candidate.
    """
    margins, spread = sample.margins(), sample.spread
    if settings.threshold is None or not len(margins) or not (spread > 0).any():
        return None
    now = ensemble.combine(margins)
    scaled = np.sort((margins / spread)[:, spread > 0].mean(axis=1))
    below = int((now < settings.threshold).sum())
    edge = scaled[below] if below < len(scaled) else np.nextafter(scaled[-1], np.inf)
    return float(np.floor(edge * 1000) / 1000)


def _ratio(values: dict[int, float]) -> float:
    low, high = min(values.values()), max(values.values())
    return high / low if low > 0 else float("inf") if high > 0 else 1.0
