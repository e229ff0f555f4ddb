"""Equalised odds by a linear program: the probability of answering 1 in each cell, for each group.

Hardt, Price and Srebro 2016 (arXiv:1610.02413), section 4. Shape suffixes: N examples, C cells of a score, G groups.
"""

from __future__ import annotations

import numpy as np


def fair_rates(
    cell_N: np.ndarray, label_N: np.ndarray, group_N: np.ndarray, plain_C: np.ndarray, groups: int
) -> np.ndarray:
    """Probabilities [C, G] of answering 1 that err least among those with equal odds in all groups.

    Minimises the expected error over p, subject to sum_c P(c | y, g) p[c, g] being the same for all groups g, for y = 0
    and y = 1. plain_C: each cell's answer without post-processing (0 or 1), for groups without an example in a cell.
    """
    from scipy.optimize import linprog  # heavy, and `expunge list` imports every method

    cells = len(plain_C)
    count_CGY = np.zeros((cells, groups, 2))
    np.add.at(count_CGY, (cell_N, group_N, label_N), 1.0)
    cost_CG = (count_CGY[..., 0] - count_CGY[..., 1]) / max(1, len(label_N))
    rows = []
    for y in (0, 1):
        total_G = count_CGY[..., y].sum(0)
        first, *others = np.flatnonzero(total_G) if total_G.any() else [0]
        for other in others:
            row_CG = np.zeros((cells, groups))
            row_CG[:, first] = count_CGY[:, first, y] / total_G[first]
            row_CG[:, other] = -count_CGY[:, other, y] / total_G[other]
            rows.append(row_CG.ravel())
    equal = {"A_eq": np.stack(rows), "b_eq": np.zeros(len(rows))} if rows else {}
    solution = linprog(cost_CG.ravel(), bounds=(0, 1), method="highs", **equal)
    if solution.x is None:  # a constant answer always has equal odds, so the solver is at fault
        raise RuntimeError(f"the linear program for equalised odds failed: {solution.message}")
    empty_CG = count_CGY.sum(-1) == 0
    rate_CG = np.where(empty_CG, plain_C[:, None], solution.x.reshape(cells, groups))
    return np.asarray(rate_CG.clip(0, 1).round(9))


def gap(p_N: np.ndarray, label_N: np.ndarray, group_N: np.ndarray) -> float:
    """Equalised-odds gap: the largest difference between groups in the rate of answer 1, given the label.

    p_N: each example's probability of answer 1 (0 or 1 for a fixed answer).
    """
    worst = 0.0
    for y in (0, 1):
        rates = [
            p_N[(label_N == y) & (group_N == g)].mean()
            for g in np.unique(group_N)
            if ((label_N == y) & (group_N == g)).any()
        ]
        worst = max(worst, max(rates) - min(rates)) if rates else worst
    return float(worst)
