"""Settings of the pair shards, checked when built."""

from __future__ import annotations

from dataclasses import dataclass

from pipeline.settings import check_settings, setting


@dataclass(frozen=True)
class PairSettings:
    """Size of the shards, and the judged pairs that go into them."""

    pairs_per_shard: int = setting(
        500_000, minimum=1, help="Approximate number of pairs in a shard; all pairs of a query share a shard."
    )
    all_judged: bool = setting(False, help="Also include judged pairs of queries that were not mined.")

    def __post_init__(self) -> None:
        check_settings(self)
