"""Dataset inference: is this set as a whole in the model."""

from __future__ import annotations

import numpy as np

from expunge.attacks._membership import attack_scores
from expunge.core.card import AttackCard
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, Metric, NotMeasured

_CHANNELS = {"nll", "logp?", "moments?", "logits?"}
CARD = AttackCard(
    "Dataset inference",
    paper="arXiv:2406.06443",
    side="privacy",
    better="gold",
    unit="p-value",
    needs={"forget": _CHANNELS, "holdout": _CHANNELS},
    means="A small p-value shows that the forget set as a whole looks seen, even where no single example does; a large "
    "one does not show that it was never seen.",
)
LEAST = 10


def dataset_inference() -> Metric:
    """Test whether the forget set scores higher than the holdout, by all readout attacks together (a p-value).

    Half of each side, drawn by seed, teaches a linear weighting of the attacks' scores; on the other
    half the weighted scores are compared by a one-sided Mann-Whitney test (Maini et al. 2024, who take
    a t-test, which outliers break). Whole groups stay in one half, where the examples carry `group`.
    """

    def figure(forget: Readout, holdout: Readout) -> Figure:
        ours, theirs = attack_scores(forget), attack_scores(holdout)
        names = sorted(set(ours) & set(theirs))
        sides = [np.stack([np.ma.filled(x[name], np.nan) for name in names], axis=1) for x in (ours, theirs)]
        first, second = (_half(readout) for readout in (forget, holdout))
        return Figure(
            inferred(sides[0], sides[1], first, second),
            None,
            None,
            n=len(forget) + len(holdout),
            why=f"{len(names)} attacks, weighted on one half and tested on the other",
        )

    return figure


def inferred(ours_NA: np.ndarray, theirs_NA: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """The p-value. ours_NA, theirs_NA: scores by attack; first, second: bool, who teaches."""
    from scipy import stats
    from sklearn.linear_model import LinearRegression
    from sklearn.preprocessing import StandardScaler

    kept = [np.isfinite(x).all(axis=1) for x in (ours_NA, theirs_NA)]
    teach = [x[k & half] for x, k, half in zip((ours_NA, theirs_NA), kept, (first, second), strict=True)]
    test = [x[k & ~half] for x, k, half in zip((ours_NA, theirs_NA), kept, (first, second), strict=True)]
    if min(map(len, [*teach, *test])) < LEAST:
        raise NotMeasured(f"fewer than {LEAST} examples in a half")
    scaler = StandardScaler().fit(np.concatenate(teach))
    line = LinearRegression().fit(
        scaler.transform(np.concatenate(teach)), np.repeat([1.0, 0.0], [len(x) for x in teach])
    )
    a, b = (line.predict(scaler.transform(x)) for x in test)
    return float(stats.mannwhitneyu(a, b, alternative="greater").pvalue)


def _half(readout: Readout) -> np.ndarray:
    """[N] bool: the teaching half; whole groups where all examples carry one and there are two."""
    keys = [row.get("group") for row in readout.examples]
    if any(key is None for key in keys) or len(set(map(str, keys))) < 2:
        keys = list(range(len(readout)))
    known = sorted(set(map(str, keys)))
    order = np.random.default_rng(0).permutation(len(known))
    chosen = {known[i] for i in order[: len(known) // 2]}
    return np.array([str(key) in chosen for key in keys])
