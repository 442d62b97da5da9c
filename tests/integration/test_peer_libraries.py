"""PyLate, ColBERT, FlagEmbedding, Tevatron and lightning-ir learn from our exports, each in a separate environment.

`make peer-test` makes the environments and runs this; it is skipped otherwise. Each script of `peers/` reads an export
with the code of the library, takes three steps on a CPU and prints what it read.
"""

import json
import os
import subprocess
from math import isfinite

import pytest

from pipeline.exports.export import ExportSettings, export
from pipeline.triples.build import TripleSettings, build_triples
from tests import worlds
from tests.integration.peers.environments import HERE, NAMES, python_of
from tests.pipeline.exports.test_export import expected_groups, texts
from tests.tiny_models import save_tiny

pytestmark = [
    pytest.mark.skipif(not os.environ.get("PREP_PEER_TEST"), reason="run by: make peer-test"),
    pytest.mark.timeout(1800),
]


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    workspace = worlds.paired(worlds.imported(tmp_path_factory.mktemp("peers")))
    worlds.scored(workspace, {"t": 1})
    build_triples(workspace, TripleSettings(None))
    return workspace


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return save_tiny("bert", tmp_path_factory.mktemp("tiny") / "bert")


def teacher(world):
    """{query text: {passage text: score}}, positives and negatives."""
    queries, passages = texts(world, "queries"), texts(world, "passages")
    return {
        queries[query]: {passages[name]: score for side in sides for name, score in side.items()}
        for query, sides in expected_groups(world, "query").items()
    }


@pytest.mark.parametrize("name", NAMES)
def test_it_reads_the_scores_of_the_teacher_and_learns(world, tiny, tmp_path, name):
    python = python_of(name)
    export(world, tmp_path / "export", ExportSettings(name, negatives=4 if name in ("pylate", "colbert") else None))
    output = tmp_path / "output"
    output.mkdir()
    script = HERE / f"with_{name.replace('-', '_')}.py"
    variables = {
        "HF_HUB_OFFLINE": "1",
        "HF_HOME": str(output / "hub"),
        "TOKENIZERS_PARALLELISM": "false",
        "PYTHONPATH": "",
    }
    done = subprocess.run(
        [python, script, tmp_path / "export", tiny, output],
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    report = json.loads(done.stdout.splitlines()[-1])
    assert len(report["losses"]) == 3 and all(map(isfinite, report["losses"])) and report["rows"] > 10
    known = teacher(world)
    assert len(report["read"]) == 5
    for query, passages, scores in report["read"]:
        assert len(passages) == len(scores) > 1
        assert [known[query][passage] for passage in passages] == pytest.approx(scores, rel=1e-7)
