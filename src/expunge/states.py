"""Hidden states by layer, pooled over the answer: one pass, shared by all attacks that look inside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from expunge.core.card import Example
from expunge.core.contracts import Subject, Want
from expunge.data.batching import by_length


@torch.no_grad()
def pooled_states(subject: Subject, rows: Sequence[Example]) -> dict[str, np.ndarray]:
    """Module path of each block -> [N, D] its output, averaged over the answer's positions."""
    subject.module.eval()
    found: dict[str, list[np.ndarray]] = {path: [np.zeros(0)] * len(rows) for path in subject.blocks}
    for batch in by_length([subject.length(row) for row in rows]):  # type: ignore[attr-defined]
        out = subject.forward(
            subject.collate([rows[i] for i in batch]), Want(frozenset(), hidden=tuple(subject.blocks))
        )
        for path, value in out.hidden.items():
            mean_BD = (value * out.mask_BT[..., None]).sum(1) / out.n_B[:, None].clamp(min=1)
            for i, row in zip(batch, mean_BD.float().cpu().numpy(), strict=True):
                found[path][i] = row
    return {path: np.stack(values) for path, values in found.items()}


def cka(x_ND: np.ndarray, y_NE: np.ndarray) -> float:
    """Linear centred kernel alignment of two sets of states of the same N examples (Kornblith et al. 2019).

    1: the same up to rotation and scale. Without spread on a side it is 0.
    """
    x, y = x_ND - x_ND.mean(axis=0), y_NE - y_NE.mean(axis=0)
    own = float(np.linalg.norm(x.T @ x) * np.linalg.norm(y.T @ y))
    return float(np.linalg.norm(x.T @ y) ** 2 / own) if own > 0 else 0.0
