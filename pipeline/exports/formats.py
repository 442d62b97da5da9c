"""The registry of export formats: what writes each, which rows it takes, and how its trainer reads the files.

To add a format, write a function `(rows, lookup, directory) -> list[Config]` in a module of this package and add one
entry to `FORMATS`. The command, its help, the card and the check of what `--overwrite` may replace all read the entry.
The writer is named, not imported, so that the command line can list the formats without loading Arrow.

    rows        what the function gets
    triples     batches of the triples, with query_id, positive_id, negative_id, both scores and the margin
    positive    `rows.Groups`: a query, one positive and its negatives
    query       `rows.Groups`: a query, positives that have the same negatives, and these; a query whose positives have
                different negatives gives several
    run         `rows.Groups`: a query, positives, and negatives that are in the set with every one of these positives
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pipeline.exports.card import Config
    from pipeline.exports.text_lookup import TextLookup

_PARQUET = r"{}/train-([0-9a-f]{{16}}-)?\d+\.parquet"  # earlier versions wrote no fingerprint
_ST = "`train_dataset=load_dataset(DIRECTORY, split='train')`, with {}"


@dataclass(frozen=True)
class Format:
    """How a format is written and read."""

    writer: str
    """Module of this package and function that writes it."""
    rows: Literal["triples", "positive", "query", "run"]
    """What the writer gets; see above. Whatever it is, a negative shares a row with no positive that it is not in the
    set with: a threshold holds in the files too."""
    usage: str
    """How its trainer reads it, for the card."""
    negatives: int | None = None
    """Negatives of a group without `--negatives`; None keeps all."""
    even: bool = False
    """Whether all groups must have the same number of negatives; those with fewer are left out and counted."""
    content: Literal["texts", "ids", "either"] = "either"
    """What the files hold; `either` are texts, or external ids with `--ids`."""
    files: tuple[str, ...] = (_PARQUET.format("train"),)
    """Regular expressions of all files that it may write beside the card; folders are written out."""
    caches: tuple[str, ...] = ()
    """Regular expressions of files and folders that its trainer leaves beside them; replaced with the export."""

    def write(self, rows: Any, lookup: TextLookup, directory: Path) -> list[Config]:
        """Write the files into a directory; returns the configurations that they make up."""
        module, function = self.writer.split(".")
        write: Callable[[Any, TextLookup, Path], list[Config]]
        write = getattr(import_module(f"pipeline.exports.{module}"), function)
        return write(rows, lookup, directory)


FORMATS = {
    "triplet": Format("tables.triplet", "triples", _ST.format("MultipleNegativesRankingLoss")),
    "margin": Format("tables.margin", "triples", _ST.format("MarginMSELoss")),
    "n-tuple": Format("tables.n_tuple", "positive", _ST.format("MarginMSELoss or DistillKLDivLoss"), 7, even=True),
    "labelled-list": Format(
        "tables.labelled_list", "positive", _ST.format("ListNetLoss, RankNetLoss or LambdaLoss of CrossEncoder")
    ),
    "pylate": Format(
        "tables.pylate",
        "positive",
        "`KDProcessing(queries, documents)` over `load_dataset(DIRECTORY, NAME, split='train')` of the three",
        31,
        even=True,
        content="texts",
        files=tuple(map(_PARQUET.format, ("train", "queries", "documents"))),
    ),
    "colbert": Format(
        "lines.colbert",
        "positive",
        "`Trainer(triples, queries, collection)` with examples.json, queries.tsv and collection.tsv of `numbered/`; "
        "or with examples.json beside it, where your own collection.tsv has these ids",
        63,
        even=True,
        files=(
            _PARQUET.format("train"),
            r"examples\.json",
            r"numbered/examples\.json",
            r"numbered/(queries|collection)\.tsv",
        ),
    ),
    "flag-embedding": Format(
        "lines.flag_embedding",
        "query",
        "`--train_data DIRECTORY/train.jsonl --knowledge_distillation True --same_dataset_within_batch True`",
        content="texts",
        files=(r"train\.jsonl",),
    ),
    "tevatron": Format(
        "lines.tevatron",
        "query",
        "`--dataset_name DIRECTORY`",
        content="texts",
        files=(r"train\.jsonl",),
    ),
    "lightning-ir": Format(
        "lines.lightning_ir",
        "run",
        "`RunDataset('DIRECTORY/train.tsv', targets='score')` after "
        "`RegisterLocalDatasetCallback('train', docs='DIRECTORY/docs.jsonl', queries='DIRECTORY/queries.jsonl')`; "
        "or rename it to `NAME__DATASET.tsv` for the texts of a data set of ir_datasets",
        files=(r"train\.tsv", r"(queries|docs)\.jsonl"),
        caches=(r"docs\.jsonl\.pklz4(/.+)?",),  # ir_datasets writes its look-up of texts there
    ),
    "kd": Format("lines.kd", "triples", "tab-separated, no header", content="ids", files=(r"train\.tsv",)),
}
