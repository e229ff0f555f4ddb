"""Hidden states by layer, pooled over the answer: one pass, shared by all attacks that look inside."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from expunge.core.card import Example
from expunge.core.contracts import Model, Want
from expunge.models.passes import passes


def pooled_states(model: Model, rows: Sequence[Example]) -> dict[str, np.ndarray]:
    """Module path of each block -> [N, D] its output, averaged over the answer's positions."""
    found: dict[str, list[np.ndarray]] = {path: [np.zeros(0)] * len(rows) for path in model.blocks}
    for batch, out in passes(model, rows, Want(frozenset(), hidden=tuple(model.blocks))):
        for path, value in out.hidden.items():
            mean_BD = (value * out.mask_BT[..., None]).sum(1) / out.n_B[:, None].clamp(min=1)
            for i, row in zip(batch, mean_BD.float().cpu().numpy(), strict=True):
                found[path][i] = row
    return {path: np.stack(values) for path, values in found.items()}


def effective_rank(x_ND: np.ndarray) -> float:
    """RankMe: exp of the entropy of p = singular values / their sum + 1e-7, of rows [N, D] that are not centred.

    Between 1 and min(N, D) (arXiv:2210.02885, equation 1).
    """
    singular = np.linalg.svd(x_ND.astype(np.float64), compute_uv=False)
    if singular.sum() == 0:
        return 1.0
    p = singular / singular.sum() + 1e-7
    return float(np.exp(-(p * np.log(p)).sum()))


def cka(x_ND: np.ndarray, y_NE: np.ndarray) -> float:
    """Linear centred kernel alignment of two sets of states of the same N >= 4 examples (Kornblith et al. 2019).

    1: the same up to rotation and scale; 0: nothing in common. HSIC by its unbiased estimator (Song et
    al. 2012), since the plain one is near 1 for any two sets of few examples in many dimensions; cut
    at 0 and 1. Without spread on a side it is 0.
    """
    own = _hsic(x_ND, x_ND) * _hsic(y_NE, y_NE)
    return float(min(1.0, max(0.0, _hsic(x_ND, y_NE) / own**0.5))) if own > 1e-24 else 0.0


def _hsic(x_ND: np.ndarray, y_NE: np.ndarray) -> float:
    """Unbiased estimate of the Hilbert-Schmidt independence criterion of linear kernels, for N >= 4."""
    n = len(x_ND)
    k, j = (a @ a.T for a in (x_ND - x_ND.mean(axis=0), y_NE - y_NE.mean(axis=0)))
    np.fill_diagonal(k, 0.0)
    np.fill_diagonal(j, 0.0)
    both = (k * j).sum() + k.sum() * j.sum() / ((n - 1) * (n - 2)) - 2 * (k.sum(axis=0) @ j.sum(axis=0)) / (n - 2)
    return float(both / (n * (n - 3)))
