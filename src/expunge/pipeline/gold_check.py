"""The check of a gold model: a model that knows the forget set would make every other one pass.

It works on what was read of the two models, so that a run, an audit and `verify --measure` judge alike.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.core import registry
from expunge.core.card import Example
from expunge.data.content import content_key
from expunge.data.examples import identity
from expunge.evaluation import intervals
from expunge.evaluation.implied import KNOWN_AGAIN
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, NotMeasured, Score

ROUNDING = 0.01
"""Mean change of the forget examples' NLL, as a share of their mean NLL before the change, up to which gold is taken
for the same model, rounded or with noise added."""
RISE = 0.1
"""Least rise of the forget NLL above that before the change, as a share of the latter, that a gold model of unknown
origin must show."""
MOST_DAMAGE = 0.5
"""Largest rise of the retain NLL, as a share of that of the forget NLL, of a gold model of unknown origin."""

RARE = 1e-3
"""Chance below which what a gold model knows of single examples is not taken for chance."""
MODELS = {"before": "the model before the change", "gold": "the other gold model", "after": "the model itself"}
REFUSED = "not a gold model: "
"""Beginning of the reason why a model is not taken as gold."""


@dataclass(frozen=True)
class Origin:
    """The origin of a model, as far as it is known.

    retrained: it was trained by expunge without the forget set, and kept in the cache. listed: number of forget
    examples among those that its manifest says it was trained on; None where no manifest lists any.
    """

    retrained: bool = False
    listed: int | None = None

    @classmethod
    def of(cls, manifest: Mapping[str, Any] | None, forget: Sequence[Example], *, retrained: bool) -> Origin:
        """The origin of the model with this manifest."""
        known = {*((manifest or {}).get("hashes") or []), *((manifest or {}).get("contents") or [])}
        if not known:
            return cls(retrained)
        return cls(retrained, sum(not known.isdisjoint((identity(row)[:16], content_key(row)[:16])) for row in forget))


def gold_fault(
    gold: Mapping[str, Readout], before: Mapping[str, Readout] | None, origin: Origin, *, same_as: str = ""
) -> str:
    """Why this model is not a gold model; "" where nothing speaks against it.

    gold, before: split -> readout; None where the model before the change was not read. same_as: the role of a model
    that has the same weights. A model that was retrained here need only differ from the others in its weights. Another
    must not know the forget set better than the holdout, and must be less sure of it than the model before the change,
    by far more than on retain: noise and fresh weights spoil both alike.
    """
    if same_as:
        return REFUSED + f"its weights are those of {MODELS[same_as]}"
    if origin.listed and not origin.retrained:
        return REFUSED + f"its manifest lists {origin.listed} of the forget examples among those that it was trained on"
    if origin.retrained:
        return ""
    rise = _rise(gold, before or {}, "forget")
    if rise is not None and before is not None:
        level = float(before["forget"].mean_nll_N.mean())
        if float(np.abs(rise).mean()) <= ROUNDING * level:
            return REFUSED + "up to rounding it scores the forget set as the model before the change does"
    if member := _membership(gold):
        return REFUSED + member
    if rise is not None and before is not None and origin.listed is None:
        return _unproven(rise, _rise(gold, before, "retain"), level)
    return ""


def hiding_fault(
    recovered_N: np.ndarray | None, direct_N: np.ndarray | None, before_N: np.ndarray | None, origin: Origin
) -> str:
    """Why a model of unknown origin hides the forget set; "" where it does not, or its training is known.

    recovered_N: [N] knowledge of each example after a part of the forget set was taught again, masked where it was
    that part; direct_N, before_N: when the model, and that before the change, are simply asked. A model that never saw
    the data does not get half of the way back from learning others.
    """
    if origin.retrained or origin.listed is not None or recovered_N is None or direct_N is None or before_N is None:
        return ""
    gone = np.ma.getmaskarray(recovered_N)
    back, direct, before = (np.ma.masked_array(x, mask=gone).compressed() for x in (recovered_N, direct_N, before_N))
    if not len(back) or (before - direct).mean() <= KNOWN_AGAIN:
        return ""
    found = intervals.mean(back - (before + direct) / 2)
    if not found.low > 0:
        return ""
    return (
        f"{REFUSED}teaching it a part of the forget set brings back the rest ({direct.mean():.2f} before, "
        f"{back.mean():.2f} after), and no manifest says what it was trained on: it hides the data"
    )


def _rise(gold: Mapping[str, Readout], before: Mapping[str, Readout], split: str) -> np.ndarray | None:
    """[N] nats per token that gold gives an example beyond the model before the change."""
    readouts = [one[split] for one in (gold, before) if split in one]
    if len(readouts) < 2 or any(one.nll_N is None or not len(one) for one in readouts):
        return None
    return np.asarray(readouts[0].mean_nll_N - readouts[1].mean_nll_N)


def _membership(gold: Mapping[str, Readout]) -> str:
    """The figures of a gold model that tells the forget set from the holdout; "" where it does not, or where the two
    differ by themselves."""
    sides = [gold[split] for split in ("forget", "holdout") if split in gold]
    if len(sides) < 2 or any(side.nll_N is None or not len(side) for side in sides):
        return ""
    found = intervals.auc(*(-side.mean_nll_N for side in sides))
    if found.low <= 0.5:
        count, chance = _lead(*(side.mean_nll_N for side in sides))
        if chance >= RARE or _apart(*sides):
            return ""
        return f"it knows {count} of the forget examples better than any of the holdout (p = {chance:.1e})"
    if _apart(*sides):
        return ""
    return (
        f"it knows the forget set better than the holdout (loss AUC {found.value:.2f} "
        f"[{found.low:.2f}, {found.high:.2f}])"
    )


def _lead(forget_N: np.ndarray, holdout_N: np.ndarray) -> tuple[int, float]:
    """(the forget examples with an NLL below that of every holdout example, the chance of so many or more).

    Exact where the two are exchangeable: the lowest c of N + K values are all among the N with a chance of
    N (N - 1) ... (N - c + 1) / ((N + K) ... (N + K - c + 1)).
    """
    count, size = int((forget_N < holdout_N.min()).sum()), len(forget_N)
    steps = np.arange(count)
    return count, float(np.prod((size - steps) / (size + len(holdout_N) - steps)))


def _apart(forget: Readout, holdout: Readout) -> bool:
    """Whether the texts alone tell the two splits apart."""
    if forget.logp is None:
        return False
    try:
        found: Figure = registry.load("attacks", "blind_auc").factory()(forget=forget, holdout=holdout)
    except NotMeasured:
        return False
    return (found.low or 0) > 0.5


def _unproven(forget: np.ndarray, retain: np.ndarray | None, level: float) -> str:
    """Why the rise of the forget NLL does not show that the model never saw the forget set; "" where it does."""
    lead = intervals.mean(forget)
    if lead.low <= RISE * level:
        return (
            f"{REFUSED}its forget NLL lies {lead.value:.3g} [{lead.low:.3g}, {lead.high:.3g}] nats above that of the "
            f"model before the change, which has {level:.3g}, and no manifest says what it was trained on"
        )
    if retain is None:
        return ""
    other = intervals.mean(retain)
    width = float(np.hypot(lead.value - lead.low, other.high - other.value))
    if lead.value - other.value <= width or other.value > MOST_DAMAGE * lead.value:
        return f"{REFUSED}its NLL rose on retain as on the forget set: it is a damaged model, not one that never saw it"
    return ""


def refuse_gold(scores: Sequence[Score], why: str) -> list[Score]:
    """The scores with those of gold as "not measured", so that whoever judges them sees why there is no gold."""
    ours = [
        dataclasses.replace(score, why=why) if not score.measured and score.why.startswith("no gold model") else score
        for score in scores
        if score.role != "gold"
    ]
    absent = [
        Score.not_measured(
            why, name=one.name, side=one.side, split=one.split, role="gold", unit=one.unit, better=one.better
        )
        for one in ours
        if one.role == "after" and one.side != "alignment"
    ]
    return [*ours, *absent]
