#!/usr/bin/env python3
"""What an NPO step and a default evaluation cost.

1. The time of an NPO step against a fine-tuning step on the same rows, of uneven length: short runs of
   both take turns in one process, and the medians are compared. The control asks a second model for the
   reference at every step, as is common elsewhere; ours is read once, before the first step. `whole`
   is the step as one padded batch, in the place of parts by length.
2. The step against its matmul limit: the same products at this machine's own rate, measured at the
   model's shapes in between (6 FLOPs a parameter and token; the head's at counted positions only;
   padding does not count).
3. The default evaluation in forward passes of the data, generation apart, counted at the model
   itself and by the meter.

On the CPU times are processor seconds of one thread: what else the machine does hardly changes them.
"""

from __future__ import annotations

import argparse
import copy
import itertools
import statistics
import time
from typing import Any

import torch
from _shared import data, end, llama, rows, run_on, tokenizer
from torch.optim.optimizer import register_optimizer_step_post_hook

from expunge.core.contracts import Update
from expunge.evaluation.reading import Meter, read
from expunge.evaluation.scores import requirements

LIMIT = 1.15
OF_MATMUL = 1.3
"""The step against its matmul limit, on the 58-M model on a CPU: a small one is bound by other work too."""
READ_LIMIT = 1.5
STEPS = 3
"""Steps of a short run; the first warms up and does not count."""
BATCH, LONGEST, SHORTEST = 16, 68, 36
"""Forget rows of a step, with as many retain rows, and their tokens: as long as the fictitious authors' rows."""
CONTROL = "control"


def clock(device: str) -> float:
    """Seconds: of this process on a CPU, else of the day."""
    if device == "cpu":
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def steps(model: Any, name: str, device: str, wrap: Any = None, precision: str = "fp32", **fields: Any) -> list[float]:
    """Seconds of each step but the first, from one optimiser step to the next: nothing is read or saved between."""
    ends: list[float] = []
    handle = register_optimizer_step_post_hook(lambda *_: ends.append(clock(device)))
    given = data(name, model.tokenizer, STEPS + 1, BATCH, LONGEST, SHORTEST)
    try:
        run_on(given, model, name, STEPS, wrap=wrap, stop="none", floor=0.0, precision=precision, **fields)
    finally:
        handle.remove()
    return [later - earlier for earlier, later in itertools.pairwise(ends)]


def second_model(model: Any) -> Any:
    """Wraps an update so that a frozen copy forwards the forget rows first."""
    other = copy.copy(model)
    other.module = copy.deepcopy(model.module)

    def wrap(update: Any) -> Any:
        def asked(losses: Any, parameters: Any) -> None:
            with torch.no_grad():
                for part in losses.parts:
                    other.forward(other.collate(part["forget"].examples))
            update(losses, parameters)

        return Update(asked)

    return wrap


def matmul_rate(model: Any, device: str, seconds: float = 1.0) -> float:
    """FLOP/s of a float32 product of the model's own shape, the best of several."""
    config = model.module.config
    a = torch.randn(BATCH * LONGEST, config.hidden_size, device=device)
    b = torch.randn(config.hidden_size, config.intermediate_size, device=device)
    best, started = 0.0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        began = clock(device)
        for _ in range(8):
            a @ b
        best = max(best, 8 * 2 * a.numel() * b.shape[1] / (clock(device) - began))
    return best


def flops(model: Any) -> tuple[float, int, float]:
    """(FLOPs of a step's products, its tokens without padding, the share of a whole batch that is padding)."""
    splits, _ = data("finetune", model.tokenizer, STEPS + 1, BATCH, LONGEST, SHORTEST)
    batch = model.collate(splits["retain"])
    tokens, counted = (int(x.sum()) / (STEPS + 1) for x in (batch.inputs["attention_mask"], batch.n_B))
    head = model.module.get_output_embeddings().weight.numel()
    body = sum(p.numel() for p in model.module.parameters()) - 2 * head  # untied: embedding and head are alike
    padding = 1 - tokens * (STEPS + 1) / batch.inputs["attention_mask"].numel()
    return 6 * (body * tokens + head * counted), round(tokens), padding


def reading(model: Any, count: int) -> float:
    """Forward passes of the data that the default evaluation takes; the largest of the splits."""
    splits = {name: rows(count, seed, model.tokenizer) for seed, name in enumerate(("forget", "retain", "holdout"))}
    for row in splits["forget"] + splits["retain"]:
        words = row["answer"].split()
        row["paraphrased_answer"] = [" ".join(words[::-1])]  # type: ignore[assignment]
        row["perturbed_answer"] = [" ".join(words[5:]), " ".join(words[9:])]  # type: ignore[assignment]
    wanted = requirements(model.capabilities, splits)
    seen = {"rows": 0}
    read(model, "forget", splits["forget"][:2], {"nll"}, cache=False)  # padding is tried once, on rows of its own
    hook = model.module.model.register_forward_pre_hook(
        lambda module, args, kwargs: seen.__setitem__("rows", seen["rows"] + len(kwargs["input_ids"])), with_kwargs=True
    )
    worst = 0.0
    try:
        for name, found in splits.items():
            meter, seen["rows"] = Meter(), 0
            began = time.perf_counter()
            read(model, name, found, set(wanted[name]) - {"generation"}, meter=meter, cache=False)
            variants = sum(len(row.get(f"{kind}_answer", [])) for row in found for kind in ("paraphrased", "perturbed"))
            whole = len(found) + (variants if "variants" in wanted[name] else 0)
            passes = seen["rows"] / whole
            assert abs(sum(meter.passes.values()) * len(found) - seen["rows"]) < 1e-6 * whole, "the meter miscounts"
            print(
                f"reading       {passes:8.2f} forwards of {name} "
                f"({len(found)} examples, {whole - len(found)} variants, {time.perf_counter() - began:.1f} s)"
            )
            worst = max(worst, passes)
    finally:
        hook.remove()
    return worst


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="60m", choices=["60m", "16m"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--bf16", action="store_true", help="time the step in bfloat16 too; emulated, it takes minutes")
    given = parser.parse_args()
    torch.set_num_threads(1)
    model = llama(given.size, tokenizer(), given.device)
    wrap = second_model(model)
    works: dict[str, dict[str, Any]] = {
        "finetune": {"name": "finetune"},
        "npo": {"name": "npo"},
        "whole": {"name": "npo", "micro_batch_size": BATCH},
        CONTROL: {"name": "npo", "wrap": wrap},
        **({"bf16": {"name": "npo", "precision": "bf16"}} if given.bf16 else {}),
    }
    times: dict[str, list[float]] = {work: [] for work in works}
    rates = []
    for _ in range(given.rounds):
        rates.append(matmul_rate(model, given.device))
        for work, fields in works.items():
            times[work] += steps(model, device=given.device, **fields)
    medians = {name: statistics.median(found) for name, found in times.items()}
    for name, found in times.items():
        print(f"{name:10}    {medians[name]:8.3f} s a step ({min(found):.3f} to {max(found):.3f}, {len(found)} steps)")
    work, tokens, padding = flops(model)
    limit = work / statistics.median(rates)
    rate = tokens / medians["npo"]
    print(f"tokens        {rate:8.0f} a second ({tokens} a step; {padding:.0%} of a whole batch is padding)")
    print(f"matmul limit  {limit:8.3f} s a step ({work / 1e9:.0f} GFLOP at {work / limit / 1e9:.0f} GFLOP/s)")
    passes = reading(model, 24)
    of_limit = medians["npo"] / limit
    found = {
        "name": "speed",
        "ratio": round(medians["npo"] / medians["finetune"], 4),
        "unit": "seconds",
        "ours": round(medians["npo"], 4),
        "theirs": round(medians["finetune"], 4),
        "control": round(medians[CONTROL] / medians["finetune"], 4),
        "fastest": round(min(times["npo"]) / min(times["finetune"]), 4),
        "of_whole": round(medians["npo"] / medians["whole"], 4),
        "of_matmul_limit": round(of_limit, 4),
        **({"bf16": round(medians["bf16"] / medians["npo"], 4)} if given.bf16 else {}),
        "reading": round(passes, 3),
    }
    bound = given.size == "60m" and given.device == "cpu"
    end(found, LIMIT if passes <= READ_LIMIT and not (bound and of_limit > OF_MATMUL) else 0.0)


if __name__ == "__main__":
    main()
