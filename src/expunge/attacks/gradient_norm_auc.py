"""Membership by the gradient's norm."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from expunge.attacks._membership import MEANS, compared
from expunge.core.card import Card, Example
from expunge.core.contracts import Subject
from expunge.evaluation.attack import Attack, Found, Target

CARD = Card(
    "Gradient-norm attack",
    paper="arXiv:2402.17012",
    side="privacy",
    better="gold",
    unit="auc",
    needs={"forget": {"examples"}, "holdout": {"examples"}},
    level="deep",
    more=("tpr_1", "tpr_01"),
    passes=9,
    means=MEANS
    + " The preprint was withdrawn by its authors (v4, a fault in the experiments): its figures stand for nothing here.",
)


def gradient_norm_auc() -> Attack:
    """AUC by a small gradient: the L2 norm over all weights of each example's loss a token (Wang et al. 2024)."""

    def attack(target: Target) -> Found:
        return compared(-norms(target.subject, target.forget), -norms(target.subject, target.splits["holdout"]))

    return attack


def norms(subject: Subject, rows: Sequence[Example]) -> np.ndarray:
    """[N] L2 norm of the gradient of each example's mean loss; nothing is left in `.grad`."""
    subject.module.eval()
    moving = [parameter for parameter in subject.module.parameters() if parameter.requires_grad]
    found = np.zeros(len(rows))
    for i, row in enumerate(rows):
        with torch.enable_grad():
            loss = subject.forward(subject.collate([row])).nll
        parts = torch.autograd.grad(loss, moving, allow_unused=True)
        found[i] = sum(float(part.double().square().sum()) for part in parts if part is not None) ** 0.5
    return found
