"""Soft prompts: a few learned embeddings in front of every question."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt
from torch import Tensor

from expunge.attacks.shared.recovery import MEANS, STARTS_FROM_ASKING, figure_of, probability_of
from expunge.core.card import AttackCard, Example
from expunge.core.contracts import Batch
from expunge.core.random import permutation
from expunge.evaluation.arrays import only
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import NotMeasured
from expunge.models.guarded import bare_model
from expunge.models.passes import batches, outputs

CARD = AttackCard(
    "Soft-prompt attack",
    paper="arXiv:2402.09063",
    adversary="gradients; part of the forget set",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("tokens",),
    needs={"forget": {"examples"}},
    level="deep",
    passes=40,
    no_control=STARTS_FROM_ASKING,
    means=MEANS,
)
BATCH = 8


def soft_prompt(
    *,
    tokens: Annotated[int, Ge(1)] = 8,
    steps: Annotated[int, Ge(1)] = 40,
    share: Annotated[float, Gt(0), Lt(1)] = 0.25,
    rate: Annotated[float, Gt(0)] = 0.3,
) -> Attack:
    """Learn embeddings that make the model answer some forget examples; ask for the others (Schwinn et al. 2024).

    Adam on `tokens` embeddings from a seeded draw, with `rate` in standard deviations of the vocabulary's embeddings;
    the weights do not change. The share of the forget set on which the prompt was learned does not count. Per-token
    probability of the answer, at the check where its mean is highest; the first check is without a prompt.
    """

    def attack(target: Target) -> Found:
        n = len(target.forget)
        if n < 2:
            raise NotMeasured("one forget example cannot be both taught and asked for")
        model: Any = bare_model(target.model)
        taught = permutation(n, target.derive("soft_prompt"))[: max(1, min(n - 1, round(share * n)))]
        rest = [i for i in range(n) if i not in set(taught)]
        model.module.eval()
        others = [target.forget[i] for i in rest]
        points = [(0, target.plain[target.role][rest])]
        for step, prompt_PD in _learn(target, model, taught, tokens=tokens, steps=steps, rate=rate):
            points.append((step, _answer_probability(model, others, prompt_PD)))
        _, best = max(points, key=lambda point: float(point[1].mean()))
        recovered_N = np.zeros(n)
        recovered_N[rest] = best
        recovered_N = only(recovered_N, np.isin(np.arange(n), rest))
        curve = [{"x": step, "value": float(values.mean())} for step, values in points]
        why = f"{tokens} embeddings, learned on {len(taught)} examples in {steps} steps"
        return Found(figure_of(recovered_N, why), recovered_N, curve=curve)

    return attack


def _learn(
    target: Target, model: Any, taught: Sequence[int], *, tokens: int, steps: int, rate: float
) -> Iterator[tuple[int, Tensor]]:
    """Learn a prompt on the forget examples at these places; yields (step, prompt [P, D]) at every quarter."""
    table_VD = model.module.get_input_embeddings().weight.detach()
    spread = float(table_VD.float().std())
    draw = torch.Generator().manual_seed(target.derive("soft_prompt"))
    start_PD = spread * torch.randn(tokens, table_VD.shape[1], generator=draw)
    prompt_PD = start_PD.to(table_VD.device).requires_grad_(True)
    optimiser = torch.optim.Adam([prompt_PD], lr=rate * spread)
    for step in range(steps):
        order = permutation(len(taught), target.derive("soft_prompt"), step)[:BATCH]
        with torch.enable_grad():
            loss = model.forward(with_soft_prompt(model, [target.forget[taught[i]] for i in order], prompt_PD)).nll
        (prompt_PD.grad,) = torch.autograd.grad(loss, [prompt_PD])
        optimiser.step()
        if (step + 1) % max(1, steps // 4) == 0:
            yield step + 1, prompt_PD.detach()


def with_soft_prompt(model: Any, rows: Sequence[Example], prompt_PD: Tensor) -> Batch:
    """The rows' batch with P embeddings in front of each row."""
    batch = model.collate(rows)
    device = prompt_PD.device
    seen_BS = batch.inputs["attention_mask"].to(device)
    words_BSD = model.module.get_input_embeddings()(batch.inputs["input_ids"].to(device)).detach()
    front_BPD = prompt_PD.to(words_BSD.dtype).expand(len(rows), -1, -1)
    seen = torch.cat([seen_BS.new_ones(front_BPD.shape[:2]), seen_BS], 1)
    inputs = {
        "inputs_embeds": torch.cat([front_BPD, words_BSD], 1),
        "attention_mask": seen,
        "position_ids": (seen.cumsum(-1) - 1).clamp(min=0),
    }
    return Batch(inputs, batch.labels_BT, batch.mask_BT, batch.n_B)


def _answer_probability(model: Any, rows: Sequence[Example], prompt_PD: Tensor) -> np.ndarray:
    """[N] per-token probability of each answer after the prompt."""
    made = batches(rows, model.length, lambda part: with_soft_prompt(model, part, prompt_PD))
    return probability_of(outputs(model, made), len(rows))
