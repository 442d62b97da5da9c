"""Reads and writes the Parquet files of the workspace's tables: checked schema, provenance in the footer, atomic."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import repeat
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import MissingError, WorkspaceError
from pipeline.fingerprint import digest_json
from pipeline.storage.atomic_files import atomic_write
from pipeline.storage.location import AnyPath, StorePath
from pipeline.tables.content import ContentHash
from pipeline.tables.parquet import open_parquet
from pipeline.tables.provenance import FOOTER_KEY, Footer, Recipe, read_footer

ROW_GROUP_ROWS = 131_072
READERS = 16
"""Number of footers read concurrently from a store."""


def part_name(number: int, prefix: str = "part") -> str:
    """File name of a numbered part.

    >>> part_name(3)
    'part-00003.parquet'
    """
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
    """Write rows and their footer to `path`; the file appears when it is complete.

    Batches may have their columns in another order or in wider types; they are cast to `schema`.

    Args:
        path: the file to write.
        batches: the rows.
        schema: the schema of the file.
        recipe: what the rows are made from.
        part: number of the file in its set, from 0.
        parts: number of files in the set, or 0 if the set only grows.
        extra: facts for the footer that are no part of the identity.
        plain: write without compression and dictionaries, which cost more time than they save space for numbers in
            random order.

    Raises:
        ValueError: a column that is not nullable contains a null, which is an error of the program.
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
    """Gather batches into tables of one full row group (the last may be smaller): bytes depend on rows alone."""
    pending: list[pa.RecordBatch] = []
    room = ROW_GROUP_ROWS
    for uncast in batches:
        batch = _cast(uncast, schema)
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
    """Open a finished file and read its footer; with `schema`, check that the file has it.

    Raises:
        WorkspaceError: the file is unreadable, has another schema, or has no provenance.
    """
    try:
        file = open_parquet(path)
    except (OSError, pa.ArrowException) as error:
        if isinstance(path, StorePath) and isinstance(error, OSError) and not isinstance(error, FileNotFoundError):
            raise  # the store failed, not the file: the caller may retry
        raise WorkspaceError(
            "unreadable Parquet file", where=path, found=error, todo="remove it and run its stage again"
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
    """The footer of a finished file; raises as `open_part`."""
    file, footer = open_part(path, schema)
    file.close()
    return footer


def read_part(path: AnyPath, schema: pa.Schema, columns: list[str] | None = None) -> tuple[pa.Table, Footer]:
    """Read a whole file and its footer; raises as `open_part`."""
    file, footer = open_part(path, schema)
    with file:
        return file.read(columns=columns), footer


def read_footers(paths: Sequence[AnyPath], schema: pa.Schema | None = None) -> list[Footer]:
    """Footers of files, in the order of `paths`; raises as `open_part`."""
    if any(isinstance(path, StorePath) for path in paths):
        # Each footer takes several requests, which wait for the network.
        with ThreadPoolExecutor(READERS) as readers:
            return list(readers.map(footer_of, paths, repeat(schema)))
    return [footer_of(path, schema) for path in paths]


def content_fingerprint(footers: Iterable[Footer]) -> str:
    """Content fingerprint of a set of files, from the content of each in order."""
    return digest_json([footer.content for footer in footers])


def is_made(paths: Sequence[AnyPath], recipe: Recipe) -> bool:
    """Whether the files are the complete set of this recipe."""
    footers = read_footers(paths)
    numbers = [footer.part for footer in footers]
    return bool(footers) and all(
        footer.fingerprint == recipe.fingerprint and numbers == list(range(footer.parts)) for footer in footers
    )


def require_complete(dataset: str, paths: Sequence[AnyPath], footers: list[Footer], todo: str) -> None:
    """Check that the files are the numbered parts of one complete set.

    Raises:
        WorkspaceError: files are missing, or parts of different sets are mixed.
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
