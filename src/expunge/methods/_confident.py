"""Labels that a classifier gives to rows without one."""

from __future__ import annotations

from collections.abc import Sequence

from expunge.core.contracts import Example, Model, want_of
from expunge.models.passes import passes


def confident(model: Model, rows: Sequence[Example], sure: float) -> list[Example]:
    """The rows of which the model is sure, under its likeliest class, in their order."""
    found: dict[int, Example] = {}
    for places, out in passes(model, rows, want_of({"logits"})):
        p_B, class_B = out.logits_BTV[:, 0].softmax(-1).max(-1)
        for place, p, label in zip(places, p_B.tolist(), class_B.tolist(), strict=True):
            if p >= sure:
                found[place] = {**rows[place], "label": label}
    return [found[place] for place in sorted(found)]
