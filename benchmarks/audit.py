#!/usr/bin/env python3
"""A standard audit against the forward passes that it needs; one shared read against reading metric by metric.

ratio: processor time of the audit of the embedded authors world's model and its gold (both cached, nothing read
before) over that of the passes alone: what the cards of the attacks say, and one read of each split. shared,
control: rows forwarded by one read for all metrics and by a read for each metric, over the rows of the data.
wall: seconds by the clock, of the audit alone, without the imports of a command.

--reading authors|60m measures instead what answers in their prompt's row save: processor time of reading the forget
set with its variants, over that with each answer in a row of its own, in turn; control: the same of the answers alone,
which share nothing. generation: time of greedy answers, over that of transformers' own loop.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from _shared import end, llama

from expunge import audit
from expunge.attacks.shared.recovery import answer_probability
from expunge.core.registry import everything
from expunge.data.load import load
from expunge.evaluation import attack as attacking
from expunge.evaluation.reading import Meter, read
from expunge.evaluation.scores import requirements
from expunge.models.manifest import read_manifest
from expunge.models.new_lm import texts_of, tokenizer_for
from expunge.models.open import open_model
from expunge.pipeline.gold import gold
from expunge.pipeline.worlds import build

LIMIT = 3.0
READING_LIMIT = 0.95
CHANNELS = {"nll", "logp", "argmax", "moments", "variants"}
"""Of the forget set's reading in a run."""
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


def in_turn(model: Any, work: Callable[[], Any], rounds: int) -> tuple[float, float, list[Any]]:
    """(median processor seconds with shared prompts, without, the results of both) of a piece of work, in turn."""
    times: dict[bool, list[float]] = {True: [], False: []}
    results = []
    for turn in range(2 * rounds):
        model.plain_attention = not turn % 2
        began = time.process_time()
        results.append(work())
        times[model.plain_attention].append(time.process_time() - began)
    model.plain_attention = True
    return statistics.median(times[True]), statistics.median(times[False]), results[-2:]


def reading(which: str, count: int, rounds: int) -> None:
    """Prints what shared prompts save in reading, and dropped rows in generation."""
    rows = list(load("builtin:authors/forget", "forget"))[:count]
    model: Any = open_model(str(build("builtin:authors"))) if which == "authors" else None
    if model is None:
        model = llama(which, tokenizer_for(texts_of(rows), 1000), "cpu")
        model.check_batches()
    assert model.plain_attention
    read(model, "forget", rows[:2], CHANNELS, cache=False)
    ours, theirs, (one, other) = in_turn(model, lambda: read(model, "forget", rows, CHANNELS, cache=False), rounds)
    alone, apart, _ = in_turn(model, lambda: read(model, "forget", rows, CHANNELS - {"variants"}, cache=False), rounds)
    dropped, whole, texts = in_turn(model, lambda: model.generate(rows), rounds if which == "authors" else 1)
    names = ("logp", "perturbed")
    pairs = [pair for name in names for pair in zip(getattr(one, name), getattr(other, name), strict=True)]
    difference = max(float(abs(a - b).max()) for a, b in pairs if len(a))
    print(f"largest difference of a log-probability or mean loss {difference:.1e}; texts equal: {texts[0] == texts[1]}")
    found = {"name": f"reading {which}", "ratio": round(ours / theirs, 3), "unit": "seconds", "ours": round(ours, 2)}
    found |= {"theirs": round(theirs, 2), "control": round(alone / apart, 3), "generation": round(dropped / whole, 3)}
    end(found | {"difference": difference}, READING_LIMIT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=480, help="examples of each split at most")
    parser.add_argument("--reading", choices=("authors", "60m"), help="measure reading alone, on this model")
    parser.add_argument("--rounds", type=int, default=3, help="turns of each kind, with --reading")
    chosen = parser.parse_args()
    if chosen.reading:
        reading(chosen.reading, chosen.rows, chosen.rounds)
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
