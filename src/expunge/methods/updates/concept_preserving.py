"""The forget gradient without what would undo retain's."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from expunge.core.contracts import Losses, MethodCard, Update
from expunge.methods.updates._backward import gradients_of

CARD = MethodCard(
    "Concept-preserving gradient",
    paper="arXiv:2405.15304",
    equation="11, projected over all weights together",
    fidelity="variant",
    leaves_out="projection tensor by tensor, under which the whole may still conflict; the retain gradient is "
    "descended too, where the published code only lets it veto",
)
RECIPE = {"forget": "concept_ablation", "retain": "cross_entropy", "update": "concept_preserving", "stop": "none"}


def projection(forget: Sequence[Tensor | None], retain: Sequence[Tensor | None]) -> float:
    """The factor on the retain gradient that is taken off the forget gradient: min(0, <f, r> / |r|^2)."""
    pairs = [(f, r) for f, r in zip(forget, retain, strict=True) if r is not None]
    size = sum(float(r.double().square().sum()) for _, r in pairs)
    inner = sum(float((f.double() * r.double()).sum()) for f, r in pairs if f is not None)
    return min(0.0, inner / size) if size else 0.0


def concept_preserving() -> Update:
    """Descend the retain loss, and the forget loss as far as it does not raise that of retain (Wu et al. 2024).

    g = g_retain + g_forget - min(0, <g_forget, g_retain> / |g_retain|^2) g_retain: where the two oppose, the forget
    gradient is projected onto the plane that leaves retain as it is.
    """

    def update(losses: Losses, parameters: Sequence[nn.Parameter]) -> None:
        gradients = {name: gradients_of(losses, name, parameters) for name in ("forget", "retain")}
        factor = projection(gradients["forget"], gradients["retain"])
        for p, forget, retain in zip(parameters, gradients["forget"], gradients["retain"], strict=True):
            if retain is not None:
                p.grad = (1 - factor) * retain if forget is None else forget + (1 - factor) * retain
            elif forget is not None:
                p.grad = forget

    return Update(update)
