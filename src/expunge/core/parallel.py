"""Independent pieces of work on local processes or a Ray cluster; the results do not depend on which."""

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


def check(jobs: int, engine: str, threads: int, engines: Sequence[str] = ENGINES) -> None:
    """Check the options of `spread`, or of a caller that knows further engines. Raises BadInput."""
    for name, value in (("jobs", jobs), ("threads", threads)):
        if value < 1:
            raise BadInput.of(f"--{name}", value, f"is not a number of {name}", "give a whole number of at least 1")
    if engine not in engines:
        raise BadInput.of("--engine", engine, "unknown engine", did_you_mean(engine, engines))
    if engine == "ray":
        require("--engine", engine, "ray", "ray")


def spread(
    work: Work, items: Sequence[Any], *, jobs: int = 1, engine: str = "processes", threads: int = 1
) -> Iterator[tuple[int, Any]]:
    """Yield (index of an item, the result of `work` or its exception) as each piece of work ends.

    work: a function of a module. threads: per piece of work, whatever `jobs` is, because floating-point sums depend on
    it. With one job the work is done in this process.
    """
    if engine == "ray":
        yield from _ray(work, items, jobs, threads)
    elif jobs == 1 or len(items) < 2:
        with threads_of_torch(threads):
            for place, item in enumerate(items):
                yield place, _try_work(work, item)
    else:
        # Spawned, not forked: a fork would take over torch's locked thread pools.
        with ProcessPoolExecutor(
            min(jobs, len(items)), multiprocessing.get_context("spawn"), torch.set_num_threads, (threads,)
        ) as pool:
            futures = {pool.submit(work, item): place for place, item in enumerate(items)}
            try:
                for future in as_completed(futures):
                    yield futures[future], _result(future)
            except BaseException:  # Ctrl-C too: pieces that have not begun never begin
                pool.shutdown(wait=False, cancel_futures=True)
                raise


class threads_of_torch:
    """Within the block torch uses this many threads; afterwards as many as before."""

    def __init__(self, threads: int) -> None:
        self.threads = threads

    def __enter__(self) -> None:
        self.before = torch.get_num_threads()
        torch.set_num_threads(self.threads)

    def __exit__(self, *error: object) -> None:
        torch.set_num_threads(self.before)


def _try_work(work: Work, item: Any) -> Any:
    try:
        return work(item)
    except Exception as error:
        return error


def _result(future: Future) -> Any:
    error = future.exception()
    return future.result() if error is None else error


def _remote(work: Work, item: Any, threads: int) -> Any:
    torch.set_num_threads(threads)
    return _try_work(work, item)


def _ray(work: Work, items: Sequence[Any], jobs: int, threads: int) -> Iterator[tuple[int, Any]]:
    """On the cluster at RAY_ADDRESS, or one started here; all its machines must see the same folders."""
    import ray  # an optional extra

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
