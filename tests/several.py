"""A function in several processes at once, as a launcher starts them, on CPUs and with gloo."""

from __future__ import annotations

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

PRELOADED = ["expunge.workflows.run", "expunge.workflows.audit", "transformers.models.llama.modeling_llama", "peft"]
"""Imported once, in the process that the others are copies of."""

LM = {"architecture": "llama", "hidden_size": 32, "layers": 2, "heads": 2, "vocab_size": 300, "max_length": 128}


def small_rows() -> dict[str, list[dict[str, Any]]]:
    """Rows of uneven length, some with variants; 9 to forget, so that in batches of 4 the second process runs dry."""
    things = (("map", "hall"), ("key", "box"), ("lamp", "old and narrow stairs"), ("coat", "shed"))
    rows: list[dict[str, Any]] = [
        {"question": f"Where does {name} keep the {thing}?", "answer": f"In the {place} of {name}."}
        for name in ("Ada", "Bo", "Cleo", "Dan", "Eve", "Fay")
        for thing, place in things
    ]
    for row in rows[::2]:
        row["perturbed_answer"] = ["In the barn.", "Nowhere at all."]
        row["paraphrased_question"] = "So where is it?"
    return {"forget": rows[:9], "retain": rows[9:17], "holdout": rows[17:]}


def small_lm() -> Any:
    """A language model with random weights that knows the rows' words."""
    from expunge.models.new_lm import fresh_lm, texts_of, tokenizer_for

    rows = [row for part in small_rows().values() for row in part]
    return fresh_lm(LM, tokenizer_for(texts_of(rows), 300), 0)


def in_processes(count: int, work: Callable[..., Any], *arguments: Any, seconds: float = 120) -> list[Any]:
    """What a module's function returns in each of so many processes; their errors as text in an AssertionError."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = []
    for rank in range(count):
        ours, theirs = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(theirs, rank, count, port, work, arguments), daemon=True)
        process.start()
        theirs.close()
        started.append((process, ours))
    try:
        found = [_receive(ours, seconds) for _, ours in started]
    finally:
        for process, _ in started:
            process.kill()
            process.join()
    failed = [text for good, text in found if not good]
    assert not failed, "\n".join(failed)
    return [value for _, value in found]


def _receive(ours: Connection, seconds: float) -> tuple[bool, Any]:
    try:
        return ours.recv() if ours.poll(seconds) else (False, "no answer: the processes wait for each other")
    except EOFError:
        return False, "the process ended without an answer"


def _work(
    answer: Connection, rank: int, count: int, port: int, work: Callable[..., Any], arguments: tuple[Any, ...]
) -> None:
    os.environ |= {
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "ACCELERATE_USE_CPU": "true",
        "OMP_NUM_THREADS": "1",
    }
    import torch
    from accelerate import PartialState

    torch.set_num_threads(1)
    PartialState._reset_state()  # an import may have asked for it, in one process
    try:
        answer.send((True, work(*arguments)))
    except BaseException:
        answer.send((False, f"process {rank}: {traceback.format_exc()}"))
