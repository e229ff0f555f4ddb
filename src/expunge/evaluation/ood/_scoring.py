"""Scores by name, and the scores of a model's examples in one call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from expunge.core import registry
from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.evaluation.ood._rows import OodScore, Rows, read_rows
from expunge.evaluation.scores import NotMeasured


def scorer(name: str, options: Mapping[str, Any] | None = None, *, where: str = "ood") -> OodScore:
    """The score of that name. It raises NotMeasured for rows without what its card reads, or a figure not finite.

    Raises BadInput for an unknown name or option.
    """
    plugin = registry.load("ood", name, where)
    score: OodScore = plugin.factory(**plugin.validate(options or {}, f"{where}.{name}"))

    def score_rows(known: Rows, rows: Rows) -> np.ndarray:
        lacking = [part for part in plugin.card.reads if not rows.has(part)]
        lacking += [part for part in plugin.card.fits if not known.has(part)]
        if lacking:
            raise NotMeasured(f"{name} needs the model's {lacking[0]}, and it has none that can be read")
        values = np.asarray(score(known, rows), dtype=float)
        if not np.isfinite(values).all():
            raise NotMeasured(f"{name} is not finite on {int((~np.isfinite(values)).sum())} rows")
        return values

    return score_rows


def score_examples(
    model: Model,
    known: Sequence[Example],
    examples: Sequence[Example],
    name: str = "knn",
    options: Mapping[str, Any] | None = None,
) -> np.ndarray:
    """[N] how far each example lies from `known`, rows that are taken to be clean: a detector of what does not belong.

    The examples may be `known` themselves, where a minority of them is suspected. Raises NotMeasured where the model
    is not a classifier with a linear last layer and the score reads it, BadInput for an unknown score or option.
    """
    score = scorer(name, options)
    return score(read_rows(model, known), read_rows(model, examples))
