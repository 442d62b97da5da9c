"""Compare `build-triples` on synthetic data with a plain scan of the same files and with other implementations.

    python benchmarks/triples.py --pairs 160000000 --teachers 3 --json triples.json
    python benchmarks/triples.py --pairs 16000000 --teachers 3 --peers

Each query has one judged positive and 199 candidates. `scan` is the median of three warm runs of
`sum(hash(columns(*)))` over pairs and scores with two threads. The build (filter, shuffle, write) starts from a
finished workspace; the table of passages with the same text is made before and timed separately. With --peers, no
implementation shuffles, and all must agree in count and content hash. Polars is left out if it is not installed, and
the dictionaries run on a hundredth of the queries.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from itertools import pairwise
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
from meter import Meter

from pipeline import schemas
from pipeline.collection.selection import selected_before
from pipeline.collection.texts_by_content import same_texts
from pipeline.scores.pairs import pairs_recipe
from pipeline.scores.scores import score_recipe
from pipeline.storage.workspace import Workspace
from pipeline.tables.database import connect, sql
from pipeline.tables.parts import content_fingerprint, part_name, read_footers, write_part
from pipeline.tables.provenance import Footer, Recipe
from pipeline.triples.build import TRIPLES, Resources, TripleSettings, build_triples, make_plan
from pipeline.triples.inputs import current_scored_pairs
from pipeline.triples.shard import ShardWorker

PER_QUERY = 200
PAIRS_PER_SHARD = 500_000
THRESHOLD = 3.0
PASSAGES_PER_PAIR = 1 / 18
# Equal for the same rows in any order: the sum of their hashes.
CONTENT = "count(*), sum(hash(query_id, positive_id, negative_id, positive_score, negative_score, margin))::VARCHAR"


def make(folder: Path, pairs: int, teachers: int) -> None:
    """Make a workspace with this number of pairs and teachers."""
    ws = Workspace.open(str(folder), create=True)
    queries, passages = max(1, pairs // PER_QUERY), max(2 * PER_QUERY, int(pairs * PASSAGES_PER_PAIR))
    made = Recipe("synthetic", {})
    for table, count, schema in (("passages", passages, schemas.PASSAGES), ("queries", queries, schemas.QUERIES)):
        write_part(ws.path(table, part_name(0)), _texts(count, schema), schema, made)
    qrels = [pa.RecordBatch.from_pydict({"query_id": [0], "passage_id": [0], "grade": [1]}, schema=schemas.QRELS)]
    write_part(ws.path("qrels", part_name(0)), qrels, schemas.QRELS, made)
    passages_content = content_fingerprint(read_footers(ws.parts("passages")))
    selected = next(selected_before(ws, "train", None))
    row = {"query_id": [0], "passage_id": [1], "rank": [1], "score": [1.0]}
    write_part(
        ws.path("retrieved", "bm25", part_name(0, "train")),
        [pa.RecordBatch.from_pydict(row, schema=schemas.RETRIEVED)],
        schemas.RETRIEVED,
        Recipe("retrieved", {"split": "train", "system": "bm25"}, {"passages": passages_content, "queries": selected}),
    )
    recipe = pairs_recipe(ws, PAIRS_PER_SHARD, False)
    shards = max(1, round(pairs / PAIRS_PER_SHARD))
    cuts = [queries * i // shards for i in range(shards + 1)]
    for number, (first, end) in enumerate(pairwise(cuts)):
        _make_shard(ws, recipe, number, shards, (first, end), passages, teachers)


def _texts(count: int, schema: pa.Schema) -> Any:
    for first in range(0, count, 1 << 17):
        ids = np.arange(first, min(count, first + (1 << 17)), dtype=np.int32)
        texts = pa.array(np.char.add("text ", ids.astype(str)))
        columns = {schema.names[0]: ids, "external_id": texts, "text": texts, "text_hash": ids.astype(np.uint64)}
        if "splits" in schema.names:
            columns["splits"] = pa.array([["train"]] * len(ids))
        yield pa.RecordBatch.from_pydict(columns, schema=schema)


def _make_shard(
    ws: Workspace, recipe: Recipe, number: int, shards: int, queries: tuple[int, int], passages: int, teachers: int
) -> Footer:
    rng = np.random.default_rng((7, number))
    first, end = queries
    query = np.repeat(np.arange(first, end, dtype=np.int32), PER_QUERY)
    # Ascending and unique: one passage from each of PER_QUERY equal ranges.
    width = passages // PER_QUERY
    passage = np.tile(np.arange(PER_QUERY, dtype=np.int32) * width, end - first)
    passage += rng.integers(0, width, len(passage), dtype=np.int32)
    position = np.tile(np.arange(PER_QUERY), end - first)
    relevant = position == np.repeat(rng.integers(0, PER_QUERY, end - first), PER_QUERY)
    schema = schemas.pairs(["bm25"])
    rank = pa.array((position * 7 % PER_QUERY + 1).astype(np.int16))
    grade = pa.array(np.ones(len(query), np.int8), mask=~relevant)
    columns = [pa.array(query), pa.array(passage), grade, rank]
    extra = {"texts": f"synthetic {number}", "first_query": first, "last_query": end - 1}
    extra |= {"queries": end - first, "judged": end - first, "unmined_judgements": 0}
    path = ws.path("pairs", part_name(number))
    footer = write_part(
        path,
        [pa.RecordBatch.from_arrays(columns, schema=schema)],
        schema,
        recipe,
        part=number,
        parts=shards,
        extra=extra,
    )
    truth = np.where(relevant, 5.0, 0.0) + rng.normal(0, 2, len(query))
    for teacher in range(teachers):
        score = (truth + rng.normal(0, 1, len(query))).astype(np.float32)
        batch = pa.RecordBatch.from_arrays([columns[0], columns[1], pa.array(score)], schema=schemas.SCORES)
        described = {"fingerprint": f"synthetic {teacher}"}
        path = ws.path("scores", f"teacher{teacher}", part_name(number))
        made = score_recipe(described, footer)
        write_part(path, [batch], schemas.SCORES, made, part=number, parts=shards)
    return footer


def files(ws: Workspace, *dataset: str) -> str:
    return "read_parquet('" + str(ws.path(*dataset)) + "/*.parquet', hive_partitioning = false)"


def scan_seconds(ws: Workspace) -> float:
    """Median of three warm scans of pairs and scores."""
    tables = [files(ws, "pairs"), *(files(ws, "scores", name) for name in ws.names("scores"))]
    with duckdb.connect(config={"threads": "2"}) as connection:
        seconds = []
        for _ in range(4):
            started = time.perf_counter()
            for table in tables:
                connection.execute(f"SELECT sum(hash(columns(*))) FROM {table}").fetchall()
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])


def content(table: str) -> list[Any]:
    with duckdb.connect(config={"threads": "2"}) as connection:
        return list(connection.execute(f"SELECT {CONTENT} FROM {table}").fetchall()[0])


def written(query: str, path: Path) -> str:
    return f"COPY ({query}) TO '{path}' (FORMAT parquet, COMPRESSION uncompressed)"


# Each implementation runs in a new process: `way(workspace, folder)` writes triples as Parquet under `folder`.


def ours(ws: Workspace, folder: Path, processes: int) -> None:
    build_triples(ws, TripleSettings(THRESHOLD), name=folder.name, resources=Resources(processes=processes))


def unshuffled(ws: Workspace, folder: Path) -> None:
    """Ours without the shuffle: two workers filter the shards, and write each as it is."""
    folder.mkdir(parents=True)
    scored = current_scored_pairs(ws)
    plan, _ = make_plan(ws, scored, TripleSettings(THRESHOLD), TRIPLES, Resources(threads=1), folder, folder / "spill")
    numbers = iter(range(len(plan.shards)))

    def work(_: int) -> None:
        with ShardWorker(plan) as worker:
            for number in numbers:
                worker.load(number)
                worker.measure()
                worker.connection.execute(written(sql("triples/kept"), folder / part_name(number)))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(work, range(2)))


def group_by(ws: Workspace, folder: Path) -> None:
    """One SQL statement over all files: group the scores of all teachers by pair, then join with the positives."""
    names = ws.names("scores")
    each_file = (f"SELECT *, {i} AS t FROM {files(ws, 'scores', name)}" for i, name in enumerate(names))
    teachers = " UNION ALL ".join(each_file)
    each = ", ".join(f"max(score::DOUBLE) FILTER (t = {i}) AS s_{i}" for i in range(len(names)))
    margin = f"(p.total - n.total) / {len(names)}"
    squares = " + ".join(f"power(p.s_{i} - n.s_{i} - {margin}, 2)" for i in range(len(names)))
    folder.mkdir(parents=True)
    with duckdb.connect(config={"threads": "2", "temp_directory": str(folder / "spill")}) as connection:
        connection.execute(
            written(
                f"""WITH ensemble AS (
                    SELECT query_id, passage_id, sum(score::DOUBLE) AS total, {each}
                    FROM ({teachers}) GROUP BY query_id, passage_id
                ),
                scored AS (SELECT * FROM ensemble JOIN {files(ws, "pairs")} USING (query_id, passage_id))
                SELECT p.query_id AS query_id, p.passage_id AS positive_id, n.passage_id AS negative_id,
                       (p.total / {len(names)})::FLOAT AS positive_score,
                       (n.total / {len(names)})::FLOAT AS negative_score,
                       ({margin})::FLOAT AS margin, sqrt(({squares}) / {len(names)})::FLOAT AS margin_std
                FROM scored AS p JOIN scored AS n ON p.query_id = n.query_id
                WHERE p.grade >= 1 AND coalesce(n.grade, 0) <= 0 AND {margin} >= {THRESHOLD}""",
                folder / "part.parquet",
            )
        )


def polars_streaming(ws: Workspace, folder: Path) -> None:
    """Joins of lazy frames, written by the streaming engine."""
    import polars as pl

    folder.mkdir(parents=True)
    keys = ["query_id", "passage_id"]
    frame = pl.scan_parquet(str(ws.path("pairs")) + "/*.parquet")
    names = ws.names("scores")
    for name in names:
        scores = pl.scan_parquet(str(ws.path("scores", name)) + "/*.parquet")
        frame = frame.join(scores.rename({"score": name}), on=keys)
    total = pl.sum_horizontal(pl.col(name).cast(pl.Float64) for name in names)
    frame = frame.with_columns(total.alias("score")).select(*keys, "grade", "score")
    positive = frame.filter(pl.col("grade") >= 1).select("query_id", positive_id="passage_id", p="score")
    negative = frame.filter(pl.col("grade").fill_null(0) <= 0).select("query_id", negative_id="passage_id", n="score")
    joined = negative.join(positive, on="query_id").with_columns(margin=(pl.col("p") - pl.col("n")) / len(names))
    kept = joined.filter(pl.col("margin") >= THRESHOLD)
    numbers = {"positive_score": "p", "negative_score": "n", "margin": "margin"}
    divisors = {"p": len(names), "n": len(names), "margin": 1}
    columns = [(pl.col(column) / divisors[column]).cast(pl.Float32).alias(name) for name, column in numbers.items()]
    kept.select("query_id", "positive_id", "negative_id", *columns).sink_parquet(
        folder / "part.parquet", engine="streaming"
    )


def dictionaries(ws: Workspace, folder: Path) -> None:
    """Python loops over a dictionary of dictionaries that holds every score."""
    import pyarrow.parquet as pq

    scores: dict[int, dict[int, float]] = {}
    names, grades = ws.names("scores"), {}
    for number, path in enumerate(ws.parts("pairs")):
        table = pq.read_table(path)
        columns = [pq.read_table(ws.parts("scores", name)[number]).column("score").to_pylist() for name in names]
        rows = zip(
            *(table.column(name).to_pylist() for name in ("query_id", "passage_id", "grade")), *columns, strict=True
        )
        for query, passage, grade, *logits in rows:
            scores.setdefault(query, {})[passage] = sum(logits)
            if grade:
                grades.setdefault(query, []).append(passage)
    found: dict[str, list[Any]] = {name: [] for name in schemas.TRIPLES.names[:6]}
    for query, positives in grades.items():
        for positive in positives:
            for negative, score in scores[query].items():
                total = scores[query][positive]
                margin = (total - score) / len(names)
                if negative not in positives and margin >= THRESHOLD:
                    row = (query, positive, negative, total / len(names), score / len(names), margin)
                    for name, value in zip(found, row, strict=True):
                        found[name].append(value)
    folder.mkdir(parents=True)
    schema = pa.schema([schemas.TRIPLES.field(name) for name in found])
    pq.write_table(pa.table(found, schema=schema), folder / "part.parquet")


def measured(way: str, ws: Workspace, *more: str) -> dict[str, Any]:
    """Run an implementation in a new process: its seconds and the peak memory of its process tree."""
    meter = Meter()
    with meter.watch():
        command = [sys.executable, __file__, "--run", way, str(ws.root), *more]
        subprocess.run(command, check=True)
    return {"seconds": meter.wall_s, "cpu_seconds": meter.cpu_s, "peak_rss_gb": meter.peak_gb}


WAYS = {"unshuffled": unshuffled, "group_by": group_by, "polars": polars_streaming, "dictionaries": dictionaries}


def compare(ws: Workspace, pairs: int, teachers: int, folder: Path) -> dict[str, Any]:
    """Ours without the shuffle and the other implementations; the dictionaries and ours on a hundredth."""
    ways = ["unshuffled", "group_by", *(["polars"] if find_spec("polars") else [])]
    found = {}
    for way in ways:
        found[way] = measured(way, ws, str(folder / way))
        found[way]["content"] = content(f"read_parquet('{folder / way}/*.parquet', hive_partitioning = false)")
        shutil.rmtree(folder / way)
    if len({str(facts["content"]) for facts in found.values()}) > 1:
        raise SystemExit(f"the ways disagree: {found}")
    small = Workspace(folder / "hundredth")
    make(small.root, max(PER_QUERY, pairs // 100), teachers)
    for way in ("unshuffled", "dictionaries"):
        name = f"{way}_hundredth"
        found[name] = measured(way, small, str(folder / name))
        found[name]["content"] = content(f"read_parquet('{folder / name}/*.parquet', hive_partitioning = false)")
        shutil.rmtree(folder / name)
    if found["unshuffled_hundredth"]["content"] != found["dictionaries_hundredth"]["content"]:
        raise SystemExit(f"the ways disagree: {found}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=16_000_000)
    parser.add_argument("--teachers", type=int, default=3)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument(
        "--data", type=Path, help="folder for the files, or of files kept by --keep [a temporary folder]"
    )
    parser.add_argument("--keep", action="store_true", help="do not remove the files")
    parser.add_argument("--peers", action="store_true", help="also measure the other implementations")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        way, root, *more = options.run
        ws = Workspace.open(root)
        if way == "ours":
            ours(ws, Path("made"), int(more[0]))
        else:
            WAYS[way](ws, Path(more[0]))
        return
    folder = options.data or Path(tempfile.mkdtemp(prefix="triples-"))
    try:
        facts = benchmark(folder, options)
    finally:
        if not options.keep:
            shutil.rmtree(folder, ignore_errors=True)
    if options.json:
        options.json.write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")


def benchmark(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    root = folder / f"{options.pairs}-{options.teachers}"
    if not (root / "made").exists():
        # In another process, so that its memory is not counted.
        shutil.rmtree(root, ignore_errors=True)
        maker = get_context("spawn").Process(target=make, args=(root, options.pairs, options.teachers))
        maker.start()
        maker.join()
        (root / "made").touch()
    ws = Workspace.open(str(root))
    started = time.perf_counter()
    with connect(folder / "spill") as connection:
        same_texts(connection, ws)
    same_texts_seconds = time.perf_counter() - started
    scan = scan_seconds(ws)
    shutil.rmtree(ws.path("triples"), ignore_errors=True)
    built = measured("ours", ws, str(options.processes))
    rows, digest = content(files(ws, "triples", "made"))
    facts = {
        "pairs": sum(footer.rows for footer in read_footers(ws.parts("pairs"))),
        "teachers": options.teachers,
        "triples": rows,
        "scan_seconds": scan,
        "build_seconds": built["seconds"],
        "build_cpu_seconds": built["cpu_seconds"],
        "same_texts_seconds": same_texts_seconds,
        "ratio": built["seconds"] / scan,
        "peak_rss_gb": built["peak_rss_gb"],
        "data": str(root),
        "peers": None,
    }
    shown = f"{facts['pairs']:,} pairs x {options.teachers}: scan {scan:.1f} s; build {built['seconds']:.1f} s"
    print(f"{shown} ({facts['ratio']:.1f} times), peak {built['peak_rss_gb']:.2f} GB, {rows:,} triples", flush=True)
    if options.peers:
        peers = facts["peers"] = compare(ws, options.pairs, options.teachers, folder)
        if peers["unshuffled"]["content"] != [rows, digest]:
            raise SystemExit("shuffled and unshuffled triples disagree")
        for way, measures in peers.items():
            print(f"  {way}: {measures['seconds']:.1f} s, peak {measures['peak_rss_gb']:.2f} GB", flush=True)
    return facts


if __name__ == "__main__":
    main()
