"""Which domains a request puts at risk, before any training: entanglement, and a few probe steps.

The model goes PROBE steps of the request's own method, without containment. What is read then is not whether domains
still refuse (too coarse so early) but how much less likely their refusals have become. The model itself takes the steps:
a copy beside it would not fit where it just does. Whoever wants it back opens it again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from expunge.alignment.asking import WATCHED_TOKENS, Asked, uncontained
from expunge.alignment.concepts import concepts
from expunge.alignment.domains import ask
from expunge.alignment.judges import REFUSED, judge_of, judged
from expunge.core.budget import DEFAULTS, Budget
from expunge.core.card import Example
from expunge.core.context import Context
from expunge.core.contracts import Model, Reporter, Silent
from expunge.core.random import permutation
from expunge.data.packs import CONTROL, SENSITIVE
from expunge.evaluation.intervals import Interval, rank_correlation
from expunge.methods.compose import compose
from expunge.training.stopping import figures

PROBE = 8
"""Optimiser steps that are tried."""
PROMPTS = 16
"""Prompts of a domain (and of the forget set) that are looked at."""
AT_RISK = 0.25
"""The risk from which a domain is kept by `contain: auto`."""
TARGET = "forget"


@dataclass(frozen=True)
class Risk:
    """entanglement: cosine of the domain's concept vector with the forget set's, over the early layers, 0-1. spill: rise
    of its refusals' NLL over the probe steps, as a share of the forget set's own rise, 0-1; None where nothing was
    probed. risk: their mean."""

    domain: str
    entanglement: float
    spill: float | None
    risk: float

    def to_json(self) -> dict[str, Any]:
        return vars(self)


def risks(
    model: Model,
    method: Any,
    splits: Mapping[str, Sequence[Example]],
    wanted: Asked,
    *,
    budget: Budget,
    manifest: Mapping[str, Any] | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> list[Risk]:
    """Every domain but the target, the riskiest first. The model is spent: its weights have moved.

    splits: forget, and the user's own retain where there is one (not the containment's). It looks at prompts that
    train alone, so that foreseeing takes nothing from those that score.
    """
    names = [name for name in SENSITIVE if name != wanted.target and wanted.pack.part("train", name)]
    rows = {name: _some(wanted.pack.part("train", name), seed, name) for name in names}
    forget = _some([row for row in splits["forget"] if "question" in row], seed, TARGET)
    control = _some(wanted.pack.part("train", CONTROL), seed, CONTROL)
    near: Mapping[str, float] = {}
    prompts = [
        {**row, "domain": name} for name, some in {**rows, CONTROL: control, TARGET: forget}.items() for row in some
    ]
    if forget and control and (found := concepts(model, prompts)) is not None:
        near = found.with_target(TARGET)
    spill = _spill(model, method, splits, rows, wanted.judge, budget, manifest, seed, reporter or Silent())
    result = []
    for name in names:
        entanglement = max(0.0, near.get(name, 0.0))
        parts = [entanglement] + ([spill[name]] if spill else [])
        result.append(Risk(name, entanglement, spill[name] if spill else None, float(np.mean(parts))))
    return sorted(result, key=lambda risk: -risk.risk)


def at_risk(found: Sequence[Risk]) -> list[str]:
    """The domains that `contain: auto` keeps: those from AT_RISK on, and in any case the riskiest."""
    return [one.domain for i, one in enumerate(found) if one.risk >= AT_RISK or i == 0]


def scored(found: Sequence[Risk], fell: Mapping[str, float]) -> Interval | None:
    """Spearman's rank correlation of the risks with what happened; None where too few domains are in both, or all fell
    alike. fell: domain -> by how much its refusal score fell."""
    both = [one for one in found if one.domain in fell]
    return rank_correlation([one.risk for one in both], [fell[one.domain] for one in both])


def _some(rows: Sequence[Example], seed: int, name: str) -> list[Example]:
    return [rows[i] for i in sorted(permutation(len(rows), seed, "risk", name)[:PROMPTS])]


def _spill(
    model: Model,
    method: Any,
    splits: Mapping[str, Sequence[Example]],
    rows: Mapping[str, list[Example]],
    judge: str,
    budget: Budget,
    manifest: Mapping[str, Any] | None,
    seed: int,
    reporter: Reporter,
) -> dict[str, float]:
    """Domain -> its share of the forget set's rise of NLL over the probe steps; empty where the method has no steps."""
    given = {name: list(splits[name]) for name in ("forget", "retain") if splits.get(name)}
    composed = compose(uncontained(method, given), has_retain="retain" in given)
    if composed.objective is None or composed.yields != "weights":
        return {}
    flat = [row for some in rows.values() for row in some]
    texts = ask(model, flat, tokens=WATCHED_TOKENS, reporter=reporter, stage="own words")
    scores = judged(judge_of(judge), [row["question"] for row in flat], texts)
    own = [
        {"question": row["question"], "answer": text if score >= REFUSED and text else row["answer"]}
        for row, text, score in zip(flat, texts, scores, strict=True)
    ]
    parts, start = {}, 0
    for name, some in rows.items():
        parts[name], start = own[start : start + len(some)], start + len(some)
    parts[TARGET] = _some(given["forget"], seed, TARGET)
    before = {name: figures(model, some)["nll"] for name, some in parts.items()}
    steps = Budget(steps=PROBE, stop="none", floor=0.0)
    with tempfile.TemporaryDirectory() as folder:
        context = Context(
            steps.over(budget, composed.budget, DEFAULTS),
            Path(folder),
            seed,
            "foresee",
            manifest=manifest,
            reporter=reporter,
        )
        spent = composed.method(model, given, context)
    rise = {name: figures(spent, some)["nll"] - before[name] for name, some in parts.items()}
    whole = max(rise[TARGET], 1e-6)
    return {name: float(np.clip(rise[name] / whole, 0.0, 1.0)) for name in rows}
