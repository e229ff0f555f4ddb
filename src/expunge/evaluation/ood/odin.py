"""ODIN."""

from __future__ import annotations

from typing import Annotated

import numpy as np
from annotated_types import Ge, Gt
from scipy.special import softmax

from expunge.core.card import OodCard
from expunge.evaluation.ood._rows import OodScore, Rows

CARD = OodCard(
    "ODIN",
    paper="arXiv:1706.02690",
    equation="2",
    reads=("logits", "gradients"),
    means="The paper tunes the step on out-of-distribution rows; here it is fixed, in the units of the network's "
    "inputs.",
)


def odin(*, temperature: Annotated[float, Gt(0)] = 1000.0, epsilon: Annotated[float, Ge(0)] = 0.0014) -> OodScore:
    """Minus the largest tempered probability, after a step of the input that raises it (Liang et al. 2018)."""

    def score(known: Rows, rows: Rows) -> np.ndarray:
        assert rows.move is not None
        return -softmax(rows.move(temperature, epsilon) / temperature, axis=1).max(axis=1)

    return score
