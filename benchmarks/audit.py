#!/usr/bin/env python3
"""A standard audit against the forward passes that it needs; one shared read against reading metric by metric.

ratio: processor time of the audit of the embedded authors world's model and its gold (both cached, nothing read
before) over that of the passes alone: what the cards of the attacks say, and one read of each split. shared,
control: rows forwarded by one read for all metrics and by a read for each metric, over the rows of the data.
wall: seconds by the clock, of the audit alone, without the imports of a command.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from _shared import end

from expunge import audit
from expunge.attacks.shared.recovery import answer_probability
from expunge.core.registry import everything
from expunge.data.load import load
from expunge.evaluation import attack as attacking
from expunge.evaluation.reading import Meter, read
from expunge.evaluation.scores import requirements
from expunge.models.manifest import read_manifest
from expunge.models.open import open_model
from expunge.pipeline.gold import gold
from expunge.pipeline.worlds import build

LIMIT = 3.0
SPLITS = ("forget", "retain", "holdout")


def one_pass(model: Any, rows: list[Any], rounds: int = 3) -> float:
    """Processor seconds of one forward pass over the rows, the least of several."""
    answer_probability(model, rows)
    times = []
    for _ in range(rounds):
        began = time.process_time()
        answer_probability(model, rows)
        times.append(time.process_time() - began)
    return min(times)


def readings(model: Any, splits: dict[str, list[Any]]) -> tuple[float, float]:
    """Rows forwarded over rows of the data: by one shared read, and by a read for each metric and channel set."""
    wanted = {
        name: set(channels) - {"generation"} for name, channels in requirements(model.capabilities, splits).items()
    }
    metrics = [*everything("metrics"), *(p for p in everything("attacks") if not p.card.level)]
    apart = []
    for plugin in metrics:
        for need, channels in plugin.card.needs.items():
            for name in splits if need == "split" else [need] if need in splits else []:
                asked_for = {str(c).rstrip("?") for c in channels} & wanted[name]
                if asked_for:
                    apart.append((name, asked_for))
    counts = []
    for plan in (wanted.items(), apart):
        meter = Meter()
        for name, channels in plan:
            read(model, name, splits[name], channels, meter=meter, cache=False)
        counts.append(sum(n * len(splits[name.split()[1]]) for name, n in meter.passes.items()))
    rows = sum(map(len, splits.values()))
    return counts[0] / rows, counts[1] / rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=480, help="examples of each split at most")
    chosen = parser.parse_args()
    folder = str(build("builtin:authors"))
    splits = {name: list(load(f"builtin:authors/{name}", name))[: chosen.rows] for name in SPLITS}
    model: Any = open_model(folder)
    twin = str(gold(read_manifest(Path(folder)), load("builtin:authors/forget", "forget"), model))
    with tempfile.TemporaryDirectory() as cache:
        os.environ["EXPUNGE_CACHE"] = cache
        began, clock = time.process_time(), time.monotonic()
        evidence = audit(folder, **splits, gold=twin)
        ours, wall = time.process_time() - began, time.monotonic() - clock
    able = attacking.plugins("standard", model.capabilities)
    few = len(splits["forget"])
    reads = sum(n * len(splits[name.split()[1]]) for name, n in evidence["cost"]["forward_passes"].items()) / few
    passes = 2 * sum(plugin.card.passes for plugin in able) + reads
    theirs = one_pass(model, splits["forget"]) * passes
    some = {name: rows[:12] for name, rows in splits.items()}
    shared, apart = readings(model, some)
    known = {f"{plugin.card.side}_{plugin.name}" for plugin in everything("attacks")}
    ran = {s["name"] for s in evidence["scores"] if s["status"] == "measured" and s["subject"] == "after"} & known
    print(
        f"{len(ran)} attacks on two models, {passes:.0f} passes over {few} examples, {torch.get_num_threads()} threads"
    )
    print(f"reading: {shared:.2f} rows a row of the data in one read, {apart:.2f} metric by metric")
    end(
        {
            "name": "standard audit",
            "ratio": round(ours / theirs, 3),
            "unit": "seconds",
            "ours": round(ours, 2),
            "theirs": round(theirs, 2),
            "control": round(apart, 2),
            "shared": round(shared, 2),
            "wall": round(wall, 2),
            "attacks": len(ran),
        },
        LIMIT,
    )


if __name__ == "__main__":
    main()
