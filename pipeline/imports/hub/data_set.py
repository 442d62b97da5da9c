"""A table of a Hugging Face data set, from the hub or from a directory with the same layout, as a stream.

The names of its columns decide what it holds (`layouts`). Its identity is the commit on the hub, or the bytes of the
directory's files.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa

from pipeline.collection.importing import Rows
from pipeline.errors import InputError
from pipeline.fingerprint import digest_file, digest_json
from pipeline.imports.collection_source import JUDGEMENT_COLUMNS, CollectionSource
from pipeline.imports.columns import ColumnCheck, Layout, pick
from pipeline.imports.hub.files import SplitFiles, split_files
from pipeline.imports.hub.layouts import (
    ID_NAMES,
    TEXT_NAMES,
    TITLE,
    kind_of,
    list_rows,
    refuse_texts,
    text_columns,
)
from pipeline.imports.hub.lists import read_list_rows
from pipeline.imports.hub.rows import read_rows
from pipeline.imports.intake import CandidateBatch
from pipeline.imports.score_tables import PASSAGE, QUERY, check_columns, pairs_of, positives_column, score_columns
from pipeline.imports.settings import HubKind, HubOptions
from pipeline.imports.text_rows import table_rows, titled
from pipeline.names import check_name

_GRADES = ("score", "relevance", "rel", "grade", "label", "scores", "labels")


@dataclass(frozen=True)
class HubTable:
    """One split of one configuration of a data set."""

    name: str
    """Of the data set on the hub, or a directory."""
    config: str | None = None
    split: str = HubOptions.split
    revision: str | None = None
    explicit: HubKind | None = None
    """What the user says it holds."""
    texts_of: bool = False
    """Whether queries and passages of candidates are looked up by text."""
    unused: dict[str, None] = field(default_factory=dict)
    """Columns that are not used; filled while the rows are read."""

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
        if self._is_directory:
            source = [[name, digest_file(Path(self.name) / name)] for name in self._listed]
        else:
            source = [[self.name, self._info.sha]]
        more = ["strings"] if self.files.format in ("csv", "json") else []
        # The positives of tables with scores were not read before they had an identity of their own.
        if positives_column(self.schema.names) and _has_scores(self.schema):
            more.append("positives")
        return digest_json([source, self.config, self.split, *more, *(["texts"] if self.texts_of else [])])

    @property
    def _is_directory(self) -> bool:
        return Path(self.name).is_dir()

    @cached_property
    def _listed(self) -> list[str]:
        """All files of the data set, relative to its root."""
        if self._is_directory:
            root = Path(self.name)
            return [str(path.relative_to(root)) for path in sorted(root.rglob("*")) if path.is_file()]
        return [file.rfilename for file in self._info.siblings or []]

    @cached_property
    def _info(self) -> Any:
        from huggingface_hub import HfApi

        try:
            return HfApi().dataset_info(self.name, revision=self.revision)
        except Exception as error:  # errors of the hub have no common root
            raise InputError("cannot be found on the hub", where=self.name, found=str(error)[:300]) from error

    @cached_property
    def files(self) -> SplitFiles:
        """The files of the split.

        Raises:
            InputError: from `split_files`; or no such data set on the hub.
        """
        found = split_files(self.name, self.config, self.split, self.revision, self._listed)
        self.unused.update({f"the file {name}": None for name in found.others})
        return found

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Stream the rows, some thousand at a time.

        Raises:
            InputError: no such configuration or split, or the data cannot be read.
        """
        return read_rows(self.files)

    @cached_property
    def _first(self) -> pa.RecordBatch:
        first = next((batch for batch in self.batches() if batch.num_rows), None)
        if first is None:
            raise InputError("no rows", where=self.where)
        return first

    @property
    def schema(self) -> pa.Schema:
        """Names and types of the columns of the first rows."""
        return self._first.schema

    @cached_property
    def kind(self) -> HubKind:
        """What the table holds: as the user says, or by the names of its columns.

        Raises:
            InputError: the names fit nothing, or several kinds.
        """
        return self.explicit or kind_of(self._first, self.where)

    def _check(self, kind: str, used: frozenset[str]) -> ColumnCheck:
        return ColumnCheck(Layout(kind, used), self.where, lenient=self.explicit is not None, unused=self.unused)

    def _checked(self, check: ColumnCheck) -> Iterator[pa.RecordBatch]:
        """The rows, which may have other columns in every file."""
        for batch in self.batches():
            check.see(batch.schema.names)
            missing = sorted(check.layout.used - {TITLE} - set(batch.schema.names))
            if missing:
                raise InputError(
                    f"some rows have no column {missing[0]}", where=self.where, found=", ".join(batch.schema.names)
                )
            yield batch

    def collection(self, kind: Literal["passages", "queries", "qrels"], split: str) -> CollectionSource:
        """The table as a collection of passages alone, or of the queries or judgements of a split alone.

        Raises:
            UsageError: a bad name for a split.
            InputError: no such data set, or the hub cannot be reached.
        """
        if kind == "passages":
            rows = Rows(self.where, partial(self.texts, kind), self.content)
            return CollectionSource("hub", rows, unused_columns=self.unused)
        check_name("split", split)
        if kind == "queries":
            rows = Rows(self.where, partial(self.texts, kind), self.content)
            return CollectionSource("hub", queries=[(split, rows)], unused_columns=self.unused)
        rows = Rows(self.where, self.judgements, self.content)
        return CollectionSource("hub", qrels=[(split, rows)], keep_unknown=True, unused_columns=self.unused)

    def texts(self, kind: Literal["passages", "queries"]) -> Iterator[pa.RecordBatch]:
        """Stream ids and texts of passages or queries; a passage's title comes before its text.

        Raises:
            InputError: the columns are missing, hold nulls, or others change the meaning.
        """
        columns = text_columns(kind, self.schema.names)
        if columns is None:
            expected = " and ".join("|".join(known[kind]) for known in (ID_NAMES, TEXT_NAMES))
            raise InputError(f"no {kind}", where=self.where, expected=expected, found=", ".join(self.schema.names))
        id_column, text = columns
        pick([name for name in self.schema.names if name != text], ID_NAMES[kind], "id", self.where)
        pick([name for name in self.schema.names if name != id_column], TEXT_NAMES[kind], "text", self.where)
        has_title = kind == "passages" and TITLE in self.schema.names
        batches = self._checked(self._check(kind, frozenset([*columns, *([TITLE] if has_title else [])])))
        return table_rows(_titled(batches, text, self.where) if has_title else batches, columns, self.where)

    def judgements(self) -> Iterator[pa.RecordBatch]:
        """Stream query ids, passage ids and grades.

        Raises:
            InputError: the columns are missing, hold nulls, or others change the meaning.
        """
        names = [name for name in self.schema.names if name != "query"]
        roles = {"query": QUERY[:-1], "passage": PASSAGE, "grade": _GRADES}
        found = [pick(names, known, role, self.where) for role, known in roles.items()]
        if None in found:
            expected = ", ".join("|".join(known) for known in (QUERY, PASSAGE, _GRADES))
            raise InputError("no judgements", where=self.where, expected=expected, found=", ".join(self.schema.names))
        columns = dict(zip([str(name) for name in found], JUDGEMENT_COLUMNS, strict=True))
        return table_rows(
            self._checked(self._check("qrels", frozenset(columns))), columns, self.where, numbers=("grade",)
        )

    def scores(self) -> Iterator[CandidateBatch]:
        """Stream the scored pairs.

        Raises:
            InputError: the columns are missing, hold nulls or texts instead of ids, or others change the meaning.
        """
        rows = list_rows(self.schema.names, self.texts_of)
        if (rows and any(side.score for side in rows.sides)) or (rows and not _has_scores(self.schema)):
            yield from self._lists(scored=True)
            return
        columns, first = score_columns(self.schema, self.where, texts=self.texts_of), 1
        for batch in self.batches():
            check_columns(columns, batch.schema.names, self.where, self.unused, lenient=self.explicit is not None)
            if not self.texts_of:
                for name in columns[:2]:
                    refuse_texts(batch.column(name), name, self.where)
            for pairs in pairs_of(batch, columns, first, self.where):
                yield pairs._replace(unused=list(self.unused))
            first += batch.num_rows

    def lists(self) -> Iterator[CandidateBatch]:
        """Stream the negatives of each row as a list, ranked in their order, and the positives.

        Raises:
            InputError: the columns are missing, hold texts instead of ids, or others change the meaning.
        """
        return self._lists(scored=False)

    def _lists(self, *, scored: bool) -> Iterator[CandidateBatch]:
        rows = list_rows(self.schema.names, self.texts_of)
        if rows is None:
            expected = "a query, and columns of positives and negatives"
            raise InputError("no lists", where=self.where, expected=expected, found=", ".join(self.schema.names))
        used = rows.columns if scored else frozenset([rows.query, *(side.column for side in rows.sides)])
        check, first = self._check("lists", used), 1
        for batch in self._checked(check):
            if not self.texts_of:
                for name in (rows.query, *(side.column for side in rows.sides)):
                    refuse_texts(batch.column(name), name, self.where)
            yield from read_list_rows(batch, rows, first, check, scored=scored)
            first += batch.num_rows


def _has_scores(schema: pa.Schema) -> bool:
    return any(name in schema.names for name in ("score", "scores", "label", "labels"))


def _titled(batches: Iterator[pa.RecordBatch], text_column: str, where: Path) -> Iterator[pa.RecordBatch]:
    """Put titles before the texts."""
    for batch in batches:
        if TITLE not in batch.schema.names:
            yield batch
            continue
        titles, texts = (batch.column(name).to_pylist() for name in (TITLE, text_column))
        if not all(value is None or isinstance(value, str) for value in (*titles, *texts)):
            raise InputError("titles or texts are no strings", where=where, found=f"columns {TITLE}, {text_column}")
        joined = [
            None if text is None else titled(title or "", text) for title, text in zip(titles, texts, strict=True)
        ]
        index = batch.schema.get_field_index(text_column)
        yield batch.set_column(index, text_column, pa.array(joined, pa.string()))
