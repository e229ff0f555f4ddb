"""Dataset inference: membership of the forget set as a whole."""

from __future__ import annotations

import numpy as np
from scipy import stats

from expunge.attacks.shared.membership import attack_scores
from expunge.core.card import AttackCard
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
    means="A small p-value shows that the forget set as a whole looks seen, even where no single example does; a large "
    "one does not show that it was never seen.",
)
MIN_EXAMPLES = 10


def dataset_inference() -> Metric:
    """Test whether the forget set scores higher than the holdout, by all readout attacks together (a p-value).

    A linear weighting of the attacks' scores is fitted on half of each side, drawn by seed; on the other
    half the weighted scores are compared by a one-sided Mann-Whitney test (Maini et al. 2024, who use a
    t-test, which is sensitive to outliers). Whole groups stay in one half where the examples have `group`.
    """

    def figure(forget: Readout, holdout: Readout) -> Figure:
        ours, theirs = attack_scores(forget), attack_scores(holdout)
        names = sorted(set(ours) & set(theirs))
        sides = [np.stack([np.ma.filled(x[name], np.nan) for name in names], axis=1) for x in (ours, theirs)]
        first, second = (_fitting_half(readout) for readout in (forget, holdout))
        return Figure(
            dataset_p_value(sides[0], sides[1], first, second),
            None,
            None,
            n=len(forget) + len(holdout),
            why=f"{len(names)} attacks, weighted on one half and tested on the other",
        )

    return figure


def dataset_p_value(ours_NA: np.ndarray, theirs_NA: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """The p-value. ours_NA, theirs_NA: scores by attack; first, second: bool, the half on which weights are fitted."""
    # scikit-learn takes a second to import, and every plan imports this file.
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


def _fitting_half(readout: Readout) -> np.ndarray:
    """[N] bool: the half for fitting; whole groups where all examples have one and there are two or more."""
    keys = [row.get("group") for row in readout.examples]
    if any(key is None for key in keys) or len(set(map(str, keys))) < 2:
        keys = list(range(len(readout)))
    known = sorted(set(map(str, keys)))
    order = np.random.default_rng(0).permutation(len(known))
    chosen = {known[i] for i in order[: len(known) // 2]}
    return np.array([str(key) in chosen for key in keys])
