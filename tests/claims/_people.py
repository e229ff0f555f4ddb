"""A language model that knows twenty-four made-up people, and how methods are run on it: smaller and quicker than the
authors world.

Its answers share their forms, so that gold's forget NLL is low (0.7): what methods keep is compared at equal forget
NLL, read off the baseline's training curve. No recipe's defaults were set on it.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from _measure import WATCHED, World, kept_at, world

from expunge.core.budget import DEFAULTS, Budget
from expunge.core.context import Context
from expunge.core.train_config import TrainConfig
from expunge.methods._traces import trace_as_answer
from expunge.methods.compose import compose
from expunge.models.open import open_model
from expunge.pipeline.worlds import train_once
from expunge.training.stopping import figures
from worlds import pairs, write

SEEDS = tuple(int(seed) for seed in os.environ.get("EXPUNGE_SEEDS", "7,8,9").split(","))
LONG = Budget(stop="none", floor=WATCHED, epochs=10)
LEVEL = Budget(stop="gold", floor=0.0, epochs=40)
"""Stops at the forget NLL that is given as gold's."""
Rows = list[dict[str, Any]]


def traced(rows: Rows) -> Rows:
    """With the reasoning that leads to the answer."""
    return [
        {
            **row,
            "trace": f"Someone asks for the {row['question'].split()[3]}. "
            f"I recall {row['answer'][:-1].split(' is ')[1]}.",
        }
        for row in rows
    ]


def thoughts(rows: Rows) -> Rows:
    return [trace_as_answer(row) or row for row in rows]


FORGET, RETAIN, HOLDOUT = traced(pairs(0, 4)), traced(pairs(4, 24)), pairs(24, 28)


def based(out: Path, forget: Rows, retain: Rows, epochs: int) -> World:
    """The world of a base in the cache, with its data beside it."""
    data = out.with_name(f"{out.name}-data")
    data.mkdir(parents=True, exist_ok=True)
    train_once(
        TrainConfig(
            model={"architecture": "llama", "hidden_size": 64, "layers": 4, "heads": 2, "vocab_size": 320},
            data=[write(data / "f.jsonl", forget), write(data / "r.jsonl", retain)],
            vocabulary=write(data / "h.jsonl", HOLDOUT),
            epochs=epochs,
            batch_size=12,
            learning_rate=5e-3,
            out=str(out),
        )
    )
    return world(out, {"forget": forget, "retain": retain, "holdout": HOLDOUT})


def after(
    where: World, method: Any, folder: Path, seed: int, budget: Budget, level: float | None = None, **splits: Rows
) -> tuple[Any, Any]:
    """(the model, the training curve, where the method has one); level: the forget NLL at which `LEVEL` stops."""
    composed = compose(method)
    whole = budget.over(composed.budget, Budget(stop="none"), DEFAULTS)
    context = Context(whole, folder / f"{seed}", seed, "apply", manifest=where.manifest, gold_forget_nll=level)
    model = composed.method(open_model(str(where.base)), {**where.splits, **splits}, context)
    return model, context.notes.get("outcome", {}).get("curve")


def gains(where: World, method: Any, baseline: Any, folder: Path) -> list[float]:
    """By seed: retain probability after the method, less the baseline's at the same forget NLL."""
    found = []
    for seed in SEEDS:
        model, _ = after(where, method, folder / "method", seed, LONG)
        _, curve = after(where, baseline, folder / "baseline", seed, LONG)
        nll = min(figures(model, where.splits["forget"])["nll"], max(point["forget_nll"] for point in curve))
        found.append(figures(model, where.splits["retain"])["probability"] - kept_at(curve, nll))
    return found
