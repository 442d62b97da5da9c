"""Reading and writing table files: the right schema, provenance in the footer, complete or absent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import MissingError, WorkspaceError
from pipeline.fingerprint import digest_json
from pipeline.storage.location import AnyPath, StorePath
from pipeline.storage.publishing import atomic_write
from pipeline.tables.content import ContentHash
from pipeline.tables.parquet import open_parquet
from pipeline.tables.provenance import FOOTER_KEY, Footer, Recipe, read_footer

ROW_GROUP_ROWS = 131_072
READERS = 16
"""Footers read at once from a store."""


def part_name(number: int, prefix: str = "part") -> str:
    """File name of a numbered part."""
    return f"{prefix}-{number:05d}.parquet"


def write_part(
    path: AnyPath,
    batches: Iterable[pa.RecordBatch],
    schema: pa.Schema,
    recipe: Recipe,
    *,
    part: int = 0,
    parts: int = 1,
    extra: Mapping[str, Any] | None = None,
    plain: bool = False,
) -> Footer:
    """Write rows to `path` with their footer; the file appears when complete.

    Batches may carry columns in another order or of a wider type; they are cast to `schema`, and a null in
    a column that has none is an error of this program, not of its user. `plain` is for numbers in random order,
    where dictionaries and compression cost more time than they save room.
    """
    content = ContentHash(schema)
    how = {"compression": "none", "use_dictionary": False} if plain else {"compression": "zstd"}
    with atomic_write(path) as stream, pq.ParquetWriter(stream, schema, **how) as writer:
        for group in _row_groups(batches, schema):
            for batch in group.to_batches():
                content.update(batch)
            writer.write_table(group, row_group_size=ROW_GROUP_ROWS)
        footer = Footer(recipe, content.hexdigest(), content.rows, part, parts, extra or {})
        writer.add_key_value_metadata({FOOTER_KEY.decode(): footer.encode().decode()})
    return footer


def _row_groups(batches: Iterable[pa.RecordBatch], schema: pa.Schema) -> Iterator[pa.Table]:
    """Gather batches into tables of exactly one row group (the last one fewer), so bytes depend on rows alone."""
    pending: list[pa.RecordBatch] = []
    room = ROW_GROUP_ROWS
    for given in batches:
        batch = _cast(given, schema)
        while batch.num_rows >= room:
            yield pa.Table.from_batches([*pending, batch.slice(0, room)]).combine_chunks()
            batch, pending, room = batch.slice(room), [], ROW_GROUP_ROWS
        if batch.num_rows:
            pending.append(batch)
            room -= batch.num_rows
    if pending:
        yield pa.Table.from_batches(pending).combine_chunks()


def _cast(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch:
    arrays = [batch.column(field.name).cast(field.type) for field in schema]
    for field, array in zip(schema, arrays, strict=True):
        if not field.nullable and array.null_count:
            raise ValueError(f"null in column {field.name}")
    return pa.RecordBatch.from_arrays(arrays, schema=schema)


def open_part(path: AnyPath, schema: pa.Schema | None = None) -> tuple[pq.ParquetFile, Footer]:
    """Open a finished file and read its footer; checks the schema if one is given.

    Raises:
        WorkspaceError: unreadable, of another schema, or without provenance.
    """
    try:
        file = open_parquet(path)
    except (OSError, pa.ArrowException) as error:
        if isinstance(path, StorePath) and isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise  # the store's fault, not the file's: worth another attempt
        raise WorkspaceError(
            "unreadable Parquet file", where=path, found=error, todo="remove it, run its stage again"
        ) from error
    footer = read_footer(str(path), file.metadata)
    if schema is not None and not file.schema_arrow.equals(schema, check_metadata=False):
        raise WorkspaceError(
            "wrong schema",
            where=path,
            expected=describe(schema),
            found=describe(file.schema_arrow),
            todo="remove the file and run the stage that makes it again",
        )
    return file, footer


def footer_of(path: AnyPath, schema: pa.Schema | None = None) -> Footer:
    """The footer of a finished file; checks the schema if one is given."""
    file, footer = open_part(path, schema)
    file.close()
    return footer


def read_part(path: AnyPath, schema: pa.Schema, columns: list[str] | None = None) -> tuple[pa.Table, Footer]:
    """A whole file and its footer."""
    file, footer = open_part(path, schema)
    with file:
        return file.read(columns=columns), footer


def set_footers(paths: Sequence[AnyPath], schema: pa.Schema | None = None) -> list[Footer]:
    """Footers of a set of files, in the order given; checks the schema if one is given."""
    if any(isinstance(path, StorePath) for path in paths):
        # Each is some requests that wait for the network.
        with ThreadPoolExecutor(READERS) as readers:
            return list(readers.map(footer_of, paths, repeat(schema)))
    return [footer_of(path, schema) for path in paths]


def set_content(footers: Iterable[Footer]) -> str:
    """Content fingerprint of a set of files: their contents in order."""
    return digest_json([footer.content for footer in footers])


def is_made(paths: Sequence[AnyPath], recipe: Recipe) -> bool:
    """Whether the files are the whole set that a recipe makes."""
    footers = set_footers(paths)
    numbers = [footer.part for footer in footers]
    return bool(footers) and all(
        footer.fingerprint == recipe.fingerprint and numbers == list(range(footer.parts)) for footer in footers
    )


def require_complete(dataset: str, paths: Sequence[AnyPath], footers: list[Footer], todo: str) -> None:
    """Check that the files are one whole set made by one recipe family.

    Raises:
        WorkspaceError: files are missing, or two sets are mixed.
    """
    if not paths:
        raise MissingError(f"no {dataset} yet", todo=todo)
    wanted = footers[0].parts
    numbers = [footer.part for footer in footers]
    if any(f.parts != wanted for f in footers) or numbers != list(range(wanted)):
        raise WorkspaceError(
            f"{dataset} incomplete or mixed",
            where=paths[0].parent,
            expected=f"parts 0 to {wanted - 1}",
            found=numbers,
            todo=todo,
        )


def describe(schema: pa.Schema) -> str:
    """Names and types of a schema on one line."""
    return ", ".join(f"{field.name} {field.type}" for field in schema)
