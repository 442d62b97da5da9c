"""Identities hold a version of each SQL statement: it is raised when the meaning changes, and only then."""

import re
from importlib.resources import files

import pyarrow as pa
import pytest

from pipeline import schemas
from pipeline.collection.selection import selected_before
from pipeline.fingerprint import digest_json
from pipeline.scores import pairs as pairs_module
from pipeline.scores.pairs import PairSet, pairs_recipe
from pipeline.scores.scores import ScoreSet
from pipeline.storage.workspace import Workspace
from pipeline.tables.database import sql
from pipeline.tables.parts import content_fingerprint, part_name, write_part
from pipeline.tables.provenance import Footer, Recipe
from pipeline.triples import shard, turns
from pipeline.triples.build import TripleSettings, triples_recipe
from pipeline.triples.inputs import ScoredPairs
from pipeline.triples.layouts import Lists, Triples

VERSIONS = {
    name: (module.__name__, version)
    for module in (pairs_module, shard, turns)
    for name, version in module.STATEMENTS.items()
}
NOT_IN_AN_IDENTITY = {
    "scores/judged_pairs": "read by training; students record the tables that they learn from",
    "triples/audit_lists": "read by the audit; nothing it gives is kept",
    "triples/audit_triples": "read by the audit; nothing it gives is kept",
    "triples/held_out": "counted by explore-threshold; nothing it gives is kept",
    "triples/first_statements": "text that old identities hold; never run",
}
# Statement → its version, and the digest of its SQL at that version.
DIGESTS: dict[str, tuple[int, str]] = {
    "scores/build_pairs": (1, "c1b3e4a5db4fda1409b0a2db5654c4b0"),
    "scores/count_pairs": (1, "e15b67d9ad0edc7cb278a37e8426330f"),
    "scores/count_listed_pairs": (1, "7189352883bcba7ee7f9026800f2d2d8"),
    "scores/pair_texts": (1, "96b7626acfdd777375e23eba04168c04"),
    "triples/scored": (1, "ad2766c112f60584f87adc91936f9b61"),
    "triples/collapse": (1, "8fded6661bded7ff8e635baa85040991"),
    "triples/positives": (1, "0b90098b0049cba9e6e1ffeb910ceb6b"),
    "triples/ring": (1, "74d2eb256330c863cd5d2d577e912d0b"),
    "triples/candidates": (1, "e77eb7dc2ba66d55fef7149085922437"),
    "triples/take": (2, "1a665cae211cf7eaaabf131009ec8878"),
    "triples/draw": (2, "41b06a593466a87c00ffb5a8f4ec1b36"),
    "triples/leave": (2, "7b84e9e42a61e00f69acf4a498f458c6"),
    "triples/counts": (1, "2fcab3be556bb463da1240f8cc0c15de"),
    "triples/funnel": (1, "8043bab5ef7cf93380252d79e1209169"),
    "triples/kept": (1, "929fbffee33d83a164b1becadc5228fa"),
    "collection/same_texts": (1, "06b4012e8f6f668b6a947754a51a6953"),
    "triples/by_query": (1, "1a648788a48ad4c4a17ef64536704344"),
}


def normalised(statement: str) -> str:
    """Without comments and white space; `/*name*/` stays: Python writes columns there."""
    return "".join(re.sub(r"--.*", "", statement).split())


@pytest.mark.parametrize("name", VERSIONS)
def test_a_statement_that_changes_gets_another_version(name):
    module, version = VERSIONS[name]
    seen, digest = DIGESTS.get(name, (None, None)), digest_json(normalised(sql(name)))
    assert seen == (version, digest), (
        f"pipeline/{name}.sql is not what DIGESTS has. If it gives other rows now, raise its version in "
        f"{module}.STATEMENTS, so that what was built before is stale. In any case, write here: "
        f'"{name}": ({version}, "{digest}")'
    )


def test_every_statement_has_a_version_or_a_reason_for_none():
    folders = [files("pipeline") / name for name in ("scores", "triples")]
    there = {
        f"{folder.name}/{path.name[:-4]}" for folder in folders for path in folder.iterdir() if ".sql" in path.name
    }
    assert there == (VERSIONS.keys() - {"collection/same_texts"}) | NOT_IN_AN_IDENTITY.keys()


def test_comments_and_white_space_do_not_count():
    assert normalised("-- Why.\nSELECT 1,  -- here\n    /*ranks*/ 2") == normalised(
        "SELECT 1, /*ranks*/\n2 -- Not why."
    )
    assert normalised("SELECT /*ranks*/ 2") != normalised("SELECT 2")


def footer(kind: str, content: str) -> Footer:
    return Footer(Recipe(kind, {}), content, 1, 0, 1)


def scored_by_two() -> ScoredPairs:
    pairs = PairSet([], [footer("pairs", "p")])
    scores = tuple(ScoreSet(name, pairs, [], [footer("scores", name * 2)]) for name in "ab")
    return ScoredPairs(scores, {"queries": digest_json([]), "passages": digest_json([])})


# As commit 1116c72 recorded them, when identities held the text of the statements.
RECORDED = [
    (TripleSettings(), Triples(), "1f004bd3b907a26c317731034ce00a67"),
    (TripleSettings(), Lists(4), "303bf2f63e7a140fd991772b38a29c21"),
    (
        TripleSettings(None, strategy="top", negatives_per_query=2, split="dev"),
        Triples(),
        "d6ad695e798483d0793a102d144b20e6",
    ),
]


@pytest.mark.parametrize(("settings", "layout", "fingerprint"), RECORDED)
def test_identities_of_sets_built_before_are_valid(settings, layout, fingerprint, monkeypatch):
    scored = scored_by_two()
    assert triples_recipe(scored, settings, layout).fingerprint == fingerprint
    monkeypatch.setitem(shard.STATEMENTS, "triples/candidates", 2)
    assert triples_recipe(scored, settings, layout).fingerprint != fingerprint


@pytest.mark.parametrize(("positives", "valid"), [(7, True), (8, False)])
def test_limited_sets_built_before_are_valid_if_no_query_has_two_positives(positives, valid):
    scored, settings = scored_by_two(), TripleSettings(1.0, negatives_per_query=2)
    first = {**triples_recipe(scored, settings).settings, "sql": sql("triples/first_statements")}
    earlier, today = Recipe("triples", first, {**scored.contents, **scored.tables}), triples_recipe(scored, settings)
    # As commit 096fd60 recorded it, when the limit was that of a query.
    assert earlier.fingerprint == "3ec99c18d8fe86dec6d6e80ecac913d0" != today.fingerprint
    counted = {"positives": positives, "queries": 9, "queries_without_positive": 2, "of a later version": 1}
    made = Footer(earlier, "", 1, 0, 1, {"funnel": counted})
    assert triples_recipe(scored, settings, made=made).fingerprint == (earlier if valid else today).fingerprint
    stale = Footer(Recipe("triples", first), "", 1, 0, 1, {"funnel": counted})
    assert triples_recipe(scored, settings, made=stale).fingerprint == today.fingerprint


@pytest.mark.parametrize(
    ("options", "fingerprint"),
    [
        ((40, False), "189e9d9ebe84be4856e5eda3205a7413"),
        ((40, True), "8f376b68814d67544a1adecdd55c3ce7"),
        ((40, False, "bm25"), "29a96ac815976673bf9de507bc877803"),
    ],
)
def test_identities_of_pairs_built_before_are_valid(tmp_path, monkeypatch, options, fingerprint):
    workspace = Workspace.open(str(tmp_path), create=True)

    def write(name, schema, *columns, settings=None, inputs=None):
        batch = pa.RecordBatch.from_arrays(
            [pa.array(column, field.type) for column, field in zip(columns, schema, strict=True)], schema=schema
        )
        path = workspace.path(*name.split("/")) / part_name(0)
        return write_part(path, [batch], schema, Recipe(name.split("/")[0], settings or {}, inputs or {}))

    passages = write("passages", schemas.PASSAGES, [0], ["p"], ["a"], [1])
    write("queries", schemas.QUERIES, [0], ["q"], ["b"], [2], [["train"]])
    write("qrels", schemas.QRELS, [0], [0], [1])
    made_of = {"passages": content_fingerprint([passages]), "queries": next(selected_before(workspace, "train", None))}
    write(
        "retrieved/bm25",
        schemas.RETRIEVED,
        [0],
        [0],
        [1],
        [0.5],
        settings={"split": "train", "system": "bm25"},
        inputs=made_of,
    )
    assert pairs_recipe(workspace, *options).fingerprint == fingerprint
    monkeypatch.setitem(pairs_module.STATEMENTS, "scores/build_pairs", 2)
    assert pairs_recipe(workspace, *options).fingerprint != fingerprint
