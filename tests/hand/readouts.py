"""Hand-made readouts for the tests of this folder."""

from __future__ import annotations

from typing import Any

import numpy as np

from expunge.evaluation.readout import Readout


def rows(*values: list[float]) -> list[np.ndarray]:
    """Ragged rows."""
    return [np.array(row) for row in values]


def readout(mean_nll: list[float], split: str = "forget", role: str = "after", **fields: Any) -> Readout:
    """Losses in nats per token of answers of 4 tokens each; further fields as given."""
    n = np.full(len(mean_nll), 4)
    fields.setdefault("examples", [{"question": "q", "answer": "a"} for _ in mean_nll])
    return Readout(split=split, role=role, nll_N=np.array(mean_nll) * n, n_N=n, **fields)


def classifier(p: list[list[float]], labels: list[int], split: str = "forget", role: str = "after") -> Readout:
    """Class probabilities [N, C] and labels."""
    logp = np.log(np.array(p))
    labels_N = np.array(labels)
    return Readout(
        split=split,
        role=role,
        examples=[{"label": label} for label in labels],
        nll_N=-logp[np.arange(len(labels)), labels_N],
        n_N=np.ones(len(labels), dtype=int),
        logp_NC=logp,
        labels_N=labels_N,
    )
