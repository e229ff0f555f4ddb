"""Dataset inference: membership of the forget set as a whole."""

from __future__ import annotations

import itertools

import numpy as np

from expunge.attacks.shared.linear_classifier import permutation_p
from expunge.attacks.shared.membership import attack_scores
from expunge.core.card import AttackCard
from expunge.evaluation.groups import count_groups, group_numbers
from expunge.evaluation.intervals import placements
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Metric, NotMeasured

_CHANNELS = {"nll", "logp?", "moments?", "logits?"}
CARD = AttackCard(
    "Dataset inference",
    paper="arXiv:2406.06443",
    adversary="logits; the whole forget set and unseen data of its kind",
    side="privacy",
    better="gold",
    unit="p-value",
    needs={"forget": _CHANNELS, "holdout": _CHANNELS},
    means="A small p-value shows that the forget set as a whole can be told apart from unseen data, even where no "
    "single example can; the remark says in which direction. A large one does not show that it was never seen.",
)
MIN_EXAMPLES = 10
ALPHA = 0.05
"""The p-value below which the remark says in which direction the sides differ."""


def dataset_inference() -> Metric:
    """Test whether the forget set can be told apart from the holdout, by all readout attacks together (a p-value).

    A linear weighting of the attacks' scores is fitted on half of each side, drawn by seed; on the other
    half the weighted scores are compared by a one-sided Mann-Whitney test (Maini et al. 2024, who use a
    t-test, which is sensitive to outliers). The weights have free signs, so that a forget set that looks less seen than
    unseen data is found as well: the remark has the mean AUC of the single attacks, above 0.5 where it looks seen.

    Where examples have groups, whole groups are held out, and their sides are permuted: `group_p_value`.
    """

    def figure(forget: Readout, holdout: Readout) -> Figure:
        ours, theirs = attack_scores(forget), attack_scores(holdout)
        names = sorted(set(ours) & set(theirs))
        sides = [np.stack([np.ma.filled(x[name], np.nan) for name in names], axis=1) for x in (ours, theirs)]
        kept = [np.isfinite(side).all(axis=1) for side in sides]
        sides = [side[counts] for side, counts in zip(sides, kept, strict=True)]
        rows = [list(itertools.compress(side.examples, x)) for side, x in zip((forget, holdout), kept, strict=True)]
        groups = group_numbers(*rows)
        if groups is None:
            p = dataset_p_value(sides[0], sides[1], *(_fitting_half(len(side)) for side in sides))
            how = "weighted on one half and tested on the other"
        else:
            p = group_p_value(sides[0], sides[1], np.concatenate(groups))
            how = f"with whole groups held out and permuted ({count_groups(*groups)} groups)"
        why = f"{len(names)} attacks, {how}; {direction(sides[0], sides[1], p)}"
        return Figure(p, None, None, n=len(forget) + len(holdout), why=why, groups=count_groups(*(groups or ())))

    return figure


def direction(ours_NA: np.ndarray, theirs_NA: np.ndarray, p: float) -> str:
    """The mean AUC of the single attacks, in words, and where p is small what it says."""
    auc = float(np.mean([placements(a, b)[0].mean() for a, b in zip(ours_NA.T, theirs_NA.T, strict=True)]))
    reading = f": the forget set looks {'more' if auc > 0.5 else 'less'} seen than the holdout" if p < ALPHA else ""
    return f"their single AUCs are {auc:.2f} on average{reading}"


def group_p_value(ours_NA: np.ndarray, theirs_NA: np.ndarray, groups: np.ndarray) -> float:
    """The p-value where examples are clustered: the cross-validated AUC of a ridge on the standardised scores of the
    attacks, against that under random assignments of whole groups to the sides."""
    both = np.concatenate([ours_NA, theirs_NA])
    if min(len(ours_NA), len(theirs_NA)) < 2 * MIN_EXAMPLES:
        raise NotMeasured(f"fewer than {2 * MIN_EXAMPLES} examples on a side")
    spread = both.std(axis=0)
    rows = (both - both.mean(axis=0))[:, spread > 1e-12] / spread[spread > 1e-12]
    return permutation_p(rows @ rows.T, len(ours_NA), groups.tolist())


def dataset_p_value(ours_NA: np.ndarray, theirs_NA: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """The p-value. ours_NA, theirs_NA: scores by attack; first, second: bool, the half on which weights are fitted."""
    # scikit-learn and scipy.stats take a second to import, and every plan imports this file.
    from scipy import stats
    from sklearn.linear_model import LinearRegression
    from sklearn.preprocessing import StandardScaler

    kept = [np.isfinite(x).all(axis=1) for x in (ours_NA, theirs_NA)]
    teach = [x[k & half] for x, k, half in zip((ours_NA, theirs_NA), kept, (first, second), strict=True)]
    test = [x[k & ~half] for x, k, half in zip((ours_NA, theirs_NA), kept, (first, second), strict=True)]
    if min(map(len, [*teach, *test])) < MIN_EXAMPLES:
        raise NotMeasured(f"fewer than {MIN_EXAMPLES} examples in a half")
    scaler = StandardScaler().fit(np.concatenate(teach))
    line = LinearRegression().fit(
        scaler.transform(np.concatenate(teach)), np.repeat([1.0, 0.0], [len(x) for x in teach])
    )
    a, b = (line.predict(scaler.transform(x)) for x in test)
    return float(stats.mannwhitneyu(a, b, alternative="greater").pvalue)


def _fitting_half(count: int) -> np.ndarray:
    """[N] bool: the half for fitting, drawn by seed."""
    chosen = np.zeros(count, dtype=bool)
    chosen[np.random.default_rng(0).permutation(count)[: count // 2]] = True
    return chosen
