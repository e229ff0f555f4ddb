#!/usr/bin/env python3
"""What an NPO step and a default evaluation cost.

1. The time of an NPO step against a fine-tuning step on the same rows: short runs of both take turns
   in one process, and the medians are compared. The control asks a second model for the origin at
   every step, as is common elsewhere; ours is read once, before the first step.
2. Tokens a second, and the share of the machine's own matmul rate that they come to (6 FLOPs a
   parameter and token; the head's at counted positions only).
3. The default evaluation in forward passes of the data, generation apart, counted at the model
   itself and by the meter.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from typing import Any

import torch
from _shared import TOKENS, data, end, llama, rows, run, tokenizer

from expunge.core.contracts import Update
from expunge.evaluation.reading import Meter, read
from expunge.evaluation.scores import requirements

LIMIT = 1.15
READ_LIMIT = 1.5
STEPS = 3
"""Steps of a short run; the first warms up and does not count."""


def steps(model: Any, name: str, wrap: Any = None) -> list[float]:
    return [line["seconds"] for line in run(model, name, STEPS, wrap=wrap)[1:]]


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


def matmul_rate(device: str, seconds: float = 1.5) -> float:
    """FLOP/s of large float32 products, the best of several."""
    a = torch.randn(1024, 1024, device=device)
    best, started = 0.0, time.perf_counter()
    while time.perf_counter() - started < seconds:
        began = time.perf_counter()
        for _ in range(4):
            a @ a
        if device == "cuda":
            torch.cuda.synchronize()
        best = max(best, 4 * 2 * 1024**3 / (time.perf_counter() - began))
    return best


def throughput(model: Any, step: float, device: str) -> None:
    """Prints tokens a second and the achieved share."""
    splits, _ = data("finetune", model.tokenizer, 1)
    batch = model.collate(splits["retain"])
    tokens, counted = int(batch.inputs["attention_mask"].sum()), int(batch.n_B.sum())
    head = model.module.get_output_embeddings().weight.numel()
    body = sum(p.numel() for p in model.module.parameters()) - 2 * head  # untied: embedding and head are alike
    flops, rate = 6 * (body * tokens + head * counted), matmul_rate(device)
    print(f"tokens        {tokens / step:8.0f} a second ({tokens} a step of 8 rows, {TOKENS} each, {counted} counted)")
    print(f"achieved      {flops / step / rate:8.1%} of {rate / 1e9:.0f} GFLOP/s (measured float32 matmul)")


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
    given = parser.parse_args()
    torch.set_num_threads(2)
    model = llama(given.size, tokenizer(), given.device)
    times: dict[str, list[float]] = {"finetune": [], "npo": [], "control": []}
    run(model, "finetune", 1)
    wrap = second_model(model)
    for _ in range(given.rounds):
        times["finetune"] += steps(model, "finetune")
        times["npo"] += steps(model, "npo")
        times["control"] += steps(model, "npo", wrap)
    medians = {name: statistics.median(found) for name, found in times.items()}
    for name, found in times.items():
        print(f"{name:10}    {medians[name]:8.3f} s a step ({min(found):.3f} to {max(found):.3f}, {len(found)} steps)")
    throughput(model, medians["npo"], given.device)
    passes = reading(model, 24)
    found = {
        "name": "speed",
        "ratio": round(medians["npo"] / medians["finetune"], 4),
        "unit": "seconds",
        "ours": round(medians["npo"], 4),
        "theirs": round(medians["finetune"], 4),
        "control": round(medians["control"] / medians["finetune"], 4),
        "fastest": round(min(times["npo"]) / min(times["finetune"]), 4),
        "reading": round(passes, 3),
    }
    end(found, LIMIT if passes <= READ_LIMIT else 0.0)


if __name__ == "__main__":
    main()
