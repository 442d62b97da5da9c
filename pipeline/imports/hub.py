"""Streams a table of a Hugging Face data set: from the hub, or from a directory with the same layout.

The names of its columns decide what a table holds: passages, queries, scores of pairs, or triples of ids with
numbered negatives. Its identity is the commit on the hub, or the bytes of the directory's files. No code of a data set
is executed: the `datasets` library refuses data sets that come with code.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Literal, get_args

import numpy as np
import pyarrow as pa

from pipeline.collection.importing import Rows
from pipeline.errors import InputError
from pipeline.fingerprint import digest_file, digest_json
from pipeline.imports.collection_source import CollectionSource
from pipeline.imports.intake import POSITIVES, CandidateBatch
from pipeline.imports.score_tables import PASSAGE, QUERY, SCORE, pairs_of, score_columns
from pipeline.imports.settings import HubKind, HubOptions
from pipeline.imports.text_rows import table_rows, titled
from pipeline.names import check_name

KINDS: tuple[HubKind, ...] = get_args(HubKind)
_ROWS_PER_BATCH = 16_384
_ID_NAMES = {"passages": (*PASSAGE, "docid", "_id"), "queries": ("query_id", "qid", "_id")}
_TEXT_NAMES = {"passages": ("passage", "text", "document", "contents"), "queries": ("query", "text")}
_NAMES = (_ID_NAMES, _TEXT_NAMES)
_TITLE = "title"


@dataclass(frozen=True)
class HubTable:
    """One split of one configuration of a data set."""

    name: str
    """Of the data set on the hub, or a directory."""
    config: str | None = None
    split: str = HubOptions.split
    revision: str | None = None

    @property
    def where(self) -> Path:
        """Data set, configuration and split, for messages and footers."""
        return Path("/".join(filter(None, [self.name, self.config, self.split])))

    @cached_property
    def content(self) -> str:
        """Fingerprint of everything that decides the rows.

        Raises:
            InputError: no such data set, or the hub cannot be reached.
        """
        if Path(self.name).is_dir():
            files = sorted(path for path in Path(self.name).rglob("*") if path.is_file())
            source = [[str(path.relative_to(self.name)), digest_file(path)] for path in files]
        else:
            source = [[self.name, self._commit()]]
        return digest_json([source, self.config, self.split])

    def _commit(self) -> str:
        from huggingface_hub import HfApi

        try:
            return str(HfApi().dataset_info(self.name, revision=self.revision).sha)
        except Exception as error:  # errors of the hub have no common root
            raise InputError("cannot be found on the hub", where=self.name, found=str(error)[:300]) from error

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Stream the rows, some thousand at a time.

        Raises:
            InputError: no such configuration or split, or the data cannot be read.
        """
        import datasets

        try:
            rows = datasets.load_dataset(
                self.name, self.config, split=self.split, revision=self.revision, streaming=True
            )
            for table in rows.with_format("arrow").iter(_ROWS_PER_BATCH):
                yield from table.combine_chunks().to_batches()
        except InputError:
            raise
        except Exception as error:  # errors of the library have no common root
            raise InputError("cannot be read", where=self.where, found=str(error)[:300]) from error

    @cached_property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        first = next(self.batches(), None)
        if first is None:
            raise InputError("no rows", where=self.where)
        return first.schema

    @property
    def kind(self) -> HubKind:
        """What the table holds, by the names of its columns.

        Raises:
            InputError: the names fit nothing, or several of `KINDS`.
        """
        names = set(self.schema.names)
        fitting: list[HubKind] = []
        if not (names.isdisjoint(QUERY) or names.isdisjoint(PASSAGE) or names.isdisjoint(SCORE)):
            fitting.append("scores")
        elif {"query", "positive"} <= names and any(name.startswith("negative") for name in names):
            fitting.append("triples")
        else:
            texts: tuple[HubKind, ...] = ("passages", "queries")
            fitting += [kind for kind in texts if self._text_columns(kind) is not None]
        if len(fitting) != 1:
            raise InputError(
                "cannot tell what it holds",
                where=self.where,
                expected=", ".join(KINDS),
                found=f"columns {', '.join(self.schema.names)}",
                todo="say so with --as",
            )
        return fitting[0]

    def _text_columns(self, kind: str) -> dict[str, str] | None:
        """Old name → new name of the columns with ids and texts; None if the table lacks them."""
        names = [next((name for name in known[kind] if name in self.schema.names), None) for known in _NAMES]
        return None if None in names or len(set(names)) < 2 else {str(names[0]): "external_id", str(names[1]): "text"}

    def collection(self, kind: Literal["passages", "queries"], split: str) -> CollectionSource:
        """The table as a collection of passages alone, or of the queries of a split alone.

        Raises:
            UsageError: a bad name for a split.
            InputError: no such data set, or the hub cannot be reached.
        """
        rows = Rows(self.where, partial(self.texts, kind), self.content)
        if kind == "passages":
            return CollectionSource("hub", rows)
        return CollectionSource("hub", queries=[(check_name("split", split), rows)])

    def texts(self, kind: Literal["passages", "queries"]) -> Iterator[pa.RecordBatch]:
        """Stream ids and texts of passages or queries; a passage's title comes before its text.

        Raises:
            InputError: the columns are missing, or hold nulls.
        """
        columns = self._text_columns(kind)
        if columns is None:
            expected = " and ".join("|".join(known[kind]) for known in _NAMES)
            raise InputError(f"no {kind}", where=self.where, expected=expected, found=", ".join(self.schema.names))
        batches, (text,) = self.batches(), (old for old, new in columns.items() if new == "text")
        if kind == "passages" and self._is_text(_TITLE) and self._is_text(text):
            batches = _titled(batches, text)
        return table_rows(batches, columns, self.where)

    def _is_text(self, name: str) -> bool:
        if name not in self.schema.names:
            return False
        data_type = self.schema.field(name).type
        return bool(pa.types.is_string(data_type) or pa.types.is_large_string(data_type))

    def scores(self) -> Iterator[CandidateBatch]:
        """Stream the scored pairs.

        Raises:
            InputError: the columns are missing, or hold nulls.
        """
        columns, first = score_columns(self.schema, self.where), 1
        for batch in self.batches():
            yield pairs_of(batch, columns, first, self.where)
            first += batch.num_rows

    def triples(self) -> Iterator[CandidateBatch]:
        """Stream the negatives of each row as a list, ranked in the order of their columns, and the positives.

        Raises:
            InputError: a column holds anything but integers.
        """
        negatives = [name for name in self.schema.names if name.startswith("negative")]
        first = 1
        for batch in self.batches():
            lines = np.arange(first, first + batch.num_rows)
            for rank, name in enumerate(negatives, 1):
                yield self._candidates(batch, name, lines, -rank, 0)
            yield self._candidates(batch, "positive", lines, 0, POSITIVES)
            first += batch.num_rows

    def _candidates(
        self, batch: pa.RecordBatch, name: str, lines: np.ndarray, score: int, list_number: int
    ) -> CandidateBatch:
        for column in ("query", name):
            if not pa.types.is_integer(batch.column(column).type) or batch.column(column).null_count:
                raise InputError(f"column {column} is not all ids", where=self.where, expected="integers")
        scores, lists = np.full(len(lines), float(score)), np.full(len(lines), list_number, np.int16)
        return CandidateBatch(lines, batch.column("query"), batch.column(name), scores, lists)


def _titled(batches: Iterator[pa.RecordBatch], text_column: str) -> Iterator[pa.RecordBatch]:
    """Put titles before the texts."""
    for batch in batches:
        titles, texts = (batch.column(name).to_pylist() for name in (_TITLE, text_column))
        joined = [
            None if text is None else titled(title or "", text) for title, text in zip(titles, texts, strict=True)
        ]
        index = batch.schema.get_field_index(text_column)
        yield batch.set_column(index, text_column, pa.array(joined, pa.string()))
