import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pytest
from datasets import load_dataset

from pipeline import schemas
from pipeline.errors import UsageError, WorkspaceError
from pipeline.exports.export import ExportSettings, export
from pipeline.exports.formats import FORMATS
from pipeline.exports.rows import list_groups
from pipeline.imports.candidate_files import read_run_rows
from pipeline.imports.lists import ListOptions, import_lists, system_source
from pipeline.imports.scores import ScoreOptions, import_scores
from pipeline.storage.workspace import Workspace
from pipeline.tables.parts import write_part
from pipeline.tables.provenance import Recipe
from pipeline.triples.build import TripleSettings, build_triples
from pipeline.triples.layouts import Lists
from tests import worlds


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """Triples `default` of one teacher, all of its margins."""
    workspace = worlds.paired(worlds.imported(tmp_path_factory.mktemp("export")))
    worlds.scored(workspace, {"t": 1})
    build_triples(workspace, TripleSettings(None))
    build_triples(workspace, TripleSettings(1.0), name="some")
    return workspace


ALL = "q.external_id, p.external_id, n.external_id, positive_score, negative_score, margin"


def triples(workspace, columns=ALL, name="default"):
    return duckdb.sql(
        f"SELECT {columns} FROM read_parquet('{workspace.path('triples', name)}/*.parquet') "
        f"JOIN '{workspace.path('queries')}/*.parquet' q USING (query_id) "
        f"JOIN '{workspace.path('passages')}/*.parquet' p ON p.passage_id = positive_id "
        f"JOIN '{workspace.path('passages')}/*.parquet' n ON n.passage_id = negative_id"
    ).fetchall()


def made(workspace, tmp_path, form, config=None, **settings):
    """The rows of an export, as the data sets library loads them."""
    directory = tmp_path / f"{form}-{config}-{settings}"
    if not directory.exists():
        export(workspace, directory, ExportSettings(form, **settings))
    return load_dataset(str(directory), config, split="train", cache_dir=str(tmp_path / "cache"))


TEXT = "q.text, p.text, n.text"


@pytest.mark.parametrize(
    ("form", "ids", "names", "columns"),
    [
        ("triplet", False, ["query", "positive", "negative"], TEXT),
        ("triplet", True, ["query_id", "positive_id", "negative_id"], "q.external_id, p.external_id, n.external_id"),
        ("margin", False, ["query", "positive", "negative", "label"], f"{TEXT}, margin"),
        (
            "kd",
            False,
            ["positive_score", "negative_score", "query_id", "positive_id", "negative_id"],
            "positive_score, negative_score, q.external_id, p.external_id, n.external_id",
        ),
    ],
)
def test_formats_with_a_row_for_each_triple(world, tmp_path, form, ids, names, columns):
    exported = made(world, tmp_path, form, ids=ids)
    assert exported.column_names == names
    rows = [tuple(float(np.float32(v)) if isinstance(v, float) else v for v in row.values()) for row in exported]
    assert sorted(rows) == sorted(triples(world, columns)) and len(set(rows)) > 100


def expected_groups(world, by):
    """{(query, positive) or query: ({positive: score}, {negative: score})} of external ids."""
    groups = {}
    for query, positive, negative, good, bad, _ in triples(world):
        goods, bads = groups.setdefault((query, positive) if by == "positive" else query, ({}, {}))
        goods[positive], bads[negative] = good, bad
    return groups


def ids(world, table):
    """Row number → external id."""
    column = "query_id" if table == "queries" else "passage_id"
    return dict(duckdb.sql(f"SELECT {column}, external_id FROM '{world.path(table)}/*.parquet'").fetchall())


def texts(world, table):
    return dict(duckdb.sql(f"SELECT external_id, text FROM '{world.path(table)}/*.parquet'").fetchall())


def test_labelled_lists_have_the_positive_first(world, tmp_path):
    exported = made(world, tmp_path, "labelled-list", ids=True)
    assert exported.column_names == ["query_id", "doc_ids", "labels"]
    rows = {
        (row["query_id"], row["doc_ids"][0]): dict(zip(row["doc_ids"], row["labels"], strict=True)) for row in exported
    }
    assert rows == {key: {**goods, **bads} for key, (goods, bads) in expected_groups(world, "positive").items()}
    with_texts = made(world, tmp_path, "labelled-list")
    assert with_texts.column_names == ["query", "docs", "labels"]
    queries, passages = texts(world, "queries"), texts(world, "passages")
    for row, names in zip(with_texts, exported, strict=True):
        assert row["query"] == queries[names["query_id"]] and row["labels"] == names["labels"]
        assert row["docs"] == [passages[name] for name in names["doc_ids"]]


@pytest.mark.parametrize("batch", [7, 50_000])
def test_n_tuples_are_even_and_drawn_by_the_seed(world, tmp_path, batch, monkeypatch):
    monkeypatch.setattr("pipeline.exports.rows.ROWS_PER_BATCH", batch)
    groups = expected_groups(world, "positive")
    exported = made(world, tmp_path, "n-tuple", ids=True, negatives=5)
    names = ["positive_id", *(f"negative_{i}_id" for i in range(1, 6))]
    assert exported.column_names == ["query_id", *names, "scores"]
    assert len(exported) == sum(len(bads) >= 5 for _, bads in groups.values())
    for row in exported:
        goods, bads = groups[row["query_id"], row["positive_id"]]
        assert row["scores"] == [(goods | bads)[row[name]] for name in names] and len({row[n] for n in names}) == 6
    again = made(world, tmp_path / "again", "n-tuple", ids=True, negatives=5)
    other = made(world, tmp_path, "n-tuple", ids=True, negatives=5, seed=1)
    assert list(again) == list(exported) and sorted(map(str, other)) != sorted(map(str, exported))


def test_groups_with_too_few_negatives_are_counted(world, tmp_path):
    sizes = Counter(row[:2] for row in triples(world, name="some")).values()
    most = max(sizes)
    result = export(world, tmp_path / "x", ExportSettings("n-tuple", "some", negatives=most))
    assert result.left_out == sum(size < most for size in sizes) > 0
    assert f"{result.left_out:,} groups with too few negatives were left out" in (tmp_path / "x/README.md").read_text()
    with pytest.raises(UsageError, match="nothing to export"):
        export(world, tmp_path / "y", ExportSettings("n-tuple", "some", negatives=most + 1))
    assert not (tmp_path / "y").exists() and not list(tmp_path.glob(".tmp-*"))


def test_pylate_has_three_parts_that_fit(world, tmp_path):
    train = made(world, tmp_path, "pylate", "train", negatives=4)
    parts = {
        name: {row[key]: row["text"] for row in made(world, tmp_path, "pylate", name, negatives=4)}
        for name, key in (("queries", "query_id"), ("documents", "document_id"))
    }
    assert train.column_names == ["query_id", "document_ids", "scores"]
    assert {row["query_id"] for row in train} == set(parts["queries"])
    assert {name for row in train for name in row["document_ids"]} == set(parts["documents"])
    assert parts["queries"].items() <= texts(world, "queries").items()
    assert parts["documents"].items() <= texts(world, "passages").items()
    groups = expected_groups(world, "positive")
    for row in train:
        goods, bads = groups[row["query_id"], row["document_ids"][0]]
        assert row["scores"] == [(goods | bads)[name] for name in row["document_ids"]] and len(row["scores"]) == 5


def test_formats_with_a_row_for_each_query(world, tmp_path):
    groups = expected_groups(world, "query")
    queries, passages = texts(world, "queries"), texts(world, "passages")
    rows = list(made(world, tmp_path, "tevatron"))
    assert len(rows) == len(groups)
    for row in rows:
        sides = row["positive_passages"], row["negative_passages"]
        assert row["query"] == queries[row["query_id"]]
        assert (
            tuple({passage["docid"]: passage["score"] for passage in side} for side in sides) == groups[row["query_id"]]
        )
        assert all(row["text"] == passages[row["docid"]] and "title" not in row for side in sides for row in side)
    flags = list(made(world, tmp_path, "flag-embedding"))
    assert list(flags[0]) == ["query", "pos", "neg", "pos_scores", "neg_scores"]
    for flag, row in zip(flags, rows, strict=True):
        for short, long in (("pos", "positive_passages"), ("neg", "negative_passages")):
            assert flag[short] == [passage["text"] for passage in row[long]]
            assert flag[f"{short}_scores"] == [passage["score"] for passage in row[long]]


def test_a_run_is_ranked(world, tmp_path):
    exported = made(world, tmp_path, "lightning-ir")
    assert exported.column_names == ["query_id", "q0", "doc_id", "rank", "score", "system"]
    rows = {}
    for row in exported:
        ranking = rows.setdefault(row["query_id"], [])
        ranking.append((row["doc_id"], row["score"]))
        assert row["rank"] == len(ranking) and (len(ranking) == 1 or ranking[-2][1] >= ranking[-1][1])
    for name, key, table in (("queries", "query_id", "queries"), ("docs", "doc_id", "passages")):
        (file,) = tmp_path.glob(f"*/{name}.jsonl")
        used = {row[key]: row["text"] for row in map(json.loads, file.read_text().splitlines())}
        assert used.items() <= texts(world, table).items() and used.keys() == set(exported[key])
    assert {query: dict(ranking) for query, ranking in rows.items()} == {
        query: pytest.approx(goods | bads, rel=1e-8) for query, (goods, bads) in expected_groups(world, "query").items()
    }


def read_numbered(path):
    rows = [line.split("\t") for line in path.read_text().splitlines()]
    assert [int(number) for number, _ in rows] == list(range(len(rows)))
    return [text for _, text in rows]


def test_ids_alone_leave_texts_out(world, tmp_path):
    for form, left in (
        ("colbert", ["README.md", "examples.json", "train"]),
        ("lightning-ir", ["README.md", "train.tsv"]),
    ):
        export(world, tmp_path / form, ExportSettings(form, ids=True, negatives=3))
        assert sorted(path.name for path in (tmp_path / form).iterdir()) == left


def test_colbert_lines(world, tmp_path):
    rows = made(world, tmp_path, "colbert", negatives=3)
    (file,) = tmp_path.glob("*/examples.json")
    lines, numbered = (
        [json.loads(line) for line in (file.parent / folder / "examples.json").read_text().splitlines()]
        for folder in ("", "numbered")
    )
    by_line = {name: read_numbered(file.parent / f"numbered/{name}.tsv") for name in ("queries", "collection")}
    known = texts(world, "queries"), texts(world, "passages")
    for (query, *pairs), (query_line, *passage_lines) in zip(lines, numbered, strict=True):
        assert by_line["queries"][query_line] == known[0][query]
        assert [(by_line["collection"][i], score) for i, score in passage_lines] == [
            (known[1][name], score) for name, score in pairs
        ]
    groups = expected_groups(world, "positive")
    assert len(lines) == len(rows) > 10
    for query, *pairs in lines:
        goods, bads = groups[query, pairs[0][0]]
        assert [(goods | bads)[passage] for passage, _ in pairs] == [score for _, score in pairs] and len(pairs) == 4


@pytest.mark.parametrize(
    ("form", "where"),
    [
        ("kd", "train.tsv"),
        ("labelled-list", "train"),
        ("pylate", "train"),
        ("colbert", "examples.json"),
        ("tevatron", "train.jsonl"),
        ("lightning-ir", "train.tsv"),
    ],
)
def test_out_and_in_again_gives_the_same_scores_and_triples(world, tmp_path, form, where):
    settings = {"ids": form == "labelled-list", "negatives": 3 if form in ("pylate", "colbert") else None}
    export(world, tmp_path / "out", ExportSettings(form, **settings))
    other = worlds.imported(tmp_path)
    import_scores(other, tmp_path / "out" / where, "t", ScoreOptions(as_pairs=True, pairs_per_shard=50))
    build_triples(other, TripleSettings(None))
    back, before = set(triples(other)), set(triples(world))
    assert back == before if settings["negatives"] is None else back <= before and len(back) > 50


def test_a_run_out_and_in_again_is_a_list(world, tmp_path):
    export(world, tmp_path / "out", ExportSettings("lightning-ir"))
    other = worlds.imported(tmp_path)
    source = system_source(tmp_path / "out/train.tsv", "run", "teacher", read_run_rows)
    assert import_lists(other, source, ListOptions(strict=True)).systems["teacher"] > 100


@pytest.fixture(scope="module")
def listed(world):
    """Two lists `l`, the positive first."""
    rows = {"query_id": [3, 1], "passage_ids": [[5, 6, 7], [9, 8]], "scores": [[1.5, 2.5, 0.5], [3.0, 4.0]]}
    path = world.path("lists", "l", "part-00000.parquet")
    write_part(
        path, pa.table(rows, schemas.LISTS).to_batches(), schemas.LISTS, Recipe("lists", {"teachers": ["t"]}, {})
    )
    return Workspace.open(str(world.root), stale_ok=True)  # no command built them


def test_lists_go_out_as_they_are(listed, tmp_path):
    exported = made(listed, tmp_path, "labelled-list", lists="l", ids=True)
    assert list(exported)[1] == {"query_id": "q3", "doc_ids": ["p63", "p56"], "labels": [3.0, 4.0]}
    (exported,) = made(listed, tmp_path, "n-tuple", lists="l", ids=True, negatives=2)
    names = {"positive_id": "p35", "negative_1_id": "p42", "negative_2_id": "p49"}
    assert exported == {"query_id": "q9", **names, "scores": [1.5, 2.5, 0.5]}
    with pytest.raises(WorkspaceError, match="no lists 'm'"):
        export(listed, tmp_path / "z", ExportSettings("pylate", lists="m"))


def test_long_lists_go_out_few_at_a_time(listed, monkeypatch):
    paths = listed.parts("lists", "l")
    (whole,) = list_groups(paths, None)
    monkeypatch.setattr("pipeline.exports.rows.PASSAGES_PER_BATCH", 4)
    pieces = list(list_groups(paths, None))
    assert [len(piece.query) for piece in pieces] == [1, 1]
    for name in whole._fields:
        assert np.array_equal(np.concatenate([getattr(piece, name) for piece in pieces]), getattr(whole, name))


def test_lists_go_out_as_one_positive_and_its_negatives(listed, tmp_path):
    rows = [("q9", "p35", "p42", 1.5, 2.5, -1.0), ("q9", "p35", "p49", 1.5, 0.5, 1.0), ("q3", "p63", "p56", 3, 4, -1)]
    exported = made(listed, tmp_path, "kd", lists="l")
    names = ("query_id", "positive_id", "negative_id", "positive_score", "negative_score")
    assert [tuple(row[name] for name in names) for row in exported] == [row[:5] for row in rows]
    exported = made(listed, tmp_path, "margin", lists="l", ids=True)
    assert [tuple(row.values()) for row in exported] == [(*row[:3], row[5]) for row in rows]
    assert [tuple(row.values()) for row in made(listed, tmp_path, "triplet", lists="l", ids=True)] == [
        row[:3] for row in rows
    ]
    sides = {
        row["query_id"]: [
            {one["docid"]: one["score"] for one in row[f"{side}_passages"]} for side in ("positive", "negative")
        ]
        for row in made(listed, tmp_path, "tevatron", lists="l")
    }
    assert sides == {"q9": [{"p35": 1.5}, {"p42": 2.5, "p49": 0.5}], "q3": [{"p63": 3.0}, {"p56": 4.0}]}
    flags = made(listed, tmp_path, "flag-embedding", lists="l", negatives=1)
    assert sorted(map(tuple, flags["pos_scores"])) == [(1.5,), (3.0,)] and all(len(row) == 1 for row in flags["neg"])


def test_the_card_says_where_the_rows_come_from(world, tmp_path):
    result = export(world, tmp_path / "out", ExportSettings("margin", licence="cc-by-4.0"))
    text = (result.directory / "README.md").read_text()
    assert 'license: "cc-by-4.0"' in text and "| t | `t 1` |" in text and "| threshold | None |" in text
    assert f"| triples | {len(triples(world)):,} |" in text


def test_the_card_warns_of_teachers_on_mixed_scales(tmp_path):
    workspace = worlds.scored(worlds.paired(worlds.imported(tmp_path)), {"a": 1})
    worlds.scored(workspace, {"b": 1}, spread=200)
    for name, settings in (("mean", TripleSettings(None)), ("scaled", TripleSettings(None, ensemble="zscore"))):
        build_triples(workspace, settings, name=name)
        export(workspace, tmp_path / name, ExportSettings("margin", name))
        text = (tmp_path / name / "README.md").read_text()
        assert ("**Warning:** the spreads of the teachers differ by a factor of 50" in text) == (name == "mean")


def test_exports_alone_are_replaced(world, tmp_path):
    export(world, tmp_path / "out", ExportSettings("triplet"))
    with pytest.raises(WorkspaceError, match="the directory is not empty") as error:
        export(world, tmp_path / "out", ExportSettings("triplet"))
    assert "--overwrite" in str(error.value)
    export(world, tmp_path / "out", ExportSettings("kd", overwrite=True))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["README.md", "train.tsv"]
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.tex").write_text("x")
    with pytest.raises(WorkspaceError, match="the directory is not empty"):
        export(world, tmp_path / "mine", ExportSettings("triplet", overwrite=True))


def test_a_directory_with_foreign_files_is_not_replaced(world, tmp_path):
    clone = tmp_path / "clone"
    clone.mkdir()
    (clone / "README.md").write_text("---\nlicense: mit\n---\n# Mine\n")
    with pytest.raises(WorkspaceError, match=r"found:    no README\.md of an export"):
        export(world, clone, ExportSettings("kd", overwrite=True))
    export(world, tmp_path / "out", ExportSettings("kd"))
    (tmp_path / "out/.git").mkdir()
    with pytest.raises(WorkspaceError, match=r"found:    \.git") as error:
        export(world, tmp_path / "out", ExportSettings("kd", overwrite=True))
    assert "--overwrite" not in str(error.value) and (tmp_path / "out/.git").is_dir() and (clone / "README.md").exists()


CONFIGS = {"pylate": ["train", "queries", "documents"]}
EXPORTS = {form: {"negatives": 3} if FORMATS[form].even else {} for form in FORMATS}


def loaded(directory, form, cache):
    return {
        name: load_dataset(str(directory), name, split="train", cache_dir=str(cache)).to_list()
        for name in CONFIGS.get(form, ["default"])
    }


@pytest.mark.parametrize("form", FORMATS)
def test_an_export_that_was_replaced_is_read_anew(world, tmp_path, form):
    out, cache, read, files = tmp_path / "out", tmp_path / "cache", [], []
    for name in ("default", "some", "default"):
        made = export(world, out, ExportSettings(form, name, overwrite=True, **EXPORTS[form]))
        read.append(loaded(out, form, cache))
        files.append({path.relative_to(out): path.read_bytes() for path in out.rglob("*") if path.is_file()})
        parquet = [path for path in files[-1] if path.suffix == ".parquet"]
        assert {path.name.rpartition("-")[0] for path in parquet} <= {f"train-{made.fingerprint}"}
        assert bool(parquet) == any("parquet" in pattern for pattern in FORMATS[form].files)
        assert read[-1] == loaded(out, form, tmp_path / f"fresh-{len(read)}")
    assert read[0] == read[2] != read[1] and files[0] == files[2] and files[0] != files[1]
    # The library's cache knows the last name of a directory, not where it is.
    export(world, tmp_path / "elsewhere/out", ExportSettings(form, "some", **EXPORTS[form]))
    assert loaded(tmp_path / "elsewhere/out", form, cache) == read[1]


def test_exports_of_earlier_versions_and_look_ups_of_trainers_are_replaced(world, tmp_path):
    out = tmp_path / "out"
    export(world, out, ExportSettings("margin"))
    (file,) = (out / "train").iterdir()
    file.rename(out / "train/train-00000.parquet")
    export(world, out, ExportSettings("lightning-ir", overwrite=True))
    (out / "docs.jsonl.pklz4").mkdir()
    (out / "docs.jsonl.pklz4/bin").write_bytes(b"texts of these documents")
    export(world, out, ExportSettings("lightning-ir", "some", overwrite=True))
    assert not (out / "docs.jsonl.pklz4").exists()


def sides_of(world, form, rows):
    """(query, its positives, its negatives) for each row of an export, by external id; for a run: (query, passages)."""
    names = {kind: {text: name for name, text in texts(world, kind).items()} for kind in ("queries", "passages")}
    for row in rows:
        if form == "flag-embedding":
            sides = ([names["passages"][text] for text in row[side]] for side in ("pos", "neg"))
            yield names["queries"][row["query"]], *sides
        elif form == "tevatron":
            sides = ([passage["docid"] for passage in row[f"{side}_passages"]] for side in ("positive", "negative"))
            yield row["query_id"], *sides
        else:
            lists = next((row[name] for name in ("doc_ids", "document_ids", "passage_ids") if name in row), None)
            first, *others = lists or [row[name] for name in row if name.startswith(("positive_id", "negative_"))
                                       and name.endswith("_id")]  # fmt: skip
            yield row["query_id"], [first], others


@pytest.fixture(scope="module")
def limited(world):
    """Sets whose positives have different negatives: by a threshold, and by the highest scored that it lets pass."""
    build_triples(world, TripleSettings(1.0, negatives_per_query=2, strategy="top"), name="few")
    build_triples(world, TripleSettings(1.0), name="lists", layout=Lists(4))
    for name in ("some", "few"):
        united = {}
        for query, positive, negative, *_ in triples(world, name=name):
            sides = united.setdefault(query, (set(), set()))
            sides[0].add(positive)
            sides[1].add(negative)
        pairs = sum(len(goods) * len(bads) for goods, bads in united.values())
        assert pairs > len(triples(world, name=name)) > 20  # united, the filter would be undone
    return world


ROWS = [form for form in FORMATS if form != "lightning-ir"]


@pytest.mark.parametrize("form", ROWS)
@pytest.mark.parametrize("settings", [{"triples": "some"}, {"triples": "few"}, {"lists": "lists"}], ids=str)
def test_a_negative_shares_a_row_only_with_positives_that_it_passed_for(limited, tmp_path, form, settings):
    if "lists" in settings:
        rows = duckdb.sql(f"SELECT * FROM '{limited.path('lists', 'lists')}/*.parquet'").fetchall()
        queries, passages = ids(limited, "queries"), ids(limited, "passages")
        expected = {(queries[q], passages[p], passages[n]) for q, (p, *ns), _ in rows for n in ns}
    else:
        expected = {row[:3] for row in triples(limited, name=settings["triples"])}
    columns = {} if FORMATS[form].content != "either" else {"ids": True}
    even = {"negatives": 2} if FORMATS[form].even else {}
    export(limited, tmp_path / "out", ExportSettings(form, **settings, **columns, **even))
    rows = loaded(tmp_path / "out", form, tmp_path / "cache")
    written = [
        (query, positive, negative)
        for query, positives, negatives in sides_of(limited, form, next(iter(rows.values())))
        for positive in positives
        for negative in negatives
    ]
    assert len(written) == len(set(written)) > 10 and set(written) <= expected
    if not even:
        assert set(written) == expected


@pytest.mark.parametrize("name", ["some", "few"])
def test_the_negatives_of_a_run_passed_for_all_its_positives(limited, tmp_path, name):
    made = export(limited, tmp_path / "out", ExportSettings("lightning-ir", name, ids=True))
    found, every, known = {}, {}, {row[:3] for row in triples(limited, name=name)}
    for row in loaded(tmp_path / "out", "lightning-ir", tmp_path / "cache")["default"]:
        found.setdefault(row["query_id"], set()).add(row["doc_id"])
    positives = {(query, positive) for query, positive, _ in known}
    for query, positive, negative in known:
        every.setdefault(query, set()).update((positive, negative))
    assert found.keys() == every.keys()
    for query, passages in found.items():
        goods = {passage for passage in passages if (query, passage) in positives}
        assert {(query, p, n) for p in goods for n in passages - goods} <= known
        assert goods and passages - goods
    lost = sum(len(every[query]) - len(passages) for query, passages in found.items())
    assert made.left_out_passages == lost > 0
    assert f"{lost:,} passages that are not in the set with" in (tmp_path / "out/README.md").read_text()


def test_a_circle_of_passages_is_one_run(world, tmp_path):
    """Each passage of a query without a judged positive is a positive and a negative of the set."""
    build_triples(world, TripleSettings(None, relevance_level=9, pairs="scored"), name="circle")
    made = export(world, tmp_path / "out", ExportSettings("lightning-ir", "circle", ids=True))
    found = [(row["query_id"], row["doc_id"]) for row in loaded(made.directory, "lightning-ir", tmp_path)["default"]]
    every = {(query, passage) for query, *passages, _, _, _ in triples(world, name="circle") for passage in passages}
    assert len(found) == len(set(found)) and set(found) == every and not made.left_out_passages


def test_a_failure_leaves_nothing(world, tmp_path, monkeypatch):
    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.exports.export.card", fail)
    with pytest.raises(OSError, match="No space"):
        export(world, tmp_path / "out", ExportSettings("triplet"))
    assert not list(Path(tmp_path).iterdir()) and not list(world.root.glob(".tmp-*"))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"form": "csv"}, "no format 'csv'"),
        ({"form": "pylate", "ids": True}, "pylate needs texts"),
        ({"form": "triplet", "negatives": 3}, "means nothing to format triplet"),
        ({"form": "n-tuple", "negatives": 0}, "must be 1 or more"),
    ],
)
def test_settings_that_do_not_fit(settings, message):
    with pytest.raises(UsageError, match=message):
        ExportSettings(**settings)


def test_the_registry_is_read_without_arrow():
    """The command line lists the formats whenever it starts."""
    code = "import sys, pipeline.exports.formats; assert not {'pyarrow', 'numpy', 'duckdb'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("form", FORMATS)
def test_a_format_declares_all_files_that_it_writes(world, tmp_path, form):
    """What it does not declare would keep an export from being replaced."""
    export(world, tmp_path, ExportSettings(form, negatives=3 if FORMATS[form].even else None))
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()} - {"README.md"}
    matches = {pattern: {file for file in files if re.fullmatch(pattern, file)} for pattern in FORMATS[form].files}
    assert set().union(*matches.values()) == files and all(matches.values())
