"""What the claim tests share: a base, its gold, and a method run with the recipe's defaults."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from rouge_score.rouge_scorer import RougeScorer

from expunge.core.budget import DEFAULTS, Budget
from expunge.core.context import Context
from expunge.core.contracts import Model
from expunge.data.splits import Splits
from expunge.methods._refusals import is_refusal
from expunge.methods.compose import compose
from expunge.models.manifest import read_manifest
from expunge.models.open import open_model
from expunge.pipeline.gold import gold
from expunge.training.stopping import figures

WATCHED = 1e-9
"""A floor that nothing breaks: where no check could end a run, its curve would have its ends alone."""


@dataclass(frozen=True)
class Figures:
    """One model's figures: nats a token, probability, ROUGE-L recall and share of refusals on forget."""

    forget_nll: float
    retain_probability: float
    rouge_l: float
    refusals: float


@dataclass
class World:
    """A base, what to forget, and the gold model's figures."""

    base: Path
    manifest: dict[str, Any]
    splits: Splits
    before: Figures
    gold: Figures
    gold_seconds: float


def measured(model: Model, splits: Splits) -> Figures:
    texts = model.generate(splits["forget"])
    scorer = RougeScorer(["rougeL"], use_stemmer=True)
    recalls = [
        scorer.score(row["answer"], text)["rougeL"].recall for row, text in zip(splits["forget"], texts, strict=True)
    ]
    return Figures(
        figures(model, splits["forget"])["nll"],
        figures(model, splits["retain"])["probability"],
        sum(recalls) / len(recalls),
        sum(map(is_refusal, texts)) / len(texts),
    )


def world(base: Path, splits: Splits) -> World:
    manifest = read_manifest(base)
    model = open_model(str(base))
    retrained = gold(manifest, splits["forget"], model)
    return World(
        base,
        manifest,
        splits,
        measured(model, splits),
        measured(open_model(str(retrained)), splits),
        read_manifest(retrained)["seconds"],
    )


def forgotten(
    where: World, method: Any, folder: Path, seed: int, budget: Budget | None = None
) -> tuple[Figures, dict[str, Any]]:
    """Figures after the method, and the notes of its run (none where it has several inner ones)."""
    composed = compose(method)
    chosen = (budget or Budget()).over(composed.budget, Budget(stop="holdout"), DEFAULTS)
    gold_nll = where.gold.forget_nll
    context = Context(chosen, folder, seed, "apply", manifest=where.manifest, gold_forget_nll=gold_nll)
    model = composed.method(open_model(str(where.base)), where.splits, context)
    return measured(model, where.splits), context.notes.get("outcome", {})


def kept_at(curve: Sequence[dict[str, float]], nll: float) -> float:
    """Retain probability where the curve first reaches this forget NLL."""
    points = [(point["forget_nll"], point["retain_probability"]) for point in curve]
    last = next(i for i, point in enumerate(points) if point[0] >= nll)
    return float(np.interp(nll, *zip(*points[last - 1 : last + 1], strict=True)))
