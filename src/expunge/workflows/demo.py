"""The demo: an embedded world, a request, a run."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import torch

from expunge.core.contracts import Reporter, Silent
from expunge.core.parallel import threads_of_torch
from expunge.core.request import Request
from expunge.data.load import load
from expunge.models.open import open_model
from expunge.pipeline.gold import gold_ahead
from expunge.pipeline.observation_spec import ObservationSpec, reading_splits
from expunge.pipeline.observe import observe
from expunge.pipeline.plan import plan
from expunge.pipeline.worlds import build, config, is_trained
from expunge.workflows.run import Run, run

OUT = "runs/authors"
WORLD = "builtin:authors"
THREADS = 2
"""Threads of torch, at most, for all but the trainings of base and gold, which have a core each."""


def request(method: str = "auto", seed: int = 0) -> Request:
    """The request: forget four of forty fictitious authors, keep the others."""
    return Request.parse(
        {
            "model": WORLD,
            "forget": f"{WORLD}/forget",
            "retain": f"{WORLD}/retain",
            "holdout": f"{WORLD}/holdout",
            "method": method,
            "purpose": "suppress",
            "gold": "one",  # a second retraining would double the time until the first verdict
            "accept": {
                "forget.rouge_l": "<= 1.2 * gold",
                "forget.nll": ">= 0.8 * gold",
                "retain.probability": ">= 0.9 * before",
            },
            "seed": seed,
            "out": OUT,
        }
    )


def demo(*, method: str = "auto", seed: int = 0, reporter: Reporter | None = None) -> Run:
    """Run the demo; it replaces an older one at the end."""
    wanted = request(method, seed)
    with gold_in_parallel(method, seed):
        if not is_trained(Path(config(WORLD).out)):
            plan(wanted, resume=True)  # what is wrong with the request is said before the training
            with threads_of_torch(1):
                build(WORLD, reporter)
        with threads_of_torch(min(THREADS, torch.get_num_threads())):
            return run(wanted, reporter=reporter, replace=True)


@contextlib.contextmanager
def gold_in_parallel(method: str, seed: int) -> Iterator[None]:
    """On first use, train and read gold in a second process while the run trains the base.

    The run waits for that training and takes gold's readouts from the cache. If the process dies, the run does its work
    and reports the fault.
    """
    if is_trained(Path(config(WORLD).out)):
        yield
        return
    work = [sys.executable, "-c", f"from {__name__} import read_gold; read_gold({method!r}, {seed!r})"]
    other = subprocess.Popen(
        work, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
    )  # Ctrl-C is ours to answer
    try:
        yield
    finally:
        other.terminate()
        other.wait()


def read_gold(method: str, seed: int) -> None:
    """Train the demo's gold model and read it, into the cache."""
    splits = reading_splits(plan(request(method, seed), resume=True))
    with threads_of_torch(1):
        gold = gold_ahead(config(WORLD), load(f"{WORLD}/forget", "forget"))
    with threads_of_torch(min(THREADS, torch.get_num_threads())):  # as the run, which takes these readouts
        observe(open_model(str(gold)), "gold", ObservationSpec(splits), Silent())
