"""The model and the data as they will train."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.alignment import risk
from expunge.alignment.training_data import prepare_splits
from expunge.core.card import Example
from expunge.core.contracts import Model, Reporter
from expunge.data.examples import answer_of, question_of
from expunge.pipeline.containment import foreseen
from expunge.pipeline.load import opened
from expunge.pipeline.plan import Plan


def ready(plan: Plan, folder: Path, reporter: Reporter) -> Model:
    """The model before the change, and the data as they will train: refusals in the model's own words, and containment
    in the domains at risk alone."""
    risky = risk.at_risk(foreseen(plan, folder, reporter)) if plan.aligned and plan.aligned.auto else None
    model = opened(plan, reporter)
    if plan.aligned is not None and (plan.aligned.target or plan.aligned.contain):
        plan.splits, notes = prepare_splits(plan.aligned, model, plan.splits, risky, reporter)
        plan.notes += notes
    plan.notes += own_tokens(plan, model)
    return model


WORD = 4
"""Letters from which on a token of its own can give a name away."""


def own_tokens(plan: Plan, model: Model) -> list[str]:
    """Says so where a tokenizer that was trained on the forget set has words of it that no other example has."""
    spec = (plan.manifest or {}).get("model")
    tokenizer = getattr(model, "tokenizer", None)
    if tokenizer is None or not isinstance(spec, Mapping) or "architecture" not in spec:
        return []
    left = _ids(tokenizer, plan.splits.get("forget", []))
    for name, rows in plan.splits.items():
        if name in ("retain", "holdout", "test", "reference"):
            for start in range(0, len(rows), 256):
                left -= _ids(tokenizer, rows[start : start + 256]) if left else set()
    count = sum(len(tokenizer.decode([i]).strip()) >= WORD for i in left)
    return (
        [
            f"The tokenizer was trained on the forget set too: {count} of its tokens are words or parts of words that occur "
            "in no other example, and they stay in the model's folder."
        ]
        if count
        else []
    )


def _ids(tokenizer: Any, rows: Sequence[Example]) -> set[int]:
    texts = [text for row in rows for text in (question_of(row), answer_of(row)) if text]
    return {i for ids in tokenizer(texts)["input_ids"] for i in ids} if texts else set()
