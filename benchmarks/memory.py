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
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys

LIMIT, PARTS_LIMIT = 1.08, 0.8
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

    from expunge.core.contracts import Silent

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


def measured(which: str, size: str, device: str) -> dict[str, int]:
    """The child's figures, from a fresh process."""
    command = [sys.executable, __file__, "--child", which, "--size", size, "--device", device]
    calm = {**os.environ, "MALLOC_MMAP_THRESHOLD_": str(2**20), "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run(command, capture_output=True, text=True, env=calm)
    if done.returncode:
        sys.exit(done.stderr)
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    print(
        f"{which:10} {found['peak'] / 1e6:8.0f} MB net of {found['before'] / 1e6:.0f} MB, "
        f"{found['parameters'] / 1e6:.1f} M parameters"
    )
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", default="60m", choices=["60m", "16m"])
    parser.add_argument("--device", default="cpu", choices=["cpu", "cuda"])
    parser.add_argument("--second-model", action="store_true", help="hold a deep copy of the model while NPO runs")
    parser.add_argument("--parts", action="store_true", help="a step in parts by length against one whole batch")
    parser.add_argument("--child", choices=["npo", "finetune", "control", *UNEVEN], help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.child:
        child(given.child, given.size, given.device)
        return
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
