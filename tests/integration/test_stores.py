"""The whole chain with its workspace in an object store: nothing but the address changes, whatever the network does."""

import json
import os
import shlex
from pathlib import Path

import pytest
import ray

from jobs.checks.status import workspace_status
from jobs.cli import app
from jobs.cluster.settings import TrainCluster
from jobs.training.stage import train_student
from pipeline.imports.msmarco import import_msmarco
from pipeline.storage.workspace import Workspace
from pipeline.tables.parts import read_footers
from pipeline.triples.build import TripleSettings, build_triples
from students.settings import StudentSettings, TrainSettings
from tests import stores, worlds
from tests.tiny_models import save_tiny

# Ray Train's own use of Ray Data.
pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:ray", "ignore::ResourceWarning")
SETS = ("passages", "queries", "qrels", "retrieved/bm25", "pairs", "scores/t", "scores/actors", "triples/default")
SETS += ("lists/default",)
CAT = "--architecture bert_cat --loss bce --targets qrels --max-steps 1 --batch-size 4 --max-length 24"
TRAIN = "--architecture bert_dot --loss margin_mse --triples default --max-steps 2 --batch-size 4 --max-length 24"
TRAIN += " --max-query-length 8 --max-passage-length 16"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    found = stores.Server(tmp_path_factory.mktemp("store"))
    yield found
    found.kill()


@pytest.fixture(scope="module", autouse=True)
def surroundings(tmp_path_factory):
    """Credentials, copies on this machine, and a Ray cluster, as every machine of a real one has them."""
    own = {**stores.ENVIRONMENT, "PREP_LOCAL_CACHE": str(tmp_path_factory.mktemp("copies"))}
    with pytest.MonkeyPatch.context() as patched:
        for name, value in own.items():
            patched.setenv(name, value)
        # Workers have copies of their own, as if they stood elsewhere.
        elsewhere = {"env_vars": {"PREP_LOCAL_CACHE": str(tmp_path_factory.mktemp("elsewhere"))}}
        ray.init(
            address="local",
            num_cpus=2,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
            runtime_env=elsewhere,
        )
        yield
        ray.shutdown()


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    directory = tmp_path_factory.mktemp("given")
    save_tiny("bert", directory / "tiny")
    return directory, worlds.write_files(directory)


def prep(line):
    app(args=shlex.split(line), standalone_mode=False)


def chain(location, given, output):
    """Every stage, as typed; what it printed is not looked at."""
    directory, files = given
    w, tiny = f"-w {shlex.quote(location)}", directory / "tiny"
    prep(f"import msmarco {w} {worlds.import_options(files)}")
    prep(f"mine {w} --system bm25 --k 10 --split train --split dev --processes 1")
    prep(f"build-pairs {w} --pairs-per-shard 60")
    prep(f"score {w} --teacher t={tiny} --max-length 24")
    prep(f"train {w} --name cat --init {tiny} {CAT}")
    prep(f"score {w} --teacher actors=cat --max-length 16 --num-actors 2 --cpus-per-actor 0.5")
    prep(f"build-triples {w} --threshold none --num-actors 2 --threads 1")
    prep(f"build-lists {w} --size 4 --processes 1")
    prep(f"train {w} --name student --init {tiny} {TRAIN}")
    prep(f"evaluate {w} --split dev --run bm25 --teacher t --student student --depth 10")
    prep(f"export margin {w} -o {output}")
    prep(f"score {w} --teacher again={tiny} --max-length 24")
    prep(f"verify {w} --sample 4")


def made(workspace, output):
    """All that must be the same: contents and recipes of all tables, weights, runs, exports, summaries' codes."""
    found = {
        name: [(f.fingerprint, f.content) for f in read_footers(workspace.parts(*name.split("/")))] for name in SETS
    }
    student = workspace.current_path("students", "student")
    found["weights"] = (student / "model.safetensors").read_bytes()
    found["student"] = json.loads((student / "prep.json").read_text(encoding="utf-8"))["fingerprint"]
    found["runs"] = {path.name: path.read_bytes() for path in workspace.path("runs").iterdir()}
    found["export"] = {path.name: path.read_bytes() for path in sorted(output.rglob("*.parquet"))}
    found["status"] = workspace_status(workspace)
    found["codes"] = {p.name: json.loads(p.read_text())["exit_code"] for p in workspace.path("summaries").iterdir()}
    return found


@pytest.fixture(scope="module")
def on_disk(given, tmp_path_factory):
    directory = tmp_path_factory.mktemp("disk")
    chain(str(directory / "ws"), given, directory / "export")
    return Workspace.open(str(directory / "ws")), made(Workspace.open(str(directory / "ws")), directory / "export")


@pytest.fixture(scope="module")
def stored(server, given, tmp_path_factory):
    """Through a connection that is throttled, dropped and cut in between all the time."""

    def script(number, method, path):
        kinds = {29: "throttle", 13: "drop", 11: "cut" if method == "GET" else None}
        return next((fault for each, fault in kinds.items() if number % each == 0), None)

    output = tmp_path_factory.mktemp("stored") / "export"
    with stores.proxied(server, script) as proxy:
        location = stores.uri(proxy.address, "all/of it")
        chain(location, given, output)
        yield location, made(Workspace.open(location), output), proxy


def test_a_store_makes_what_a_disk_makes(on_disk, stored):
    _, expected = on_disk
    _, found, proxy = stored
    assert all(found[name] and found[name] == expected[name] for name in expected)
    assert all(stage.state == "done" for stage in found["status"])
    assert all(proxy.did[fault] > 5 for fault in ("throttle", "drop")) and proxy.did["cut"] > 5


def test_no_credential_stands_anywhere(stored):
    location, *_ = stored
    ws = Workspace.open(location)
    secrets = [stores.ENVIRONMENT[name].encode() for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY")]
    files = [
        ws.root / entry.path.removeprefix(ws.root.full + "/")
        for entry in ws.root.entries(recursive=True)
        if entry.is_file
    ]
    local = [path for path in Path(os.environ["PREP_LOCAL_CACHE"]).rglob("*") if path.is_file()]
    assert files and local
    assert not [path for path in (*files, *local) if any(secret in path.read_bytes() for secret in secrets)]


@pytest.fixture(scope="module")
def scored(server, given):
    """A workspace of made-up scores, whose network is sound."""
    directory, files = given
    ws = Workspace.open(stores.uri(server.address, "scored"), create=True)
    splits = ([(split, files[f"{split}{kind}"]) for split in ("train", "dev")] for kind in ("", ".qrels"))
    import_msmarco(ws, files["collection"], *splits)
    worlds.scored(worlds.paired(ws), {"a": 1})
    build_triples(ws, TripleSettings(None))
    return ws, str(directory / "tiny")


def settings(init, **more):
    shape = StudentSettings(max_query_tokens=8, max_passage_tokens=16, max_length_tokens=24)
    return TrainSettings("bert_dot", init, "margin_mse", "default", batch_size=4, student=shape, seed=3, **more)


def weights(ws, name):
    return (ws.current_path("students", name) / "model.safetensors").read_bytes()


def test_training_goes_on_on_another_machine(scored, tmp_path, monkeypatch):
    ws, init = scored
    asked = settings(init, max_steps=6, save_steps=2, eval_steps=2, eval_queries=4)

    def vanish(step, steps, loss):
        if step == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train_student(ws, "cut", asked, on_step=vanish)
    assert any(s.name == "students/cut" and s.state == "incomplete" for s in workspace_status(ws))
    monkeypatch.setenv("PREP_LOCAL_CACHE", str(tmp_path / "another machine"))
    gone_on = train_student(ws, "cut", asked)
    assert gone_on.resumed_at == 4 and len(gone_on.validations) == 3
    train_student(ws, "undisturbed", asked)
    assert weights(ws, "cut") == weights(ws, "undisturbed")
    assert not list(ws.path("students").glob(".training-*"))


def test_workers_of_a_cluster_train_from_a_store(scored):
    ws, init = scored
    asked = settings(init, max_steps=4, save_steps=2, eval_steps=2, eval_queries=4)
    trained = train_student(ws, "two", asked, workers=TrainCluster(2, cpus_per_worker=0.5))
    assert trained.steps == 4 and len(trained.validations) == 2 and weights(ws, "two")
