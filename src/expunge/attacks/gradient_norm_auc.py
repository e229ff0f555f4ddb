"""Membership by the gradient's norm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from expunge.attacks.shared.membership import MEANS, check_gradients, membership_result
from expunge.core.card import AttackCard, Example
from expunge.core.contracts import Model
from expunge.evaluation.attack import Attack, Found, Target

CARD = AttackCard(
    "Gradient-norm attack",
    paper="arXiv:2402.17012",
    adversary="gradients",
    side="privacy",
    better="gold",
    unit="auc",
    needs={"forget": {"examples"}, "holdout": {"examples"}},
    level="deep",
    more=("tpr_1", "tpr_01"),
    passes=9,
    means=MEANS
    + " The preprint was withdrawn by its authors (v4, an error in the experiments), so its own figures are no guide.",
)


def gradient_norm_auc() -> Attack:
    """AUC by a small gradient: the L2 norm over all weights for each example's loss per token (Wang et al. 2024)."""

    def attack(target: Target) -> Found:
        check_gradients(target.model)
        rows = target.forget, target.splits["holdout"]
        return membership_result(-norms(target.model, rows[0]), -norms(target.model, rows[1]), rows=rows)

    return attack


def norms(model: Model, rows: Sequence[Example]) -> np.ndarray:
    """[N] L2 norm of the gradient of each example's mean loss; nothing is left in `.grad`."""
    model.module.eval()
    trainable = [parameter for parameter in model.module.parameters() if parameter.requires_grad]
    found = np.zeros(len(rows))
    for i, row in enumerate(rows):
        with torch.enable_grad():
            loss = model.forward(model.collate([row])).nll
        parts = torch.autograd.grad(loss, trainable, allow_unused=True)
        found[i] = sum(float(part.double().square().sum()) for part in parts if part is not None) ** 0.5
    return found
