"""The formats by name: what writes each, what rows it asks for, and how its trainer reads the files."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pipeline.exports import lines as export_lines
from pipeline.exports import tables as export_tables
from pipeline.exports.card import Config
from pipeline.exports.text_lookup import TextLookup

_ST = "`train_dataset=load_dataset(DIRECTORY, split='train')`, with {}"


@dataclass(frozen=True)
class Format:
    """How a format is written and read."""

    write: Callable[[Any, TextLookup, Path], list[Config]]
    rows: Literal["triples", "positive", "query"]
    """Triples as they come, or what each positive or each query has."""
    usage: str
    """How its trainer reads it, for the card."""
    negatives: int | None = None
    """How many a group has, where nobody says; None is all there are."""
    even: bool = False
    """Whether every group must have as many."""
    content: Literal["texts", "ids", "either"] = "either"
    """Whether it has texts, which `--ids` can leave out of some."""


FORMATS = {
    "triplet": Format(export_tables.triplet, "triples", _ST.format("MultipleNegativesRankingLoss")),
    "margin": Format(export_tables.margin, "triples", _ST.format("MarginMSELoss")),
    "n-tuple": Format(export_tables.n_tuple, "positive", _ST.format("MarginMSELoss or DistillKLDivLoss"), 7, even=True),
    "labelled-list": Format(
        export_tables.labelled_list, "positive", _ST.format("ListNetLoss, RankNetLoss or LambdaLoss of CrossEncoder")
    ),
    "pylate": Format(
        export_tables.pylate,
        "positive",
        "`KDProcessing(queries, documents)` over `load_dataset(DIRECTORY, NAME, split='train')` of the three",
        31,
        even=True,
        content="texts",
    ),
    "colbert": Format(
        export_lines.colbert,
        "positive",
        "`Trainer(triples, queries, collection)` with examples.json, queries.tsv and collection.tsv of `numbered/`; "
        "or with examples.json beside it, where your own collection.tsv has these ids",
        63,
        even=True,
    ),
    "flag-embedding": Format(
        export_lines.flag_embedding,
        "query",
        "`--train_data DIRECTORY/train.jsonl --knowledge_distillation True --same_dataset_within_batch True`",
        content="texts",
    ),
    "tevatron": Format(
        export_lines.tevatron,
        "query",
        "`--dataset_name DIRECTORY`",
        content="texts",
    ),
    "lightning-ir": Format(
        export_lines.lightning_ir,
        "query",
        "`RunDataset('DIRECTORY/train.tsv', targets='score')` after "
        "`RegisterLocalDatasetCallback('train', docs='DIRECTORY/docs.jsonl', queries='DIRECTORY/queries.jsonl')`; "
        "or rename it to `NAME__DATASET.tsv` for the texts of a data set of ir_datasets",
    ),
    "kd": Format(export_lines.kd, "triples", "tab-separated, no header", content="ids"),
}
