"""A parallel map over worker processes with ordered results and bounded read-ahead; no worker outlives the caller.

It adds to `concurrent.futures.ProcessPoolExecutor` what that class does not do: workers end when their parent is
killed, Ctrl-C reaches the parent alone, and leaving the loop kills running tasks instead of waiting for them. Tried
instead: the workers of `multiprocessing.Pool` and of joblib (loky) survive a killed parent too.
"""

from __future__ import annotations

import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_context, parent_process
from typing import TypeVar

from pipeline.errors import PrepError

Item = TypeVar("Item")
Result = TypeVar("Result")


def map_in_order(task: Callable[[Item], Result], items: Iterable[Item], *, processes: int) -> Iterator[Result]:
    """Yield the results of `task` in the order of `items`; spawned workers are up to 2 * `processes` items ahead.

    With one process, the calling process does the work. An error, Ctrl-C or closing the iterator kills the workers.

    >>> list(map_in_order(abs, [-1, 2], processes=1))
    [1, 2]

    Raises:
        PrepError: a worker process died.
    """
    if processes == 1:
        yield from map(task, items)
        return
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_end_with_parent)
    workers = pool._processes  # kill_workers() of Python 3.14 is not in 3.11
    ahead: deque[Future[Result]] = deque()
    try:
        for item in items:
            ahead.append(_submit(pool, task, item))
            if len(ahead) > 2 * processes:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
    except BaseException as error:
        for worker in list(workers.values()):
            worker.kill()
        if isinstance(error, BrokenProcessPool):
            raise PrepError(
                "a worker process died", found=error, todo="check for lack of memory; use fewer processes"
            ) from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, task: Callable[[Item], Result], item: Item) -> Future[Result]:
    # The first calls start the workers, which inherit the mask: Ctrl-C reaches only the parent, even meanwhile.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(task, item)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """Exit when the parent has died: an idle worker would wait forever."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
