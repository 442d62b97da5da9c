"""A map over worker processes: results in order, a few items ahead, no worker left behind."""

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
    """Results of `task` in the order of `items`, from spawned processes a few items ahead.

    One process means the calling one. Leaving early, by an error, Ctrl-C or `close`, kills the workers.

    Raises:
        PrepError: a worker died.
    """
    if processes == 1:
        yield from map(task, items)
        return
    pool = ProcessPoolExecutor(processes, mp_context=get_context("spawn"), initializer=_end_with_parent)
    workers = pool._processes
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
                "a worker process died", found=error, todo="look for lack of memory; use fewer processes"
            ) from error
        raise
    finally:
        pool.shutdown(cancel_futures=True)


def _submit(pool: ProcessPoolExecutor, task: Callable[[Item], Result], item: Item) -> Future[Result]:
    # Workers start here and inherit the mask: Ctrl-C is the parent's to handle, even while they start.
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        return pool.submit(task, item)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _end_with_parent() -> None:
    """Leave when the parent is gone: an idle worker would wait for ever."""
    parent = parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
