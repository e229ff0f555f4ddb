"""Membership by loss against compressibility."""

from __future__ import annotations

import zlib

import numpy as np

from expunge.attacks.shared.membership import MEANS, answers, compare
from expunge.core.card import AttackCard
from expunge.evaluation.arrays import mean_nll
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Metric

CARD = AttackCard(
    "Zlib attack",
    paper="arXiv:2012.07805",
    adversary="logits",
    side="privacy",
    better="gold",
    unit="auc",
    capabilities=("tokens",),
    needs={"forget": {"nll"}, "holdout": {"nll"}},
    means=MEANS,
)


def zlib_auc() -> Metric:
    """AUC by low loss per token, relative to the answer's compressed length in bytes (Carlini et al. 2021)."""

    def figure(forget: Readout, holdout: Readout) -> Figure:
        return compare(_scores(forget), _scores(holdout), rows=(forget.examples, holdout.examples))

    return figure


def _scores(readout: Readout) -> np.ndarray:
    sizes = [len(zlib.compress(text.encode())) for text in answers(readout)]
    return np.asanyarray(-mean_nll(readout) / np.array(sizes))
