"""Residual knowledge: noisy copies of the forget examples that a classifier still recognises."""

from __future__ import annotations

from typing import Annotated, Any

import numpy as np
from annotated_types import Ge, Gt

from expunge.attacks.shared.recovery import MEANS, figure_of
from expunge.core.card import AttackCard, Example
from expunge.core.contracts import Want
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import NotMeasured
from expunge.models.passes import passes

CARD = AttackCard(
    "Residual knowledge",
    paper="arXiv:2601.22359",
    adversary="query access",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("labels",),
    needs={"forget": {"examples"}},
    level="standard",
    passes=16,
    means=MEANS,
)


def residual(*, radius: Annotated[float, Gt(0)] = 0.25, draws: Annotated[int, Ge(1)] = 16) -> Attack:
    """The share of noisy copies of each forget example that get its label (after Hsu et al. 2025).

    Gaussian noise with a standard deviation of `radius` times that of the forget set's inputs, the same for every
    model. A model may give up an example and still recognise its neighbourhood, which a retrained one does not. The
    paper also uses adversarial noise, which finds more. For tables, and for images given as arrays.
    """

    def attack(target: Target) -> Found:
        key = next((k for k in ("features", "image") if all(_array(row, k) is not None for row in target.forget)), None)
        if key is None:
            raise NotMeasured("the forget set does not consist of arrays")
        inputs = [np.asarray(_array(row, key), dtype=np.float64) for row in target.forget]
        if len({x.shape for x in inputs}) > 1:
            raise NotMeasured("the inputs differ in shape")
        scale = float(np.std(np.stack(inputs))) or 1.0
        draw = np.random.default_rng(target.derive("residual"))
        noise = draw.normal(size=(draws, len(inputs), *inputs[0].shape)) * radius * scale
        copies: list[Example] = [
            {**row, key: (x + e).astype(np.float32)}
            for round_ in noise
            for row, x, e in zip(target.forget, inputs, round_, strict=True)
        ]
        hits = np.zeros(len(copies))
        for batch, out in passes(target.model, copies, Want(frozenset({"argmax"}))):
            hits[batch] = (out.argmax_BT == out.labels_BT)[:, -1].cpu().numpy()
        recovered_N = hits.reshape(draws, len(inputs)).mean(axis=0)
        return Found(
            figure_of(recovered_N, f"{draws} copies each, noise of {radius:g} standard deviations"), recovered_N
        )

    return attack


def _array(row: Example, key: str) -> Any:
    """The example's input in the units that the network sees; None where it is not an array."""
    value = row.get(key)
    if not isinstance(value, np.ndarray | list | tuple):
        return None
    array = np.asarray(value)
    return array / 255 if array.dtype == np.uint8 else array
