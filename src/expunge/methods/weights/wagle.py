"""WAGLE: strategic weight attribution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Gt, Le

from expunge.core.context import Context
from expunge.core.contracts import MethodCard, Model, Trainable, Weights
from expunge.core.random import permutation
from expunge.methods._masks import make_trainable, mask_largest
from expunge.methods._statistics import fisher, gradient

CARD = MethodCard(
    "Weight attribution for unlearning (WAGLE)",
    paper="arXiv:2410.17509",
    equation="8",
    needs={"forget": (), "retain": ()},
    fidelity="faithful",
    shown="At equal forget NLL it keeps as much of retain as all weights or a random mask of its size; more is not "
    "shown.",
    distributed=True,
)
RECIPE = {"forget": "npo", "retain": "cross_entropy", "weights": "wagle"}
SAMPLE = 256
"""Retain examples that the attribution reads, at most."""


def wagle(*, density: Annotated[float, Gt(0), Le(1)] = 0.8, gamma: Annotated[float, Gt(0)] | None = None) -> Weights:
    """Train only the weights that matter to the forget set and not to retain.

    Keeps the largest `density` of |(theta - grad retain / gamma) * grad forget|. gamma is the
    retain loss's curvature; by default the mean diagonal of its Fisher information.
    """

    def choose(model: Model, splits: Mapping[str, Any], context: Context) -> Trainable:
        parameters = make_trainable(model)
        retain = splits["retain"]
        rows = [retain[i] for i in sorted(permutation(len(retain), context.seed, context.stage, "wagle")[:SAMPLE])]
        forget_slope, retain_slope = gradient(model, splits["forget"]), gradient(model, rows)
        curvature = gamma
        if curvature is None:
            diagonal = fisher(model, rows, batch=8)
            entries = sum(value.numel() for value in diagonal.values())
            curvature = max(1e-8, sum(float(value.sum()) for value in diagonal.values()) / entries)
        scores = {
            name: ((parameters[name].detach() - retain_slope[name] / curvature) * forget_slope[name]).abs()
            for name in parameters
        }
        return Trainable(parameters, mask_largest(scores, density))

    return choose
