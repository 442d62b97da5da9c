"""Reads every file of a workspace and checks that its rows match its footer and that the files match each other.

In: a workspace. Out: problems, file by file. The loaders of the stages check footers; this module reads the rows.

Shapes: N rows of a file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from pipeline import schemas
from pipeline.errors import PrepError
from pipeline.scores.pair_texts import TextHashes
from pipeline.scores.pairs import PairSet, load_pairs
from pipeline.storage.location import AnyPath
from pipeline.storage.workspace import Workspace
from pipeline.tables.content import ContentHash
from pipeline.tables.parquet import read_columns
from pipeline.tables.parts import open_part
from pipeline.tables.provenance import Recipe

ROWS_PER_BATCH = 131_072
_AGAIN = "remove this file and run its stage again, which makes only what is missing: "
_TODO = {
    "passages": "restore this file from a copy, or import everything into a new workspace",
    "queries": "restore this file from a copy, or import everything into a new workspace",
    "qrels": "remove this file and import the judgements again",
    "retrieved": _AGAIN + "prep mine, or the import",
    "pairs": _AGAIN + "prep build-pairs",
    "scores": _AGAIN + "prep score, or the import",
    "triples": _AGAIN + "prep build-triples",
    "lists": _AGAIN + "prep build-lists",
}
_SCORE = "run prep score again, or the import; leave the files: scores of the same texts are taken from them"


@dataclass(frozen=True)
class Problem:
    """A fault of a file or a set."""

    path: AnyPath
    what: str
    todo: str = ""
    """How to mend it without losing what is good; empty if `what` says it."""


def data_problems(workspace: Workspace, on_file: Callable[[AnyPath], None] = lambda path: None) -> Iterator[Problem]:
    """All problems of the tables of a workspace; `on_file` is called after each file is read."""
    files = _Files(workspace, on_file)
    base = list(files.base_tables())
    yield from base
    if base:
        return  # every other table refers to these
    for system in workspace.names("retrieved"):
        for path in workspace.parts("retrieved", system):
            yield from files.rows(path, schemas.RETRIEVED, _finite("score"))
    if workspace.parts("pairs"):
        try:
            pairs = load_pairs(workspace)
        except PrepError as error:
            where = error.where if isinstance(error.where, AnyPath) else workspace.path("pairs")
            yield Problem(where, error.reason, error.todo or _TODO["pairs"])
        else:
            yield from files.pairs(pairs)
            yield from files.scores(pairs)
    for dataset, schema in (("triples", schemas.TRIPLES), ("lists", schemas.LISTS)):
        for name in workspace.names(dataset):
            for path in workspace.parts(dataset, name):
                yield from files.rows(path, schema)


class _Files:
    """Reads files one by one and yields their problems."""

    def __init__(self, workspace: Workspace, on_file: Callable[[AnyPath], None]) -> None:
        self._workspace, self._on_file = workspace, on_file
        self._texts = TextHashes(workspace)
        self._last: tuple[int, int] = (-1, -1)
        """Ids of the row before, across the files of a table."""
        self._recipe = Recipe("", {})
        """Of the file that was read last."""

    def base_tables(self) -> Iterator[Problem]:
        """Check passages, queries and qrels; ids of passages and queries must be row numbers."""
        for table, schema in (
            ("passages", schemas.PASSAGES),
            ("queries", schemas.QUERIES),
            ("qrels", schemas.QRELS),
            ("unknown_judgements", schemas.UNKNOWN_JUDGEMENTS),
        ):
            self._last = (-1, -1)
            for path in self._workspace.parts(table):
                yield from self.rows(path, schema, self._ids_go_up if table in ("passages", "queries") else None)

    def pairs(self, pairs: PairSet) -> Iterator[Problem]:
        """Check that pairs are sorted and unique, and that their texts are those that they were built from."""
        self._last = (-1, -1)
        schema = schemas.pairs(pairs.systems)
        for path, footer in zip(pairs.paths, pairs.footers, strict=True):
            yield from self.rows(path, schema, self._pairs_go_up)
            if not self._texts.fit(path, footer.extra["texts"]):
                todo = "run: prep build-pairs"
                yield Problem(path, "its ids have other texts now than when the pairs were built", todo)

    def scores(self, pairs: PairSet) -> Iterator[Problem]:
        """Check that each pair has a finite score, in the order of its shard, and that one model gave all scores."""
        for teacher in self._workspace.names("scores"):
            fingerprints = set()
            folder = self._workspace.current_path("scores", teacher)
            scored = set(self._workspace.parts("scores", teacher))
            for number, (pair_path, pair_footer) in enumerate(zip(pairs.paths, pairs.footers, strict=True)):
                path = folder / pair_path.name
                if path not in scored:
                    yield Problem(path, f"missing: shard {number} of {len(pairs.paths)} is not scored", _SCORE)
                    continue
                problems = list(self.rows(path, schemas.SCORES, _finite("score")))
                yield from problems
                if problems:
                    continue
                made = self._recipe
                fingerprints.add(made.settings.get("fingerprint"))
                if made.inputs.get("pairs") != pair_footer.extra["texts"]:
                    yield Problem(path, "scored from other pairs than the shard has now", _SCORE)
                elif not _same_ids(path, pair_path):
                    yield Problem(path, "its rows are not those of the pair shard, in order", _TODO["scores"])
            if len(fingerprints) > 1:
                yield Problem(
                    self._workspace.path("scores", teacher),
                    f"scores of {len(fingerprints)} models are mixed",
                    f"run: prep score --teacher {teacher}=CHECKPOINT --overwrite, which keeps the scores of this model",
                )

    def rows(
        self, path: AnyPath, schema: pa.Schema, check: Callable[[pa.RecordBatch], str | None] | None = None
    ) -> Iterator[Problem]:
        """Read a whole file: compare its schema, compare its rows with its footer, and run `check` on them."""
        try:
            problem = self._read(path, schema, check)
        except PrepError as error:
            problem = error.what
        except (OSError, pa.ArrowException) as error:
            problem = f"unreadable: {' '.join(str(error).split())[:200]}"
        self._on_file(path)
        if problem:
            yield Problem(path, problem, self._todo(path))

    def _todo(self, path: AnyPath) -> str:
        """Advice for a file that is damaged itself; its neighbours may be good."""
        inside = str(path).removeprefix(str(self._workspace.root)).strip("/")
        return _TODO[inside.partition("/")[0]]

    def _read(
        self, path: AnyPath, schema: pa.Schema, check: Callable[[pa.RecordBatch], str | None] | None
    ) -> str | None:
        file, footer = open_part(path, schema)
        self._recipe, content, wrong = footer.recipe, ContentHash(schema), None
        with file:
            for batch in file.iter_batches(ROWS_PER_BATCH):
                content.update(batch.cast(schema))
                wrong = wrong or (check(batch) if check else None)
        if content.hexdigest() != footer.content:
            return "its rows are not those that were written: the content fingerprint differs"
        return wrong

    def _ids_go_up(self, batch: pa.RecordBatch) -> str | None:
        ids = batch.column(0).to_numpy()
        if not len(ids):
            return None
        start, self._last = self._last[0] + 1, (int(ids[-1]), -1)
        if not np.array_equal(ids, np.arange(start, start + len(ids))):
            return f"its ids are not row numbers from {start} on"
        return None

    def _pairs_go_up(self, batch: pa.RecordBatch) -> str | None:
        query, passage = (batch.column(i).to_numpy().astype(np.int64) for i in (0, 1))
        if not len(query):
            return None
        keys = np.concatenate([[(self._last[0] << 32) | self._last[1]], (query << 32) | passage])
        before, self._last = self._last, (int(query[-1]), int(passage[-1]))
        if ((np.diff(keys) <= 0).any() and before != (-1, -1)) or (np.diff(keys[1:]) <= 0).any():
            return "pairs are not sorted, or a pair is there twice"
        return None


def _finite(column: str) -> Callable[[pa.RecordBatch], str | None]:
    def check(batch: pa.RecordBatch) -> str | None:
        broken = int(np.count_nonzero(~np.isfinite(batch.column(column).to_numpy())))
        return f"{broken} values of {column} are not finite" if broken else None

    return check


def _same_ids(path: AnyPath, pair_path: AnyPath) -> bool:
    columns = ["query_id", "passage_id"]
    scored, pairs = (read_columns(file, columns) for file in (path, pair_path))
    return bool(scored.cast(pairs.schema).equals(pairs)) if scored.schema.names == pairs.schema.names else False
