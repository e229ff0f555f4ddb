"""Independent pieces of work over local processes or a Ray cluster; what comes back hangs on neither."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from typing import Any

import torch

from expunge.core.errors import BadInput, did_you_mean
from expunge.core.extras import require

ENGINES = ("processes", "ray")
Work = Callable[[Any], Any]


def check(jobs: int, engine: str, threads: int) -> None:
    """Can the work be spread like this. Raises BadInput."""
    for name, value in (("jobs", jobs), ("threads", threads)):
        if value < 1:
            raise BadInput.of(f"--{name}", value, f"is no number of {name}", "give a whole number from 1 up")
    if engine not in ENGINES:
        raise BadInput.of("--engine", engine, "is no engine that we know", did_you_mean(engine, ENGINES))
    if engine == "ray":
        require("--engine", engine, "ray", "ray")


def spread(
    work: Work, items: Sequence[Any], *, jobs: int = 1, engine: str = "processes", threads: int = 1
) -> Iterator[tuple[int, Any]]:
    """(place of an item, what `work` returned or the exception it ended with), as they are finished.

    work: a module's own function. threads: of each piece of work, the same whatever `jobs`, because
    sums of floats depend on it. With one job the work is done in this process.
    """
    if engine == "ray":
        yield from _ray(work, items, jobs, threads)
    elif jobs == 1 or len(items) < 2:
        with threads_of_torch(threads):
            for place, item in enumerate(items):
                yield place, _tried(work, item)
    else:
        # Spawned, not forked: a fork would take over torch's locked thread pools.
        with ProcessPoolExecutor(
            min(jobs, len(items)), multiprocessing.get_context("spawn"), torch.set_num_threads, (threads,)
        ) as pool:
            futures = {pool.submit(work, item): place for place, item in enumerate(items)}
            try:
                for future in as_completed(futures):
                    yield futures[future], _result(future)
            except BaseException:  # Ctrl-C too: what has not begun is not begun any more
                pool.shutdown(wait=False, cancel_futures=True)
                raise


class threads_of_torch:
    """Inside, torch computes with so many threads; afterwards with as many as before."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def __enter__(self) -> None:
        self.before = torch.get_num_threads()
        torch.set_num_threads(self.threads)

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(self.before)


def _tried(work: Work, item: Any) -> Any:
    try:
        return work(item)
    except Exception as error:
        return error


def _result(future: Future) -> Any:
    error = future.exception()
    return future.result() if error is None else error


def _remote(work: Work, item: Any, threads: int) -> Any:
    torch.set_num_threads(threads)
    return _tried(work, item)


def _ray(work: Work, items: Sequence[Any], jobs: int, threads: int) -> Iterator[tuple[int, Any]]:
    """On the cluster of RAY_ADDRESS, or one started here; all its machines must see the same folders."""
    import ray

    started = not ray.is_initialized()
    if started:
        ray.init(log_to_driver=False)
    try:
        remote = ray.remote(num_cpus=threads, max_retries=0)(_remote)
        waiting: dict[Any, int] = {}
        left = list(enumerate(items))
        while left or waiting:
            while left and len(waiting) < jobs:
                place, item = left.pop(0)
                waiting[remote.remote(work, item, threads)] = place
            (done, *_), _ = ray.wait(list(waiting))
            try:
                result = ray.get(done)
            except ray.exceptions.RayError as error:
                result = error
            yield waiting.pop(done), result
    finally:
        if started:
            ray.shutdown()
