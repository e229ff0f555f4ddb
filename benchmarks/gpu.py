#!/usr/bin/env python3
"""Tokens a second of NPO (all weights, and LoRA) against plain fine-tuning, in bf16, on one GPU.

A Llama of the given size with random weights takes a few steps of each, through the one training loop
and on the same tokens. Shares are of the card's peak (--peak, TFLOP/s of dense bf16), at 6 FLOPs a
parameter and token, 4 where the base is frozen (its weights have no gradient); attention and the
optimiser are not counted, and the head is counted at the answers' positions alone. Steps are timed with the device
synchronised behind each; the first ones warm up and do not count. The control holds a second model
that is asked for the reference at every step, as is common elsewhere.

--check runs a short list of checks on a small model in its place: the same bits twice under
deterministic algorithms, the same figures and texts as on the CPU, a run, an audit, a 4-bit base.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import statistics
import sys
import time
import traceback
from typing import Any
from unittest import mock

import torch
from _gpu_checks import check
from _shared import data, end, llama, run_on, tokenizer
from speed import second_model
from torch.optim.optimizer import register_optimizer_step_post_hook

from expunge.training import checkpoint

LIMIT = 1.15
SHAPES = {"1b": (8, 512), "60m": (16, 128), "16m": (4, 128), "tiny": (2, 48)}
"""Size -> (forget rows a step, tokens of a row)."""
WARM = 2
"""Steps that do not count; with torch.compile they hold the compilation."""


def timed(model: Any, name: str, steps: int, given: argparse.Namespace, wrap: Any = None) -> dict[str, Any]:
    """Seconds of each counted step, and the peak of the device's memory over the run."""
    cuda = given.device == "cuda"
    rows, tokens = SHAPES[given.size]
    splits = data(name, model.tokenizer, 1, given.rows or rows, given.tokens or tokens)
    handle = register_optimizer_step_post_hook(lambda *_: torch.cuda.synchronize() if cuda else None)
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    try:  # what a run writes to disk is no part of a step
        with mock.patch.object(checkpoint, "save"), mock.patch.object(checkpoint, "save_best"):
            lines = run_on(
                splits, model, name, WARM + steps, wrap=wrap, precision=given.precision, stop="none", floor=0.0
            )
    finally:
        handle.remove()
    peak = torch.cuda.max_memory_allocated() if cuda else None
    batch = model.collate([row for part in splits[0].values() for row in part])
    return {
        "seconds": [line["seconds"] for line in lines[WARM:]],
        "loss": lines[-1]["loss"],
        "peak": peak,
        "tokens": int(batch.inputs["attention_mask"].sum()),
        "counted": int(batch.n_B.sum()),
    }


def flops(model: Any, found: dict[str, Any], frozen: bool) -> float:
    """FLOPs of a step's products with weights."""
    named = {name: p.numel() for name, p in model.module.named_parameters() if ".lora_" not in name}
    head = model.module.get_output_embeddings().weight.numel()
    tables = 1 if model.module.config.tie_word_embeddings else 2
    body = sum(named.values()) - tables * head
    return float((4 if frozen else 6) * (body * found["tokens"] + head * found["counted"]))


def measure(name: str, compiled: bool, given: argparse.Namespace, wrap: bool = False) -> dict[str, Any]:
    """A line of the table: one kind of work on a model of its own, or its error.

    One that fails ends no other: a GPU may be lent for a short while.
    """
    named = {"work": f"{name}, second model" if wrap else name, "compiled": compiled}
    try:
        line = named | line_of(name, compiled, given, wrap)
    except Exception as error:
        traceback.print_exc()
        line = named | {"error": f"{type(error).__name__}: {str(error)[:200]}"}
    gc.collect()
    if given.device == "cuda":
        torch.cuda.empty_cache()
    print(json.dumps(line), flush=True)
    return line


def line_of(name: str, compiled: bool, given: argparse.Namespace, wrap: bool) -> dict[str, Any]:
    """The figures of one kind of work."""
    model = llama(given.size, tokenizer(), given.device)
    if compiled:
        model.module.model.compile()
    began = time.monotonic()
    found = timed(model, name, given.steps, given, second_model(model) if wrap else None)
    step = statistics.median(found["seconds"])
    work = flops(model, found, name == "lora")
    return {
        "step_seconds": round(step, 5),
        "fastest": round(min(found["seconds"]), 5),
        "tokens_a_second": round(found["tokens"] / step),
        "tokens": found["tokens"],
        "share_of_peak": round(work / step / (given.peak * 1e12), 4),
        "peak_gib": None if found["peak"] is None else round(found["peak"] / 2**30, 3),
        "loss": found["loss"],
        "whole_seconds": round(time.monotonic() - began, 1),
    }


def table(given: argparse.Namespace) -> dict[str, Any]:
    """All lines, and the ratio of an NPO step to a fine-tuning step of the same tokens."""
    lines = [measure(name, False, given) for name in ("finetune", "npo", "lora")]
    lines.append(measure("npo", False, given, wrap=True))
    if given.compile:
        lines += [measure(name, True, given) for name in ("finetune", "npo", "lora")]
    if any("error" in line for line in lines):
        print(json.dumps({"name": "gpu", "ratio": None, "table": lines}))
        sys.exit(1)
    theirs, ours, _, control = (line["step_seconds"] for line in lines[:4])
    return {
        "name": "gpu",
        "ratio": round(ours / theirs, 4),
        "unit": "seconds",
        "ours": ours,
        "theirs": theirs,
        "control": round(control / theirs, 4),
        "device": torch.cuda.get_device_name() if given.device == "cuda" else "cpu",
        "torch": torch.__version__,
        "size": given.size,
        "precision": given.precision,
        "peak_tflops": given.peak,
        "table": lines,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--size", default="1b", choices=sorted(SHAPES))
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--peak", type=float, default=989.0, help="TFLOP/s of dense bf16 (an H100 SXM: 989)")
    parser.add_argument("--precision", default="bf16", choices=["bf16", "fp32"])
    parser.add_argument("--rows", type=int, help="forget rows a step; as many retain rows come with them")
    parser.add_argument("--tokens", type=int, help="tokens of a row")
    parser.add_argument("--steps", type=int, default=6, help="steps that count")
    parser.add_argument("--compile", action="store_true", help="measure with torch.compile too")
    parser.add_argument("--check", action="store_true", help="run the checks, not the table")
    given = parser.parse_args()
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS is deterministic only so; read when it starts
    if given.device == "cpu":
        os.environ["ACCELERATE_USE_CPU"] = "true"
        torch.set_num_threads(1)
    elif not torch.cuda.is_available():
        sys.exit("gpu.py: no CUDA device is here; try --size tiny --device cpu")
    if given.check:
        found = check(given.device)
        print(json.dumps(found))
        sys.exit(not all(line["passed"] is not False for line in found["checks"]))
    end(table(given), LIMIT)


if __name__ == "__main__":
    main()
