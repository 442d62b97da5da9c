"""What a workspace needs of a store, against a real S3 server, and what the server may do meanwhile."""

import pickle
import threading
import time
from datetime import timedelta
from pathlib import Path

import pytest
from pyarrow.fs import FileInfo, FileType

from pipeline.errors import UsageError, WorkspaceError
from pipeline.storage import leases
from pipeline.storage.atomic_files import atomic_write, write_if_absent
from pipeline.storage.leases import lease
from pipeline.storage.location import StorePath, parse_location
from pipeline.storage.published_sets import current_version, download, replace_directory
from pipeline.storage.workspace import Workspace
from tests import stores


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patched:
        for name, value in stores.ENVIRONMENT.items():
            patched.setenv(name, value)
        server = stores.Server(tmp_path_factory.mktemp("store"))
        yield server
        server.kill()


@pytest.fixture
def place(server, request, tmp_path, monkeypatch):
    monkeypatch.setenv("PREP_LOCAL_CACHE", str(tmp_path / "copies"))
    return parse_location(stores.uri(server.address, f"a place/{request.node.name}"))


def put(place: StorePath, *names: str) -> None:
    for name in names:
        (place / name).write_text(name)


def test_a_prefix_without_objects_is_not_there(place):
    put(place / "left" / "deep", "one")
    (place / "left" / "deep" / "one").unlink()
    put(place, "two")
    assert [entry.is_file for entry in place.entries()].count(False) == 1, "this store keeps empty prefixes"
    assert [path.name for path in place.iterdir()] == ["two"] and not (place / "left").exists()


def below(place: StorePath) -> list[str]:
    return sorted(e.path.removeprefix(place.full + "/") for e in place.entries(recursive=True) if e.is_file)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("ftp://host/x", "unknown type of store"),
        ("s3:///x", "malformed store URI"),
        ("s3://bucket/../x", "malformed store URI"),
        ("s3://key:secret-word@bucket/x", "takes no credentials"),
        ("s3://bucket/x?access_key=key&secret_key=secret-word", "takes no credentials"),
    ],
)
def test_addresses_that_are_none_are_refused_and_secrets_not_repeated(text, complaint):
    with pytest.raises(UsageError, match=complaint) as error:
        parse_location(text)
    assert "secret-word" not in str(error.value)


def test_addresses_come_back_as_they_were():
    assert parse_location("file:///a/b") == parse_location("/a/b") == Path("/a/b")
    for text in ("s3://b/p%20q/r?endpoint_override=http%3A%2F%2F127.0.0.1%3A9", "gs://b/p?anonymous=true", "s3://b"):
        path = parse_location(text)
        assert path.uri == text and pickle.loads(pickle.dumps(path)) == path
    assert str(parse_location("s3://b/p%20q?endpoint_override=x")) == "s3://b/p q"


def test_paths_tell_what_is_there(place):
    put(place, "one.parquet", "two.json", "below/three.parquet")
    assert sorted(p.name for p in place.iterdir()) == ["below", "one.parquet", "two.json"]
    assert [p.name for p in place.glob("*.parquet")] == ["one.parquet"]
    assert (place / "below").is_dir() and not (place / "below").is_file() and (place / "one.parquet").exists()
    assert not (place / "one").exists() and list((place / "nowhere").iterdir()) == []
    with pytest.raises(FileNotFoundError):
        (place / "nowhere").read_bytes()
    with (place / "one.parquet").open() as stream:
        stream.seek(4)
        assert stream.read() == b"parquet"
    (place / "two.json").rename(place / "moved")
    assert below(place) == ["below/three.parquet", "moved", "one.parquet"]
    place.remove_below()
    assert below(place) == []


def test_a_file_appears_whole_or_not_at_all(place):
    with pytest.raises(OSError, match="disk"), atomic_write(place / "file") as stream:
        stream.write(b"half")
        raise OSError("no disk")
    assert below(place) == []
    with atomic_write(place / "file") as stream:
        stream.write(b"whole")
        assert below(place) == []
    assert (place / "file").read_bytes() == b"whole"
    write_if_absent(place / "file", b"later")
    assert (place / "file").read_bytes() == b"whole"


def test_a_set_is_the_old_one_until_the_new_one_is_complete(place, tmp_path, monkeypatch):
    ws = Workspace.open(place.uri, create=True)
    put(ws.path("pairs"), "part-00000.parquet", "part-00001.parquet")  # as copied there by hand
    (tmp_path / "new").mkdir()
    for name in ("part-00000.parquet", "part-00001.parquet", "part-00002.parquet"):
        (tmp_path / "new" / name).write_text("new")
    upload = StorePath.upload

    def breaks(path, file):
        assert [p.read_text() for p in ws.parts("pairs")] == ["part-00000.parquet", "part-00001.parquet"]
        if path.name == "part-00002.parquet":
            raise OSError("the connection is gone")
        upload(path, file)

    with monkeypatch.context() as patched:
        patched.setattr(StorePath, "upload", breaks)
        with pytest.raises(OSError, match="gone"):
            replace_directory(tmp_path / "new", ws.path("pairs"))
    assert len(ws.parts("pairs")) == 2
    replace_directory(tmp_path / "new", ws.path("pairs"))
    assert [path.read_text() for path in ws.parts("pairs")] == ["new"] * 3
    version = current_version(ws.path("pairs")).name
    assert {name.split("/")[0] for name in below(ws.path("pairs"))} == {".current", version}
    put(ws.current_path("pairs"), "part-00003.parquet")  # what is added later belongs to it
    assert len(ws.parts("pairs")) == 4


def test_half_a_set_is_none(place):
    ws = Workspace.open(place.uri, create=True)
    put(ws.path("students"), "whole/.current", "half/v-0/model.safetensors")
    put(ws.path("scores"), "teacher/part-00000.parquet")
    assert ws.names("students") == ["whole"] and ws.names("scores") == ["teacher"]


def test_what_a_machine_made_is_fetched_by_others_once_it_is_complete(place, monkeypatch, tmp_path):
    ws = Workspace.open(place.uri, create=True)
    made = ws.local / ".cache" / "store-1"
    made.mkdir(parents=True)
    (made / "marker").write_text("m")
    (made / "ids").write_text("i")
    order = []
    upload = StorePath.upload
    monkeypatch.setattr(StorePath, "upload", lambda path, file: (order.append(path.name), upload(path, file)))
    ws.share(made, "marker")
    assert order == ["ids", "marker"]
    monkeypatch.setenv("PREP_LOCAL_CACHE", str(tmp_path / "other"))
    there = ws.local / ".cache" / "store-1"
    assert not there.exists() and ws.fetch(there, "marker") and (there / "ids").read_text() == "i"
    (ws.path(".cache", "store-1") / "marker").unlink()
    assert ws.fetch(there, "marker") and not ws.fetch(ws.local / ".cache" / "store-2", "marker")


@pytest.fixture
def fast(monkeypatch):
    for name, seconds in (("LEASE_SECONDS", 4.0), ("RENEW_SECONDS", 0.5), ("LOOK_SECONDS", 1.2)):
        monkeypatch.setattr(leases, name, seconds)


def test_a_stage_runs_once_at_a_time_and_after_a_killed_run(place, fast, monkeypatch):
    with lease(place, "build"):
        with pytest.raises(WorkspaceError, match="another run holds the stage 'build'") as error, lease(place, "build"):
            pass
        assert "process" in str(error.value)
    assert below(place) == []
    put(place, "left by a killed run.json")
    entries, looks = StorePath.entries, []

    def aging(path, **options):
        """The left claim is fresh at the first look and older than a lease at the second."""
        found = entries(path, **options)
        looks.append(sorted(entry.base_name for entry in found))
        age = timedelta(seconds=(leases.LEASE_SECONDS + 1) * (len(looks) > 1))
        return [
            FileInfo(entry.path, entry.type, size=entry.size, mtime=entry.mtime - age)
            if entry.base_name.startswith("left")
            else entry
            for entry in found
        ]

    with monkeypatch.context() as patched:
        patched.setattr(StorePath, "entries", aging)
        with lease(place, "build"):
            assert [len(names) for names in looks] == [2, 2], "it waits while the claim may be alive"
            assert len(entries(place)) == 1
    assert below(place) == []


def test_of_many_at_once_never_two_hold(place, fast):
    holding, most, refused = [], [], []

    def work() -> None:
        try:
            with lease(place, "build"):
                holding.append(1)
                most.append(len(holding))
                time.sleep(2)
                holding.pop()
        except WorkspaceError:
            refused.append(1)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(count == 1 for count in most) and len(most) + len(refused) == 4


def test_large_files_come_whole_through_faults_and_a_power_cut(server, place, tmp_path):
    content = bytes(range(256)) * (24 << 12)  # three parts of an upload
    (tmp_path / "file").write_bytes(content)

    def script(number, method, path):
        if number % 4 == 1:
            return "throttle"
        return {2: "drop", 3: "cut" if method == "GET" else "drop"}.get(number)

    with stores.proxied(server, script) as proxy:
        far = parse_location(stores.uri(proxy.address, place.key)) / "file"
        far.upload(tmp_path / "file")
        far.download(tmp_path / "again")
        assert (tmp_path / "again").read_bytes() == content and proxy.did["throttle"] and proxy.did["drop"]
    server.kill()
    starting = threading.Thread(target=server.start)
    starting.start()
    assert (place / "file").read_bytes() == content
    starting.join()
    (place / "file").upload(tmp_path / "again")


def test_names_from_a_store_never_become_other_paths(place, tmp_path, monkeypatch):
    put(place / "set", "fine")
    hostile = [FileInfo(f"{place.full}/set/{name}", FileType.File) for name in ("fine", "below/../../outside")]
    monkeypatch.setattr(StorePath, "entries", lambda self, **_: hostile)
    with pytest.raises(WorkspaceError, match="not a valid file path"):
        download(place / "set", tmp_path / "copy")
    assert not (tmp_path / "copy").exists() and not (tmp_path / "outside").exists()
    (place / "set" / ".current").write_text('{"version": "../elsewhere"}')
    with pytest.raises(WorkspaceError, match="does not name a version"):
        current_version(place / "set")
