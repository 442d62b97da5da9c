"""The pool on a real Ray of this process's own; workers write files, so that what was done is seen on disk."""

import os
import shutil
import signal
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import ray

from jobs.cluster import pool as ray_pool
from jobs.cluster.pool import run_on_actors
from jobs.cluster.settings import ClusterSettings
from jobs.cluster.worker import leave_missing_directory
from pipeline.errors import ModelError

CLUSTER = ClusterSettings(num_actors=2, cpus_per_actor=0.5, max_attempts=3)


class Worker:
    """Runs tasks named by what is to happen."""

    def __init__(self, location):
        self.directory = Path(location)

    def run(self, task, report):
        tries = self.directory / f"{task}.tries"
        with tries.open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        count = len(tries.read_text().splitlines())
        if task.startswith("dies") and count == 1:
            time.sleep(0.2)
            os.kill(os.getpid(), signal.SIGKILL)
        if task.startswith("fails") and (task.endswith("always") or count == 1):
            raise RuntimeError(f"{task} is broken")
        if task.startswith("hangs") and count == 1:
            report(5)
            time.sleep(600)
        if task.startswith("slow") and count == 1:
            report(5)
            time.sleep(60)
        if task.startswith("meets"):  # another actor, however late it starts
            deadline = time.monotonic() + 60
            while len(list(self.directory.glob("meets*.tries"))) < 2 and time.monotonic() < deadline:
                time.sleep(0.05)
        if task.startswith("homeless"):
            Path.cwd()
        if task.startswith("refuses"):
            raise ModelError("cannot be", where=task)
        for _ in range(4):
            time.sleep(0.02)
            report(5)
        (self.directory / f"{task}.done").touch()


@pytest.fixture(scope="module")
def cluster():
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    ray.shutdown()


def run(directory, tasks, cluster=CLUSTER):
    progress = []
    failures = run_on_actors(str(directory), Worker, Worker.run, tasks, cluster, progress.append)
    return failures, sum(progress), sorted(p.stem for p in directory.glob("*.done"))


def test_silence_before_the_first_report_may_last_longer():
    slots = {
        name: ray_pool._Slot(None, name, task, reported, moved=100.0)
        for name, task, reported in (
            ("starting", "t1", None),
            ("working", "t2", 5),
            ("alive", "t3", 0),
            ("idle", None, 5),
        )
    }
    lost = []

    def lose(slot, reason):
        lost.append((slot.task, reason))

    pool = SimpleNamespace(_slots=slots, _hang_seconds=10.0, _lose=lose)
    for now, expected in (
        (110.0, []),
        (110.5, [("t2", "no progress for 10 s"), ("t3", "no progress for 10 s")]),
        (140.0, []),
        (140.5, [("t1", "no progress for 40 s")]),
    ):
        ray_pool._Pool._end_hanging(pool, now)
        assert lost == expected
        lost.clear()
    assert list(slots) == ["idle"]


@pytest.mark.cluster
@pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::ResourceWarning")
@pytest.mark.usefixtures("cluster")
class TestPool:
    def test_tasks_are_spread_and_counted(self, tmp_path):
        tasks = ["meets1", "meets2", *(f"task{i}" for i in range(6))]
        failures, progress, done = run(tmp_path, tasks)
        assert not failures and done == tasks and progress == 8 * 20
        assert len({pid for t in tasks for pid in (tmp_path / f"{t}.tries").read_text().split()}) == 2

    def test_an_actor_that_dies_is_replaced_and_its_task_done_once_more(self, tmp_path):
        tasks = ["dies1", "task1", "task2", "dies2", "task3"]
        failures, progress, done = run(tmp_path, tasks)
        assert not failures and done == sorted(tasks) and progress == 5 * 20
        assert len((tmp_path / "dies1.tries").read_text().split()) == 2
        assert len((tmp_path / "task1.tries").read_text().split()) == 1

    def test_a_poisonous_task_is_set_aside_and_the_others_go_on(self, tmp_path):
        failures, progress, done = run(tmp_path, ["fails-always", "fails-once", "task1"])
        assert [(f.task, "RuntimeError: fails-always is broken" in f.reason) for f in failures] == [
            ("fails-always", True)
        ]
        assert done == ["fails-once", "task1"] and progress == 2 * 20
        # Whatever it broke in its process, it meets another one.
        assert len(set((tmp_path / "fails-always.tries").read_text().split())) == 3

    def test_an_actor_that_hangs_is_replaced(self, tmp_path, monkeypatch):
        monkeypatch.setattr(ray_pool, "LOOK_SECONDS", 0.5)
        failures, progress, done = run(tmp_path, ["hangs", "task1"], replace(CLUSTER, hang_seconds=2.5))
        assert not failures and done == ["hangs", "task1"] and progress == 2 * 20
        assert len((tmp_path / "hangs.tries").read_text().split()) == 2

    def test_a_single_actor_that_hangs_is_replaced(self, tmp_path, monkeypatch):
        """Nobody else is there to begin its task once more."""
        monkeypatch.setattr(ray_pool, "LOOK_SECONDS", 0.5)
        alone = replace(CLUSTER, num_actors=1, hang_seconds=2.5)
        failures, progress, done = run(tmp_path, ["hangs", "task1"], alone)
        assert not failures and done == ["hangs", "task1"] and progress == 2 * 20
        assert len(set((tmp_path / "hangs.tries").read_text().split())) == 2

    def test_a_slow_task_at_the_end_is_begun_once_more_by_an_idle_actor(self, tmp_path, monkeypatch):
        monkeypatch.setattr(ray_pool, "LOOK_SECONDS", 0.2)
        began = time.monotonic()
        failures, progress, done = run(tmp_path, ["task1", "task2", "task3", "slow"])
        assert not failures and done == ["slow", "task1", "task2", "task3"] and progress == 4 * 20
        assert len((tmp_path / "slow.tries").read_text().split()) == 2 and time.monotonic() - began < 40

    def test_room_that_appears_is_used(self, tmp_path, monkeypatch):
        monkeypatch.setattr(ray_pool, "LOOK_SECONDS", 0.1)
        room = iter([0.5, 0.5, 0.5])
        monkeypatch.setattr(ray, "cluster_resources", lambda: {"CPU": next(room, 1.0)})
        tasks = ["meets1", "meets2", "task1"]
        failures, _, done = run(tmp_path, tasks, replace(CLUSTER, num_actors=None))
        assert not failures and done == sorted(tasks)
        assert len({pid for t in tasks for pid in (tmp_path / f"{t}.tries").read_text().split()}) == 2

    def test_a_working_directory_that_goes_away_is_left(self, tmp_path):
        gone = tmp_path / "gone"
        gone.mkdir()

        def leave_and_run(worker, task, report):
            os.chdir(gone)
            shutil.rmtree(gone)
            leave_missing_directory()
            worker.run(task, report)

        failures = run_on_actors(str(tmp_path), Worker, leave_and_run, ["homeless"], CLUSTER, lambda count: None)
        assert not failures and (tmp_path / "homeless.done").exists()

    def test_an_error_that_would_come_again_ends_the_run(self, tmp_path):
        with pytest.raises(ModelError, match="refuses: cannot be"):
            run(tmp_path, ["refuses"])
        assert len((tmp_path / "refuses.tries").read_text().split()) == 1
