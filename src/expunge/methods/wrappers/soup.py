"""A model soup: the average of several runs' weights."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Le
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.models.weights import fold, snapshot
from expunge.training.checkpoint import restore

CARD = MethodCard(
    "Uniform model soup",
    paper="arXiv:2203.05482",
    equation="section 2, uniform soup",
    needs={"forget": ()},
    wraps={"weights"},
    fidelity="simplified",
    leaves_out="members of other hyper-parameters, and the greedy choice among them: members differ by seed",
    shown="Around random labels on digits its test accuracy is three points above its members', and it knows a tenth "
    "more of the wrong labels that were to go.",
    means="Costs as many runs as it has members; what they have in common stays, and their noise averages out.",
)
RECIPE = {"inner": "npo"}


def soup(*, inner: Method, members: Annotated[int, Ge(2), Le(32)] = 3) -> Method:
    """Run the inner method several times with other seeds, and take the mean of the weights.

    Runs that start from the same weights end in the same basin, so that their mean is a model too. members: the number
    of runs. Buffers that are not floating-point numbers are the last run's.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        fold(model.module)
        before = {name: value.cpu().clone() for name, value in snapshot(model.module).items()}

        def run(number: int) -> dict[str, Tensor]:
            restore(model.module, before, "")
            changed = inner(model, splits, context.child(f"member-{number}"))
            fold(changed.module)
            return {name: value.cpu().clone() for name, value in snapshot(changed.module).items()}

        each = [context.once(f"member-{number}", functools.partial(run, number)) for number in range(members)]
        fold(model.module)
        restore(model.module, mean_of(each), "")
        context.notes["soup"] = {"members": members}
        return model

    return Method(apply)


def mean_of(each: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """The mean of each floating-point weight, in its type; of anything else the last."""
    return {
        name: torch.stack([one[name].double() for one in each]).mean(0).to(value.dtype)
        if value.is_floating_point()
        else value
        for name, value in each[-1].items()
    }
