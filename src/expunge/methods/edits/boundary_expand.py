"""Boundary expand: the forget examples get a class of their own, which is then taken away."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model, Step, Term
from expunge.methods._head import linear_head
from expunge.methods.objective import Objective
from expunge.methods.updates.plain import plain
from expunge.methods.weights.all import all as all_weights
from expunge.models.weights import fold

CARD = MethodCard(
    "Boundary expand",
    paper="doi:10.1109/CVPR52729.2023.00750",
    equation="boundary expand",
    needs={"forget": ()},
    capabilities={"labels"},
    fidelity="faithful",
    means="For whole classes: without the further class, what was pushed into it falls to its neighbours.",
    shown="A class of digits goes, within seven points of gold and without retain data, for up to six points of the "
    "other classes' accuracy.",
)
RECIPE = {"stop": "none", "floor": 0.7}
"""A low floor: most of what retain examples lose to the further class comes back when it is dropped."""


def boundary_expand() -> Method:
    """Train forget examples into a further class, and drop its row of the head; no retain data.

    Cross-entropy (nats) to class C of C + 1. The further row of the linear head is drawn as a new layer's would be.
    Raises BadInput where the model has no linear head.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        fold(model.module)
        with _one_class_more(model, splits["forget"], context):
            own = context.child("shadow", gold_forget_nll=context.gold_forget_nll)
            _shadow_training()(model, splits, own)
        context.notes["outcome"] = context.notes["shadow"]["outcome"]
        return model

    return Method(apply)


@contextmanager
def _one_class_more(model: Model, rows: Sequence[Example], context: Context) -> Iterator[None]:
    """Inside, the head has a further row; afterwards its first rows are the head."""
    path, head = linear_head(model, rows[:2], "boundary_expand adds a row to such a layer")
    classes, width = head.weight.shape
    wide = nn.Linear(width, classes + 1, device=head.weight.device, dtype=head.weight.dtype)
    row = torch.rand(width + 1, generator=context.generator("shadow")) * 2 - 1
    with torch.no_grad():
        wide.weight[:classes], wide.bias[:classes] = head.weight, head.bias
        wide.weight[classes], wide.bias[classes] = row[:-1] / width**0.5, row[-1] / width**0.5
    parent, _, name = path.rpartition(".")
    place = model.module.get_submodule(parent)
    setattr(place, name, wide)
    try:
        yield
    finally:
        setattr(place, name, head)
        with torch.no_grad():
            head.weight.copy_(wide.weight[:classes])
            head.bias.copy_(wide.bias[:classes])


def _shadow_training() -> Objective:
    """Training of the forget examples as the last class."""

    def loss(step: Step) -> Tensor:
        forget = step["forget"]
        return forget.mean(-forget.logits_BTV.log_softmax(-1)[..., -1])

    card = MethodCard("Cross-entropy to the last class", needs={"forget": {"logits"}})
    return Objective({"forget": Term.of("shadow", loss, card)}, all_weights(), plain(), Budget(stop="none"))
