"""Membership by a classifier on gradients and logits."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from expunge.attacks.shared.linear_classifier import cross_validated_auc
from expunge.attacks.shared.membership import MEANS, attack_scores, check_gradients
from expunge.core.card import AttackCard, Example
from expunge.core.contracts import Model
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import Figure, NotMeasured

CARD = AttackCard(
    "White-box classifier",
    paper="arXiv:2402.17012",
    adversary="gradients; labelled members and unseen data",
    side="privacy",
    better="gold",
    unit="auc",
    needs={"forget": {"examples"}, "holdout": {"examples"}},
    level="deep",
    passes=9,
    means=MEANS
    + " The preprint was withdrawn by its authors (v4, an error in the experiments), so its own figures are no guide.",
)
MIN_EXAMPLES = 10


def white_box_auc() -> Attack:
    """AUC of a cross-validated ridge on gradient norms by matrix and attacks' scores (after Wang et al. 2024).

    The attacker knows some members and some non-members, and learns from them to classify the others. Whole groups are
    held out where examples have `group`, and the interval comes from permutations of the sides, as for the blind
    baseline.
    """

    def attack(target: Target) -> Found:
        check_gradients(target.model)
        forget, holdout = target.forget, target.splits["holdout"]
        if min(len(forget), len(holdout)) < MIN_EXAMPLES:
            raise NotMeasured(f"fewer than {MIN_EXAMPLES} examples on a side")
        features = np.concatenate(
            [np.log(np.maximum(1e-12, gradients(target.model, [*forget, *holdout]))), _scores(target)], axis=1
        )
        if not np.isfinite(features).all():
            raise NotMeasured("the model has diverged: a score or a gradient is not finite")
        spread = features.std(axis=0)
        rows = (features - features.mean(axis=0))[:, spread > 1e-12] / spread[spread > 1e-12]
        kernel = rows @ rows.T / max(1, rows.shape[1])
        names = [row.get("group") for row in [*forget, *holdout]]
        groups = names if all(name is not None for name in names) else list(range(len(names)))
        found = cross_validated_auc(kernel, len(forget), groups)
        return Found(Figure(*found, n=len(names), why=f"{rows.shape[1]} features"))

    return attack


def _scores(target: Target) -> np.ndarray:
    """[N, A] the readout attacks' scores of forget and then holdout, where both were read."""
    read = [target.readouts.get(split) for split in ("forget", "holdout")]
    if any(readout is None for readout in read):
        return np.zeros((len(target.forget) + len(target.splits["holdout"]), 0))
    found = [attack_scores(readout) for readout in read if readout is not None]
    names = sorted(set(found[0]) & set(found[1]))
    return np.concatenate([np.stack([np.ma.filled(side[name], 0.0) for name in names], axis=1) for side in found])


def gradients(model: Model, rows: Sequence[Example]) -> np.ndarray:
    """[N, P] L2 norm of each example's gradient by weight matrix; nothing is left in `.grad`."""
    model.module.eval()
    trainable = [
        parameter for parameter in model.module.parameters() if parameter.requires_grad and parameter.dim() >= 2
    ]
    found = np.zeros((len(rows), len(trainable)))
    for i, row in enumerate(rows):
        with torch.enable_grad():
            loss = model.forward(model.collate([row])).nll
        parts = torch.autograd.grad(loss, trainable, allow_unused=True)
        found[i] = [0.0 if part is None else float(part.double().norm()) for part in parts]
    return found
