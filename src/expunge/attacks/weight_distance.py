"""The distance that the weights have moved, layer by layer."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from expunge.core.card import AttackCard
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import Figure, NotMeasured
from expunge.models.guarded import bare_model

CARD = AttackCard(
    "Weight distance",
    paper="arXiv:1911.04933",
    adversary="weights, now and before the change",
    side="robustness",
    better="gold",
    unit="distance",
    needs={"forget": {"examples"}},
    level="deep",
    more=("gold",),
    no_control="it compares other models with this one",
    means="How far the weights are from those before the change (`_gold`: from gold's); a distance close to 0 "
    "suggests a superficial change. Two retrainings with different seeds are far apart too, so that a large "
    "distance to gold shows nothing by itself.",
)


def weight_distance() -> Attack:
    """Relative L2 distance of all weights, |a - b| / |b|, to the model before the change and to gold.

    Scrubbing aims at a small distance to the weights after exact retraining (Golatkar et al. 2020). `curve` has the
    distance to the model before by layer (to gold where only that is known). No forward pass.
    """

    def attack(target: Target) -> Found:
        model = bare_model(target.model)
        ours = dict(model.module.state_dict())
        known = {role: target.weights[role] for role in ("before", "gold") if role in target.weights}
        if target.role == "gold":
            known["gold"] = ours
        found = {role: _distance(ours, theirs, "") for role, theirs in known.items()}
        if not found:
            raise NotMeasured(
                "no weights to compare with: neither before nor gold was given, or they are too large to keep"
            )
        whose = "before" if "before" in known else "gold"
        layers = [_distance(ours, known[whose], f"{path}.") for path in model.blocks]
        curve = [{"x": level, "value": value} for level, value in enumerate(layers)]
        absent = Figure(float("nan"), None, None, 0, why="the model before the change was not given")
        own = (
            Figure(found["before"], None, None, len(ours), why=_most_changed_layer(layers))
            if "before" in found
            else absent
        )
        more = {}
        if "gold" in found:
            said = "by definition: gold against itself" if target.role == "gold" else ""
            more["gold"] = ("distance", "gold", Figure(found["gold"], None, None, len(ours), why=said))
        return Found(own, more=more, curve=curve)

    return attack


@torch.no_grad()
def _distance(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], prefix: str) -> float:
    """|ours - theirs| / |theirs| over the weights whose name starts with `prefix`."""
    apart, size = 0.0, 0.0
    for name, weight in ours.items():
        if not name.startswith(prefix) or not weight.is_floating_point():
            continue
        other = theirs.get(name)
        if other is None or other.shape != weight.shape:
            raise NotMeasured("the weights have other names or shapes")
        other = other.to(weight.device).float()
        apart += float((weight.float() - other).square().sum(dtype=torch.float64))
        size += float(other.square().sum(dtype=torch.float64))
    return float((apart / max(size, 1e-300)) ** 0.5)


def _most_changed_layer(layers: list[float]) -> str:
    return f"most at layer {max(range(len(layers)), key=layers.__getitem__)}" if layers else ""
