"""Unlearning on a small part of the forget set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from annotated_types import Gt, Le
from torch import Tensor

from expunge.core.budget import DEFAULTS, Budget, batch_size
from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model, Want, want_of
from expunge.core.random import permutation
from expunge.models.passes import passes
from expunge.training.references import record

CARD = MethodCard(
    "Coreset unlearning",
    paper="arXiv:2504.10185",
    equation="section 4, coreset selection",
    needs={"forget": ()},
    wraps={"weights"},
    means="Comes close to the whole set where its examples repeat one another; where each holds a fact of its own, the "
    "others are forgotten in part only.",
    fidelity="faithful",
    shown="A quarter of the examples gives a quarter of the rise in NLL that all give, and half of the fall in "
    "ROUGE-L.",
)
RECIPE = {"inner": "npo"}
MIN_K = 0.2
"""Share of an answer's least likely tokens that Min-K% averages."""


def coreset(
    *,
    inner: Method,
    share: Annotated[float, Gt(0), Le(1)] = 0.1,
    select: Literal["random", "moderate", "grad_norm", "min_k"] = "random",
) -> Method:
    """Run the inner method on 5 or 10 % of the forget set, for as many steps as on all of it.

    select: `random`; `moderate`, those whose features (the last block's output, averaged over the answer) lie at about
    the median distance from the mean feature; `grad_norm` (GraNd), the largest gradients; `min_k`, the best memorised
    by Min-K%.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        forget = splits["forget"]
        count = max(1, round(share * len(forget)))
        rank = list(permutation(len(forget), context.seed, context.stage, "coreset"))
        if select != "random":
            scores = context.once("coreset", lambda: {"scores": torch.as_tensor(_scores(model, forget, select))})
            values = scores["scores"].numpy()
            rank = sorted(rank, key=lambda i: -values[i])
        part = [forget[i] for i in sorted(rank[:count])]
        context.notes["coreset"] = {"examples": count, "of": len(forget), "select": select}
        budget = _budget_of_all(context.budget, len(forget), count)
        changed = inner(model, {**splits, "forget": part}, context.child("inner", budget=budget))
        if "outcome" in context.notes["inner"]:
            context.notes["outcome"] = context.notes["inner"]["outcome"]
        return changed

    return Method(apply)


def _budget_of_all(given: Budget, examples: int, count: int) -> Budget:
    """The budget for `count` of the examples with as many steps as for all of them."""
    budget = given.over(DEFAULTS)
    size, steps = batch_size(budget, examples), budget.steps
    if steps is None:
        steps = int(budget.epochs or 1) * -(-examples // size)
    values = given.model_dump(exclude_none=True, exclude={"epochs", "batch_size"})
    return Budget(**{**values, "steps": steps, "batch_size": min(size, count)})


def _scores(model: Model, rows: Sequence[Example], select: str) -> np.ndarray:
    """Return a score per example; the highest are selected."""
    if select == "grad_norm":
        return np.array([_gradient_norm(model, row) for row in rows])
    if select == "moderate":
        return moderation(_features(model, rows))
    reference = record(model, rows, want_of({"nll", "logp"}))
    counts = [int(n) for row in rows for n in model.collate([row]).n_B]
    means = []
    for logp_T, n in zip(reference.logp_BT, counts, strict=True):
        own = np.sort(logp_T[len(logp_T) - n :].numpy())
        means.append(float(own[: max(1, round(MIN_K * n))].mean()))
    return np.array(means)


def moderation(feature_ND: Tensor) -> np.ndarray:
    """Minus how far each row's distance from the mean row is from the median distance."""
    distance_N = (feature_ND - feature_ND.mean(0)).norm(dim=-1)
    return -(distance_N - distance_N.quantile(0.5)).abs().numpy()


def _features(model: Model, rows: Sequence[Example]) -> Tensor:
    """The last block's output of each row, averaged over the counted positions, [N, D]."""
    path = model.blocks[-1]
    parts: dict[int, Tensor] = {}
    for indices, out in passes(model, rows, Want(frozenset(), (path,))):
        mean_BD = (out.hidden[path].float() * out.mask_BT[..., None]).sum(1) / out.n_B.clamp(min=1)[:, None]
        parts |= dict(zip(indices, mean_BD.cpu(), strict=True))
    return torch.stack([parts[i] for i in range(len(rows))])


def _gradient_norm(model: Model, row: Example) -> float:
    trainable = [p for p in model.module.parameters() if p.requires_grad]
    out = model.forward(model.collate([row]))
    grads = torch.autograd.grad(out.nll_B.sum() / out.n_B.sum(), trainable, allow_unused=True)
    return float(torch.stack([g.float().norm() for g in grads if g is not None]).norm())
