"""Energy."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Gt
from scipy.special import logsumexp

from expunge.core.card import OodCard
from expunge.evaluation.ood._rows import OodScore, Rows

CARD = OodCard("Energy", paper="arXiv:2010.03759", equation="3")


def energy(*, temperature: Annotated[float, Gt(0)] = 1.0) -> OodScore:
    """The free energy -T logsumexp(logits / T) (Liu et al. 2020)."""

    def score(known: Rows, rows: Rows) -> np.ndarray:
        return energy_of(rows.logits_NC, temperature)

    return score


def energy_of(logits_NC: np.ndarray, temperature: float = 1.0) -> np.ndarray:
    """[N] free energies of [N, C] logits."""
    return np.asarray(-temperature * logsumexp(logits_NC / temperature, axis=1))
