"""STAMP: forget prompts' MLP activations steered to refusals by a pseudo-inverse."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.methods._layers import chosen
from expunge.methods._statistics import counted
from expunge.methods.edits._keys import asked, redirect, spared, states, weight_DM
from expunge.methods.edits._strength import fitted
from expunge.methods.objectives._refusals import refusing
from expunge.models.weights import fold

CARD = MethodCard(
    "STAMP: steering through activation manipulation with pseudo-inverse",
    paper="arXiv:2604.12820",
    equation="STAMP and its low-rank variant",
    needs={"forget": ()},
    fields={"forget": {"question"}},
    capabilities=("tokens", "mlp"),
    means="Answers to forget prompts change; under teacher forcing the old answer stays likely, and freely written "
    "retained answers lose more than their probability tells.",
)


def stamp(
    *,
    layer: Annotated[int, Ge(0)] | None = None,
    rank: Annotated[int, Ge(1)] | None = None,
    preserve: Annotated[float, Ge(0)] | None = None,
    answers: str | None = None,
) -> Method:
    """Map the forget prompts' MLP activations to those of refusals, in one closed-form step.

    W + (V* - W K)K+, K the inputs of the layer's down-projection at the prompts' last tokens; V* moves the
    layer's output to its mean over refusals of the same prompts. preserve: weight of the retained (or reference)
    data's activations, which the step then spares; 0 is the paper's plain pseudo-inverse, which sees no retain
    data; by default, with retain data, the smallest that holds the budget's floor. rank: K by its r leading
    directions, O(r^3 + r^2 d). layer: a quarter of the way up by default. answers: a file of refusals, one a line.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        forget = list(splits["forget"])
        asked("stamp", forget)
        fold(model.module)
        at = chosen(model, layer)
        key, block = f"{model.down(at)}:in", model.blocks[at]
        refused = [made for made in map(refusing(answers), forget) if made]

        def prompts() -> dict[str, Tensor]:
            advance = counted(context, "prompts", len(forget) + len(refused))
            key_NM, out_ND = states(model, forget, (key, block), "prompt", advance)
            (refusal_ND,) = states(model, refused, (block,), "answer", advance)
            return {"key": key_NM, "change": refusal_ND.mean(0) - out_ND}

        def others_keys() -> dict[str, Tensor]:
            return {"moment": spared(model, others, key, counted(context, "spared", len(others)))}

        found = context.once("prompts", prompts)
        others = list(splits.get("reference") or splits.get("retain") or [])
        moment = context.once("spared", others_keys)["moment"] if others and preserve != 0 else None
        weight = weight_DM(model, at)
        before = weight.cpu().clone()

        def put(strength: float) -> None:
            if not strength:
                weight.copy_(before)
                return
            delta = redirect(found["key"], found["change"], moment, 1 / strength, rank=rank)
            weight.copy_((before.double() + delta).to(weight.dtype))

        with torch.no_grad():
            if moment is None or preserve is not None:
                put(1 / preserve if preserve else 1.0)
            else:
                fitted(model, {**splits, "retain": others}, context, put, start=0.1)
        return model

    return Method(apply)
