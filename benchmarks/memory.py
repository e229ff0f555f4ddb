#!/usr/bin/env python3
"""Peak memory of NPO against fine-tuning on the same rows, each in a fresh process.

NPO compares the model with what it was before. We keep that as one number a row, never as a second
model; with --second-model a deep copy is held, as a control that the measure would show it.

Peaks are net of what the process held before the model was built (interpreter and libraries, the
same for all), which makes the ratio stricter than that of the raw high-water marks. On the CPU
large blocks go back to the system at once (MALLOC_MMAP_THRESHOLD_), so that the mark shows what was
held and not how the allocator fragments.

--parts compares an NPO step of 16 + 16 rows of uneven length, in parts by length, with the same step as
one padded batch.

--plan compares the peak that `expunge run --plan` names with the one that is measured: steps of NPO with all
weights, with LoRA and with layers recomputed, and the reading of a split.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
from typing import Any

from expunge.core.reporter import Silent

LIMIT, PARTS_LIMIT, PLAN_LIMIT = 1.08, 0.8, 1.15
STEPS = 2
UNEVEN = ("parts", "whole")
"""Children whose rows are of uneven length."""


def peak(cuda: bool) -> int:
    """Bytes: the high-water mark of this process, or of the GPU's allocator."""
    if cuda:
        import torch

        return torch.cuda.max_memory_allocated()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def child(which: str, size: str, device: str) -> None:
    """One run; prints its net peak."""
    import copy

    import torch
    from _shared import data, llama, run, run_on, tokenizer
    from speed import BATCH, LONGEST, SHORTEST

    torch.set_num_threads(2)
    words = tokenizer()
    run(llama("nothing", words, device), "finetune", 1)  # loads all code and libraries
    before = peak(device == "cuda")
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    model = llama(size, words, device)

    class Last(Silent):
        """Reads the mark when the last step is done, before anything is saved."""

        found = 0

        def advance(self, name: str, done: int, note: str = "") -> None:
            self.found = peak(device == "cuda")

    second = copy.deepcopy(model.module) if which == "control" else None
    reporter = Last()
    if which in UNEVEN:
        given = data("npo", words, STEPS + 1, BATCH, LONGEST, SHORTEST)
        run_on(given, model, "npo", STEPS, reporter, micro_batch_size=BATCH if which == "whole" else "auto")
    else:
        run(model, "finetune" if which == "finetune" else "npo", STEPS, reporter)
    parameters = sum(p.numel() for p in model.module.parameters())
    print(
        json.dumps(
            {"peak": reporter.found - before, "before": before, "parameters": parameters, "second": second is not None}
        )
    )


PLANNED = ("all", "lora", "recomputed", "reading")
"""Children whose peak is compared with the plan's."""


def planned(which: str, size: str) -> None:
    """Prints the plan's peak and the measured one, beyond what the process held before the model was built."""
    import ctypes
    import gc
    import tempfile
    from pathlib import Path

    import psutil
    import torch
    from _shared import RATE, llama, rows, tokenizer

    from expunge.core.budget import DEFAULTS, Budget
    from expunge.core.context import Context
    from expunge.evaluation.reading import read
    from expunge.evaluation.scores import requirements
    from expunge.methods.compose import compose
    from expunge.pipeline._workload import estimates, workload

    torch.set_num_threads(1)
    words = tokenizer()
    spec = {"forget": "npo", "retain": "cross_entropy", "weights": "lora" if which == "lora" else "all"}
    splits = {name: rows(16, seed, words) for seed, name in enumerate(("forget", "retain", "holdout"))}
    trained = {name: found[:8] for name, found in splits.items()}
    given = {"steps": 2, "batch_size": 4, "learning_rate": RATE, "stop": "none", "floor": 0.0, "precision": "fp32"}
    budget = Budget(**given, gradient_checkpointing=which == "recomputed").over(DEFAULTS)

    class Steps(Silent):
        """Reads the mark when the last step is done, before anything is saved."""

        found = 0

        def advance(self, name: str, done: int, note: str = "") -> None:
            self.found = peak(False)

    def work(model: Any, folder: str) -> tuple[float, int]:
        composed = compose(spec)
        used = splits if which == "reading" else trained
        guess, _ = estimates(composed, model, budget, workload(composed, model, used, budget, 0), Path(folder))
        if which == "reading":
            wanted = set(requirements(model.capabilities, splits)["forget"]) - {"generation"}
            read(model, "forget", splits["forget"], wanted, cache=False)
            return 1.05 * (guess.weights + guess.reading), peak(False)
        reporter = Steps()
        composed.method(model, trained, Context(budget, Path(folder), reporter=reporter))
        return guess.peak, reporter.found

    with tempfile.TemporaryDirectory() as folder:
        work(llama("nothing", words, "cpu"), folder + "/first")  # loads all code and libraries
        gc.collect()
        if sys.platform == "linux":
            ctypes.CDLL("libc.so.6").malloc_trim(0)
        before = psutil.Process().memory_info().rss
        guess, after = work(llama(size, words, "cpu"), folder + "/second")
    print(json.dumps({"plan": round(guess), "measured": after - before}))


def compare_plans(size: str) -> None:
    """A line for each kind of work; ends with 1 where plan and measurement are further apart than PLAN_LIMIT."""
    from _shared import end

    found = {}
    for which in PLANNED:
        one = child_of(which, size, "cpu")
        found[which] = one["plan"] / one["measured"]
        print(f"{which:10} {one['measured'] / 1e6:8.1f} MB, {one['plan'] / 1e6:8.1f} by the plan, {found[which]:.2f}")
    worst = max(found.values(), key=lambda ratio: max(ratio, 1 / ratio))
    ratios = {name: round(ratio, 3) for name, ratio in found.items()}
    end({"name": "memory of plans", "ratio": round(max(worst, 1 / worst), 3), "unit": "bytes", **ratios}, PLAN_LIMIT)


def child_of(which: str, size: str, device: str) -> dict[str, int]:
    """The figures of a child, from a fresh process."""
    command = [sys.executable, __file__, "--child", which, "--size", size, "--device", device]
    calm = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**16), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=calm)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def measured(which: str, size: str, device: str) -> dict[str, int]:
    """The child's figures, printed."""
    found = child_of(which, size, device)
    print(
        f"{which:10} {found['peak'] / 1e6:8.0f} MB net of {found['before'] / 1e6:.0f} MB, "
        f"{found['parameters'] / 1e6:.1f} M parameters"
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="60m", choices=["60m", "16m", "1m"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--second-model", action="store_true", help="hold a deep copy of the model while NPO runs")
    parser.add_argument("--parts", action="store_true", help="a step in parts by length against one whole batch")
    parser.add_argument("--plan", action="store_true", help="the plan's peaks against the measured ones")
    parser.add_argument("--child", choices=["npo", "finetune", "control", *UNEVEN, *PLANNED], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child in PLANNED:
        planned(given.child, given.size)
        return
    if given.child:
        child(given.child, given.size, given.device)
        return
    if given.plan:
        compare_plans(given.size)
    from _shared import end

    if given.parts:
        ours, theirs = (measured(which, given.size, given.device)["peak"] for which in UNEVEN)
        found = {"name": "memory of parts", "ratio": round(ours / theirs, 4), "unit": "bytes"}
        end({**found, "ours": ours, "theirs": theirs}, PARTS_LIMIT)
    theirs = measured("finetune", given.size, given.device)["peak"]
    control = measured("control", given.size, given.device)["peak"]
    ours = control if given.second_model else measured("npo", given.size, given.device)["peak"]
    end(
        {
            "name": "memory",
            "ratio": round(ours / theirs, 4),
            "unit": "bytes",
            "ours": ours,
            "theirs": theirs,
            "control": round(control / theirs, 4),
        },
        LIMIT,
    )


if __name__ == "__main__":
    main()
