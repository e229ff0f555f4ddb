"""Joint descent on the forget and the retain gradient."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from expunge.core.contracts import Losses, MethodCard, Update
from expunge.methods.updates._backward import gradients_of

CARD = MethodCard(
    "Joint descent along the bisector of the two unit gradients",
    paper="doi:10.1016/j.crma.2012.03.014",
    equation="MGDA's min-norm point, of the normalised gradients",
    ignores=("forget_weight", "alpha"),
    fidelity="variant",
    leaves_out="the min-norm point of the gradients themselves: they are normalised first, and so bisected",
    shown="At gold's forget NLL it keeps a tenth more of the retain probability than the sum with fixed weights.",
    distributed=True,
)
RECIPE = {"forget": "npo", "retain": "cross_entropy", "update": "multi_objective"}
NEGLIGIBLE_NORM = 1e-3
"""Share of the larger gradient's norm below which the smaller one is ignored, as retain's at the reference model."""


def weights_of(forget: Sequence[Tensor], retain: Sequence[Tensor]) -> tuple[float, float]:
    """Return factors on the two gradients: the least-norm point of their normalised convex hull, at their mean norm.

    For unit gradients this is the bisector; it points down both losses unless they are opposed.
    """
    size_f, size_r = _norm(forget), _norm(retain)
    large = max(size_f, size_r)
    if large == 0.0:
        return 0.0, 0.0
    if size_r < NEGLIGIBLE_NORM * large:
        return 1.0, 0.0
    if size_f < NEGLIGIBLE_NORM * large:
        return 0.0, 1.0
    scale = 0.5 * (size_f + size_r)
    return 0.5 * scale / size_f, 0.5 * scale / size_r


def _norm(parts: Sequence[Tensor]) -> float:
    return float(torch.stack([part.float().norm() for part in parts]).norm()) if parts else 0.0


def multi_objective() -> Update:
    """Descend both losses at once, along the bisector of their gradients, however large either is.

    The sum of the two unit gradients times half of the gradients' mean norm: the least-norm point of their convex hull,
    where MGDA takes that of the gradients themselves. A gradient below a thousandth of the other is left out. The
    losses' weights, `alpha` and `forget_weight`, would change the step's length alone and are refused.
    """

    def update(losses: Losses, parameters: Sequence[nn.Parameter]) -> None:
        found = {name: gradients_of(losses, name, parameters) for name in ("forget", "retain")}
        forget = [g for g in found["forget"] if g is not None]
        retain = [g for g in found["retain"] if g is not None]
        a, b = weights_of(forget, retain)
        for p, f, r in zip(parameters, found["forget"], found["retain"], strict=True):
            parts = [factor * g for factor, g in ((a, f), (b, r)) if g is not None]
            if parts:
                p.grad = sum(parts[1:], parts[0])

    return Update(update)
