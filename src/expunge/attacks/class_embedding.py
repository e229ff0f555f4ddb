"""Embedding attack: the vector of a class is learned anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Lt

from expunge.attacks.shared.recovery import MEANS, STARTS_FROM_ASKING, answer_probability, figure_of
from expunge.attacks.shared.relearning import taught_examples
from expunge.core.card import AttackCard, Example
from expunge.core.contracts import Model
from expunge.core.random import permutation
from expunge.evaluation.arrays import only
from expunge.evaluation.attack import Attack, Found, Target
from expunge.models.guarded import bare_model
from expunge.models.passes import evaluating

CARD = AttackCard(
    "Class-embedding attack",
    paper="arXiv:2310.11868",
    equation="the model's own denoising loss, over a class's vector instead of a prompt's tokens",
    adversary="gradients; part of the forget set",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("conditions",),
    needs={"forget": {"examples"}},
    level="standard",
    passes=60,
    no_control=STARTS_FROM_ASKING,
    means=MEANS,
)
BATCH = 32
STEPS, RATE, SHARE = 60, 0.05, 0.25
"""Of the attack as it comes: its steps, their rate, and the share of the forget set that teaches it."""


def class_embedding(
    *,
    steps: Annotated[int, Ge(1)] = STEPS,
    rate: Annotated[float, Gt(0)] = RATE,
    share: Annotated[float, Gt(0), Lt(1)] = SHARE,
) -> Attack:
    """Learn the vectors of the forgotten classes on real pictures, and ask for those classes (Zhang et al. 2023).

    Adam on the rows of the label table alone (of a model of texts: those of the words of its prompts), as textual
    inversion has it: all other weights stay, so that what comes
    back was never gone. A seeded share of the forget set teaches and the rest is asked for: a picture is made for each
    of them, and the judges' vote on it is what was recovered, at the better of before and after.
    """

    def attack(target: Target) -> Found:
        taught, counts_N = taught_examples(target, share)
        rows = [row for row, counts in zip(target.forget, counts_N, strict=True) if counts]
        with target.disposable() as model:
            learn_vectors(model, taught, steps=steps, rate=rate, seed=target.derive("class_embedding"))
            after = answer_probability(model, rows)
        start = target.plain[target.role][counts_N]
        best = after if after.mean() >= start.mean() else start
        recovered_N = torch.zeros(len(counts_N)).double().numpy()
        recovered_N[counts_N] = best
        recovered_N = only(recovered_N, counts_N)
        curve = [{"x": 0, "value": float(start.mean())}, {"x": steps, "value": float(after.mean())}]
        bare: Any = target.model
        count = len(bare_model(bare).table_rows(taught))
        why = f"{count} vector{'s' if count > 1 else ''}, learned on {len(taught)} pictures in {steps} steps"
        return Found(figure_of(recovered_N, why), recovered_N, curve=curve)

    return attack


def learn_vectors(model: Model, rows: Sequence[Example], *, steps: int, rate: float, seed: int) -> None:
    """Changes the table's rows by which these examples are asked for in place, and no other weight."""
    bare: Any = model
    module = bare.module
    module.requires_grad_(False)
    table_VD = module.get_parameter(bare.table).requires_grad_(True)
    asked = bare.table_rows(rows)
    vectors_CD = table_VD.detach()[asked].clone().requires_grad_(True)
    optimiser = torch.optim.Adam([vectors_CD], lr=rate)
    with evaluating(module), torch.enable_grad():
        for step in range(steps):
            order = permutation(len(rows), seed, step)[:BATCH]
            loss = model.forward(model.collate([{**rows[i], "draw": step + 1} for i in order])).nll
            (slope_VD,) = torch.autograd.grad(loss, [table_VD])
            vectors_CD.grad = slope_VD[asked]
            optimiser.step()
            with torch.no_grad():
                table_VD[asked] = vectors_CD
