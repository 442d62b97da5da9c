"""Settings of the imports, checked when built. Loads no Arrow or DuckDB."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from pipeline.errors import UsageError
from pipeline.names import check_name
from pipeline.scores.settings import PairSettings
from pipeline.settings import check_settings, setting

ScoreForm = Literal["pickle", "kd", "parquet", "lists", "colbert", "tevatron", "run"]
"""Formats of score files; `score_files.FORMS` has their readers."""
HubKind = Literal["passages", "queries", "qrels", "scores", "triples", "lists"]
"""Contents of a Hugging Face data set."""


@dataclass(frozen=True)
class ScoreOptions:
    """How the scores of a file are imported."""

    form: ScoreForm | None = setting(
        None,
        metavar="FORMAT",
        unset="recognised by the file's name and first line",
        help="Format of the file: {choices}.",
    )
    as_pairs: bool = setting(False, flag=True, help="Replace the pairs of the workspace by the scored pairs.")
    pairs_per_shard: int = setting(
        PairSettings.pairs_per_shard, minimum=1, help="With --as-pairs: approximate number of pairs in a shard."
    )
    add_positives: bool = setting(
        False, flag=True, help="Add the positives of the file to the judgements, with grade 1."
    )
    strict: bool = setting(
        False, flag=True, help="Fail at the first unknown id or contradiction; without it they are counted."
    )
    overwrite: bool = setting(
        False, flag=True, help="Replace what has the same name in the workspace but came from another file."
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.add_positives and not self.as_pairs:
            raise UsageError("--add-positives changes the pairs", todo="pass --as-pairs too")


@dataclass(frozen=True)
class ListOptions:
    """How the candidate lists of a file are imported."""

    prefix: str = setting("", metavar="TEXT", help="Prepend this text to the name of each system.")
    add_positives: bool = setting(
        False, flag=True, help="Add the positives of the file to the judgements, with grade 1."
    )
    strict: bool = setting(
        False, flag=True, help="Fail at the first unknown id or contradiction; without it they are counted."
    )
    overwrite: bool = setting(
        False, flag=True, help="Replace what has the same name in the workspace but came from another file."
    )
    reconciled: bool = setting(
        False, option=None, help="Average contradicting scores of a pair; without it the highest counts."
    )

    def __post_init__(self) -> None:
        check_settings(self)
        if self.prefix:
            check_name("prefix", self.prefix)


@dataclass(frozen=True)
class HubOptions:
    """Which part of a Hugging Face data set is imported, and as what."""

    config: str | None = setting(None, metavar="NAME", unset="the only one", help="Configuration of the data set.")
    split: str = setting("train", metavar="SPLIT", help="Split of the data set.")
    revision: str | None = setting(
        None, metavar="REVISION", unset="the latest", help="Commit, branch or tag of the data set."
    )
    kind: HubKind | None = setting(
        None,
        option="--as",
        metavar="KIND",
        unset="recognised by the columns",
        help="Content of the data set: {choices}. Only the columns of this content are read; others are named.",
    )
    texts: bool = setting(
        False,
        flag=True,
        help="Look up queries and passages of scores, triples or lists by their text; the workspace must have them.",
    )

    def __post_init__(self) -> None:
        check_settings(self)
