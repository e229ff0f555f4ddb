"""The domains that a request puts at risk, before any training: entanglement, and a few probe steps.

The model takes PROBE_STEPS steps of the request's own method, without containment. What is read then is not whether
domains still refuse (too coarse so early) but how much less likely their refusals have become. The model itself takes
the steps, since memory may not hold a copy. A caller that still needs the model opens it again.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from expunge.alignment.concepts import concepts
from expunge.alignment.domains import generate_answers
from expunge.alignment.judges import REFUSED, judge_of, refusal_scores
from expunge.alignment.spec import WATCHED_TOKENS, AlignmentSpec
from expunge.alignment.training_data import without_retain_term
from expunge.core.budget import DEFAULTS, Budget
from expunge.core.card import Example
from expunge.core.context import Context
from expunge.core.contracts import Model, Reporter, Silent
from expunge.core.random import permutation
from expunge.data.packs import CONTROL, SENSITIVE
from expunge.evaluation.intervals import Interval, rank_correlation
from expunge.methods.compose import compose
from expunge.training.stopping import figures

PROBE_STEPS = 8
PROMPTS_PER_DOMAIN = 16
"""Most prompts of a domain (and of the forget set) that are read."""
AT_RISK = 0.25
"""The risk from which `contain: auto` covers a domain."""
TARGET = "forget"


@dataclass(frozen=True)
class Risk:
    """The risk of a request for one domain.

    entanglement: cosine of the domain's concept vector with the forget set's, over the early layers, 0-1. spill: rise
    of its refusals' NLL over the probe steps, as a share of the forget set's own rise, 0-1; None where nothing was
    probed. risk: their mean.
    """

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
    spec: AlignmentSpec,
    *,
    budget: Budget,
    manifest: Mapping[str, Any] | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> list[Risk]:
    """The risk of every domain but the target, the riskiest first. The model is spent: its weights have moved.

    splits: forget, and the user's own retain where there is one (not the containment's). Only training prompts are
    read, so that the ranking learns nothing from those that score.
    """
    names = [name for name in SENSITIVE if name != spec.target and spec.pack.part("train", name)]
    rows = {name: _sample(spec.pack.part("train", name), seed, name) for name in names}
    forget = _sample([row for row in splits["forget"] if "question" in row], seed, TARGET)
    control = _sample(spec.pack.part("train", CONTROL), seed, CONTROL)
    near: Mapping[str, float] = {}
    prompts = [
        {**row, "domain": name} for name, part in {**rows, CONTROL: control, TARGET: forget}.items() for row in part
    ]
    if forget and control and (vectors := concepts(model, prompts)) is not None:
        near = vectors.with_target(TARGET)
    spill = _spill(model, method, splits, rows, spec.judge, budget, manifest, seed, reporter or Silent())
    result = []
    for name in names:
        entanglement = max(0.0, near.get(name, 0.0))
        parts = [entanglement] + ([spill[name]] if spill else [])
        result.append(Risk(name, entanglement, spill[name] if spill else None, float(np.mean(parts))))
    return sorted(result, key=lambda risk: -risk.risk)


def at_risk(ranking: Sequence[Risk]) -> list[str]:
    """The domains that `contain: auto` covers: those from AT_RISK on, and in any case the riskiest."""
    return [one.domain for i, one in enumerate(ranking) if one.risk >= AT_RISK or i == 0]


def rank_correlation_with_fall(ranking: Sequence[Risk], fell: Mapping[str, float]) -> Interval | None:
    """Spearman's rank correlation of the risks with the fall of refusals.

    fell: domain -> by how much its refusal score fell. None where too few domains are in both, or all fell alike.
    """
    both = [one for one in ranking if one.domain in fell]
    return rank_correlation([one.risk for one in both], [fell[one.domain] for one in both])


def _sample(rows: Sequence[Example], seed: int, name: str) -> list[Example]:
    return [rows[i] for i in sorted(permutation(len(rows), seed, "risk", name)[:PROMPTS_PER_DOMAIN])]


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
    composed = compose(without_retain_term(method, given), has_retain="retain" in given)
    if composed.objective is None or composed.yields != "weights":
        return {}
    parts = _refusals(model, rows, judge, reporter)
    parts[TARGET] = _sample(given["forget"], seed, TARGET)
    before = {name: figures(model, part)["nll"] for name, part in parts.items()}
    steps = Budget(steps=PROBE_STEPS, stop="none", floor=0.0)
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
    rise = {name: figures(spent, part)["nll"] - before[name] for name, part in parts.items()}
    whole = max(rise[TARGET], 1e-6)
    return {name: float(np.clip(rise[name] / whole, 0.0, 1.0)) for name in rows}


def _refusals(
    model: Model, rows: Mapping[str, list[Example]], judge: str, reporter: Reporter
) -> dict[str, list[Example]]:
    """Domain -> its prompts with the model's own refusals, or the pack's where the model does not refuse."""
    flat = [row for part in rows.values() for row in part]
    texts = generate_answers(model, flat, tokens=WATCHED_TOKENS, reporter=reporter, stage="own words")
    scores = refusal_scores(judge_of(judge), [row["question"] for row in flat], texts)
    own = [
        {"question": row["question"], "answer": text if score >= REFUSED and text else row["answer"]}
        for row, text, score in zip(flat, texts, scores, strict=True)
    ]
    parts, start = {}, 0
    for name, part in rows.items():
        parts[name], start = own[start : start + len(part)], start + len(part)
    return parts
