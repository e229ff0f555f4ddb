"""The forget set that is hardest to unlearn."""

from __future__ import annotations

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
    "Worst-case forget set",
    paper="arXiv:2403.07362",
    equation="bi-level selection, sign-relaxed",
    needs={"forget": ()},
    wraps={"weights"},
)
RECIPE = {"inner": "npo"}


def worst_case(
    *,
    inner: Method,
    share: Annotated[float, Gt(0), Le(1)] = 0.5,
    rounds: Annotated[int, Ge(1)] = 2,
) -> Method:
    """Find the part of the forget set that the inner method forgets least, and unlearn that part.

    Weights of the examples start random. A round unlearns the heaviest `share` from the origin and
    adds the sign of each example's shortfall (how far its NLL stayed below the median of all
    examples of the pool after that run); the last selection is then unlearned. Costs rounds + 1 runs.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        pool = splits["forget"]
        count = max(1, round(share * len(pool)))
        fold(model.module)
        before = {name: value.cpu().clone() for name, value in snapshot(model.module).items()}
        order = permutation(len(pool), context.seed, context.stage, "worst")
        weight = torch.zeros(len(pool), dtype=torch.float64)
        weight[torch.tensor(order)] = torch.linspace(0.5, -0.5, len(pool), dtype=torch.float64)
        chosen = _heaviest(weight, count)
        n_N = torch.tensor([int(model.collate([row]).n_B) for row in pool])
        for number in range(rounds):
            part = {**splits, "forget": [pool[i] for i in chosen]}

            def unlearn(part: Mapping[str, Sequence[Example]] = part, number: int = number) -> dict[str, Tensor]:
                restore(model.module, before, "")
                inner(model, part, context.child(f"round-{number}"))
                nll_N = record(model, pool, want_of({"nll"})).nll_B / n_N.clamp(min=1)
                fold(model.module)
                return {"nll": nll_N}

            nll_N = context.once(f"round-{number}", unlearn)["nll"]
            fold(model.module)
            own = nll_N[torch.tensor(chosen)]
            # Only those that were unlearned tell how hard they are; the easy ones make room.
            weight[torch.tensor(chosen)] += (own.median() - own).sign().double()
            chosen = _heaviest(weight, count)
        restore(model.module, before, "")
        context.notes["worst_case"] = {"examples": count, "of": len(pool)}
        changed = inner(model, {**splits, "forget": [pool[i] for i in chosen]}, context.child("final"))
        if "outcome" in context.notes["final"]:
            context.notes["outcome"] = context.notes["final"]["outcome"]
        return changed

    return Method(apply)


def _heaviest(weight: Tensor, count: int) -> list[int]:
    return sorted(int(i) for i in weight.argsort(descending=True, stable=True)[:count])
