"""The forget set that is hardest to unlearn."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model, want_of
from expunge.core.random import permutation
from expunge.models.weights import fold, snapshot
from expunge.training.checkpoint import restore
from expunge.training.references import record

CARD = MethodCard(
    "Worst-case forget set, by greedy search",
    paper="arXiv:2403.07362",
    equation="sign-relaxed selection; the bi-level problem is not solved",
    needs={"forget": ()},
    wraps={"weights"},
    fidelity="variant",
    leaves_out="the bi-level problem: the search is greedy over the examples that were unlearned",
    shown="What it picks is remembered better after gradient difference than random halves are, by five points on "
    "average; after random labels better than random thirds, by more than the intervals.",
)
RECIPE = {"inner": "npo"}


def worst_case(
    *,
    inner: Method,
    share: Annotated[float, Gt(0), Le(1)] = 0.5,
    rounds: Annotated[int, Ge(1)] = 2,
) -> Method:
    """Search greedily for the part of the forget set that the inner method forgets least, and unlearn that part.

    The examples' weights start at random. A round unlearns the heaviest `share`, from the reference model, and adds the
    sign of how far each example's NLL stayed below the median of those unlearned; the last selection is then unlearned.
    Costs rounds + 1 runs.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        pool = splits["forget"]
        count = max(1, round(share * len(pool)))
        fold(model.module)
        before = {name: value.cpu().clone() for name, value in snapshot(model.module).items()}
        n_N = torch.tensor([int(model.collate([row]).n_B) for row in pool])

        def unlearn(number: int, selected: Sequence[int]) -> dict[str, Tensor]:
            part = {**splits, "forget": [pool[i] for i in selected]}
            restore(model.module, before, "")
            inner(model, part, context.child(f"round-{number}"))
            nll_N = record(model, pool, want_of({"nll"})).nll_B / n_N.clamp(min=1)
            fold(model.module)
            return {"nll": nll_N}

        weight_N = _first_weights(len(pool), context)
        selected = _heaviest(weight_N, count)
        for number in range(rounds):
            nll_N = context.once(f"round-{number}", functools.partial(unlearn, number, selected))["nll"]
            fold(model.module)
            own = nll_N[torch.tensor(selected)]
            # Only the unlearned examples show how hard they are; the easy ones make room.
            weight_N[torch.tensor(selected)] += (own.median() - own).sign().double()
            selected = _heaviest(weight_N, count)
        restore(model.module, before, "")
        context.notes["worst_case"] = {"examples": count, "of": len(pool)}
        changed = inner(model, {**splits, "forget": [pool[i] for i in selected]}, context.child("final"))
        if "outcome" in context.notes["final"]:
            context.notes["outcome"] = context.notes["final"]["outcome"]
        return changed

    return Method(apply)


def _first_weights(examples: int, context: Context) -> Tensor:
    """Weights [N] from 0.5 down to -0.5, in an order drawn by seed."""
    weight_N = torch.zeros(examples, dtype=torch.float64)
    order = permutation(examples, context.seed, context.stage, "worst")
    weight_N[torch.tensor(order)] = torch.linspace(0.5, -0.5, examples, dtype=torch.float64)
    return weight_N


def _heaviest(weight: Tensor, count: int) -> list[int]:
    """Indices of the largest weights, in ascending order."""
    return sorted(int(i) for i in weight.argsort(descending=True, stable=True)[:count])
