"""Activation steering: push the hidden states towards where the model answers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Lt
from torch import Tensor

from expunge.attacks.shared.recovery import MEANS, STARTS_FROM_ASKING, answer_probability, figure_of, require_answers
from expunge.attacks.shared.rewording import FRAMES, in_frame
from expunge.core.card import AttackCard, Example
from expunge.core.contracts import Want
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import NotMeasured
from expunge.models.guarded import bare_model
from expunge.models.passes import passes

CARD = AttackCard(
    "Activation steering",
    paper="arXiv:2411.02631",
    adversary="hidden states, which it changes",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("tokens",),
    needs={"forget": {"examples"}},
    level="deep",
    passes=8,
    no_control=STARTS_FROM_ASKING,
    means=MEANS,
)
STRENGTHS = (0.5, 1.0, 1.5, 2.0)
"""Multiples of the difference of means that are added."""


def steering(*, hint: str = FRAMES[1], depth: Annotated[float, Ge(0), Lt(1)] = 0.5) -> Attack:
    """Add a difference of mean states to one layer's output and ask (after Seyitoglu et al. 2024).

    Two directions, each from the states of the prompts' last tokens: forget questions with the `hint` around them less
    the plain ones, and retain questions (which the model answers) less forget ones, where there is retain data. Neither
    uses an answer. `depth` is the layer's position in the stack, as a share. Per-token probability of the answer, with
    the direction and strength that bring out most, or without steering.
    """

    def attack(target: Target) -> Found:
        model: Any = bare_model(target.model)
        if not model.blocks:
            raise NotMeasured("the model's layers are unknown")
        rows = require_answers(target.forget)
        path = model.blocks[int(depth * len(model.blocks))]
        plain_D = _mean(model, rows, path)
        directions = {"the hint": _mean(model, [in_frame(row, hint) for row in rows], path) - plain_D}
        others = [row for row in target.splits.get("retain", []) if "question" in row]
        if others:
            directions["retain"] = _mean(model, others, path) - plain_D
        tried = {"no steering": target.plain[target.role]}
        for name, direction_D in directions.items():
            for strength in STRENGTHS:
                with add_direction(model.module.get_submodule(path), strength * direction_D):
                    tried[f"{name}, strength {strength:g}"] = answer_probability(model, rows)
        best = max(tried, key=lambda name: float(tried[name].mean()))
        return Found(figure_of(tried[best], f"best of {len(tried)}: {best}"), tried[best])

    return attack


def _mean(model: Any, rows: Sequence[Example], path: str) -> Tensor:
    """[D] mean output of a block at the prompts' last tokens."""
    total: Any = 0.0
    for _, out in passes(model, rows, Want(frozenset(), hidden=(path,)), positions="prompt"):
        total = total + out.hidden[path][:, -1].sum(0)
    return total / len(rows)


@contextlib.contextmanager
def add_direction(block: torch.nn.Module, direction_D: Tensor) -> Iterator[None]:
    """Add the direction to the block's output at every position while inside."""

    def add(_module: Any, _inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (output[0] + direction_D.to(output[0].dtype), *output[1:])
        return output + direction_D.to(output.dtype)

    handle = block.register_forward_hook(add)
    try:
        yield
    finally:
        handle.remove()
