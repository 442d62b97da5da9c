"""Tables of the Hugging Face hub, or of a directory with the same layout, read as a stream.

What a table holds is told by its columns: scores of pairs, passages, queries, or triples of ids with numbered
negatives. Identity is the commit on the hub, or the bytes of the directory's files. Nothing is executed: data
sets that come with code are refused by the `datasets` library.

Shapes: R rows of a batch, K negatives of a row.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa

from pipeline.errors import InputError
from pipeline.fingerprint import digest_file, digest_json
from pipeline.imports.intake import POSITIVES, Rows
from pipeline.imports.score_tables import PASSAGE, QUERY, SCORE, pairs_of, score_columns
from pipeline.imports.text_rows import table_rows, titled

Kind = Literal["scores", "passages", "queries", "triples"]
KINDS: tuple[Kind, ...] = ("scores", "passages", "queries", "triples")
_ROWS_PER_BATCH = 16_384
_ROW_NAMES = {"passages": (*PASSAGE, "docid", "_id"), "queries": ("query_id", "qid", "_id")}
_TEXT_NAMES = {"passages": ("passage", "text", "document", "contents"), "queries": ("query", "text")}
_TITLE = "title"


@dataclass(frozen=True)
class HubTable:
    """One split of one configuration."""

    name: str
    """On the hub, or a directory."""
    config: str | None = None
    split: str = "train"
    revision: str | None = None

    @property
    def where(self) -> Path:
        """For messages, and the name under which it is remembered."""
        return Path("/".join(filter(None, [self.name, self.config, self.split])))

    @cached_property
    def content(self) -> str:
        """Fingerprint of all that is read.

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
        except Exception as error:  # the hub's errors have no common root but this
            raise InputError("cannot be found on the hub", where=self.name, found=str(error)[:300]) from error

    def batches(self) -> Iterator[pa.RecordBatch]:
        """The rows, some thousand at a time.

        Raises:
            InputError: no such configuration or split, or unreadable.
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
        except Exception as error:  # the library's errors have no common root but this
            raise InputError("cannot be read", where=self.where, found=str(error)[:300]) from error

    @cached_property
    def schema(self) -> pa.Schema:
        """Names and types of the columns."""
        first = next(self.batches(), None)
        if first is None:
            raise InputError("no rows", where=self.where)
        return first.schema

    @property
    def kind(self) -> Kind:
        """What it holds, by its columns.

        Raises:
            InputError: that cannot be told.
        """
        names = set(self.schema.names)
        fitting: list[Kind] = []
        if not (names.isdisjoint(QUERY) or names.isdisjoint(PASSAGE) or names.isdisjoint(SCORE)):
            fitting.append("scores")
        elif {"query", "positive"} <= names and any(name.startswith("negative") for name in names):
            fitting.append("triples")
        else:
            texts: tuple[Kind, ...] = ("passages", "queries")
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
        found = [next((name for name in known[kind] if name in self.schema.names), None) for known in _NAMES]
        return None if None in found or len(set(found)) < 2 else {str(found[0]): "external_id", str(found[1]): "text"}

    def texts(self, kind: Literal["passages", "queries"]) -> Iterator[pa.RecordBatch]:
        """The rows of passages or queries, for an import of tables; a passage's title stands before its text.

        Raises:
            InputError: without the columns, or nulls in them.
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
        found = self.schema.field(name).type
        return bool(pa.types.is_string(found) or pa.types.is_large_string(found))

    def scores(self) -> Iterator[Rows]:
        """The scored pairs.

        Raises:
            InputError: without the columns, or nulls in them.
        """
        columns, first = score_columns(self.schema, self.where), 1
        for batch in self.batches():
            yield pairs_of(batch, columns, first, self.where)
            first += batch.num_rows

    def triples(self) -> Iterator[Rows]:
        """The negatives of each row as a list, in the order of their columns, and the positives.

        Raises:
            InputError: ids are texts in disguise or null.
        """
        negatives = [name for name in self.schema.names if name.startswith("negative")]
        first = 1
        for batch in self.batches():
            lines = np.arange(first, first + batch.num_rows)
            for rank, name in enumerate(negatives, 1):
                yield self._named(batch, name, lines, -rank, 0)
            yield self._named(batch, "positive", lines, 0, POSITIVES)
            first += batch.num_rows

    def _named(self, batch: pa.RecordBatch, name: str, lines: np.ndarray, score: int, list_number: int) -> Rows:
        for column in ("query", name):
            if not pa.types.is_integer(batch.column(column).type) or batch.column(column).null_count:
                raise InputError(f"column {column} is not all ids", where=self.where, expected="integers")
        scores, lists = np.full(len(lines), float(score)), np.full(len(lines), list_number, np.int16)
        return Rows(lines, batch.column("query"), batch.column(name), scores, lists)


def _titled(batches: Iterator[pa.RecordBatch], text: str) -> Iterator[pa.RecordBatch]:
    """Texts with their titles, where they have one."""
    for batch in batches:
        titles, texts = (batch.column(name).to_pylist() for name in (_TITLE, text))
        joined = [one if one is None else titled(title or "", one) for title, one in zip(titles, texts, strict=True)]
        yield batch.set_column(batch.schema.get_field_index(text), text, pa.array(joined, pa.string()))


_NAMES = (_ROW_NAMES, _TEXT_NAMES)
