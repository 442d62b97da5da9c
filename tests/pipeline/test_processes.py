from __future__ import annotations

import os
import signal
import subprocess
import sys

import psutil
import pytest

from pipeline.errors import PrepError
from pipeline.processes import map_in_order


def test_map_keeps_order_and_passes_errors_on() -> None:
    assert list(map_in_order(str, range(9), processes=2)) == list("012345678")
    with pytest.raises(ValueError, match="invalid literal"):
        list(map_in_order(int, ["1", "x"], processes=2))


def test_a_dead_worker_ends_the_map() -> None:
    with pytest.raises(PrepError, match="worker process died"):
        list(map_in_order(os._exit, [1] * 5, processes=2))


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_workers_end_with_their_parent(number: signal.Signals) -> None:
    # A test run in the background of a shell is handed SIGINT as ignored.
    script = """
import signal, time
from pipeline.processes import map_in_order
signal.signal(signal.SIGINT, signal.default_int_handler)
for _ in map_in_order(time.sleep, [0] + [600] * 9, processes=2):
    print("ready", flush=True)
"""
    with subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as parent:
        assert parent.stdout is not None
        assert parent.stdout.readline() == "ready\n"
        family = psutil.Process(parent.pid).children(recursive=True)
        parent.send_signal(number)
        _, alive = psutil.wait_procs(family, timeout=20)
        assert not alive


def test_workers_leave_ctrl_c_to_their_parent() -> None:
    script = """
import os, signal, time
from multiprocessing import active_children
from pipeline.processes import map_in_order
def items():
    yield from [0.5, 0.5]
    time.sleep(0.2)
    for worker in active_children():
        os.kill(worker.pid, signal.SIGINT)
    yield 0
print(list(map_in_order(time.sleep, items(), processes=2)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.stderr) == ("[None, None, None]\n", "")
