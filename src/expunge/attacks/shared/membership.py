"""Membership attacks: scores that tell the forget set from data that were never seen.

Each attack gives every example a score, higher = looks like a member; the figure is the AUC of
forget against holdout, both scored by the same model. 1: forget looks seen; 0.5: no difference;
below 0.5: the forget set looks less seen than unseen data, which gives it away as well. So the aim
is gold's AUC, not a low one (on an honest holdout gold's is 0.5).
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Sequence

import numpy as np

from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.evaluation import intervals
from expunge.evaluation.arrays import mean_nll, min_k, min_k_plus_plus, only
from expunge.evaluation.attack import Found
from expunge.evaluation.groups import count_groups, group_numbers
from expunge.evaluation.intervals import auc, placements
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import Figure, NotMeasured

MEANS = (
    "How well an attacker with this score tells the forget set from data that were never seen; close to gold's is "
    "good, but a stronger attack may still see more."
)


def check_gradients(model: Model) -> None:
    """Raise NotMeasured where there are no weights, or where an example's loss depends on its batch: the gradient of
    one alone says nothing."""
    if not any(True for _ in model.module.parameters()):
        raise NotMeasured("the model has no weights that a gradient could be taken by")
    if model.together:
        raise NotMeasured("an example's loss depends on others of its batch, and gradients are taken of one alone")


K = 0.2
"""The share of tokens of Min-K% and Min-K%++ in all reports; PrivLeak alone has MUSE's 0.4."""
Sides = tuple[Sequence[Example], Sequence[Example]]
"""The examples of the forget set and of the holdout."""


def compare(members: np.ndarray, others: np.ndarray, why: str = "", *, rows: Sides | None = None) -> Figure:
    """AUC of scores [M] of the forget set against [N] of the holdout, with the interval of `intervals.auc`.

    rows: the examples, by whose `group` the interval is clustered; None: each counts by itself. The per-example
    values are each forget example's exposure, the share of the holdout that it beats, and of each of the holdout the
    share of the forget set that beats it. The mean of either is the AUC. Masked scores do not count.
    """
    ours, theirs, groups = _drop_masked(members, others, rows)
    if not len(ours) or not len(theirs):
        raise NotMeasured("no example has what the attack needs")
    broken = int((~np.isfinite(ours)).sum() + (~np.isfinite(theirs)).sum())
    if broken:
        raise NotMeasured(f"the score is not finite on {broken} examples: the model has diverged")
    exposure, beaten = (
        _scatter(found, scores) for found, scores in zip(placements(ours, theirs), (members, others), strict=True)
    )
    return Figure(
        *auc(ours, theirs, groups=groups),
        n=len(ours) + len(theirs),
        values=exposure,
        others=beaten,
        why=why,
        groups=count_groups(*(groups or ())),
    )


def _scatter(found: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """[N] values, masked where the scores are, given those of the scores that count."""
    counts = ~np.ma.getmaskarray(scores)
    values = np.zeros(len(scores))
    values[counts] = found
    return only(values, counts)


def _drop_masked(
    members: np.ndarray, others: np.ndarray, rows: Sides | None
) -> tuple[np.ndarray, np.ndarray, tuple[np.ndarray, np.ndarray] | None]:
    """(the members' scores that are not masked, the others', the numbers of both sides' groups if clustered)."""
    sides = [np.ma.masked_array(x, dtype=float) for x in (members, others)]
    groups = None
    if rows is not None:
        kept = [~np.ma.getmaskarray(x) for x in sides]
        groups = group_numbers(*(list(itertools.compress(some, x)) for some, x in zip(rows, kept, strict=True)))
    return sides[0].compressed(), sides[1].compressed(), None if groups is None else (groups[0], groups[1])


def tpr(members: np.ndarray, others: np.ndarray, fpr: float, *, rows: Sides | None = None) -> Figure:
    """The share of [M] members' scores above all but a share `fpr` of [N] others', with a BCa interval.

    Both samples are drawn anew in the bootstrap (by whole groups where the rows have them), so that the interval
    covers the threshold's own noise; where no draw differs it is Wilson's. Raises NotMeasured with fewer than 1/fpr
    others, too few for a threshold.
    """
    ours, theirs, groups = _drop_masked(members, others, rows)
    if not len(ours) or not (np.isfinite(ours).all() and np.isfinite(theirs).all()):
        raise NotMeasured("no example has what the attack needs, or the model has diverged")
    allowed = int(fpr * len(theirs) + 1e-9)
    if allowed < 1:
        raise NotMeasured(
            f"a false-positive rate of {fpr:.1%} needs {round(1 / fpr):,} unseen examples, not {len(theirs)}"
        )

    def statistic(first: np.ndarray, second: np.ndarray) -> np.ndarray:
        above = int(fpr * second.shape[-1] + 1e-9)
        limit = np.partition(theirs[second], -above - 1, axis=-1)[..., -above - 1, None]
        return np.asarray((ours[first] > limit).mean(axis=-1))

    if groups is None:
        found = intervals.bca(statistic, len(ours), len(theirs))
    else:
        found = intervals.bootstrap_by_group(statistic, *groups)
    if found.low == found.high:
        found = intervals.share(found.value * len(ours), len(ours))
    return Figure(
        *found,
        n=len(ours) + len(theirs),
        why=f"{allowed} of {len(theirs)} unseen examples are falsely accused",
        groups=count_groups(*(groups or ())),
    )


def membership_result(members: np.ndarray, others: np.ndarray, why: str = "", *, rows: Sides | None = None) -> Found:
    """The result of an attack on a model: the AUC, and the rates at 1 % and 0.1 % false positives where measurable."""
    more = {}
    for suffix, fpr in (("tpr_1", 0.01), ("tpr_01", 0.001)):
        with contextlib.suppress(NotMeasured):  # tpr_at_1 and tpr_at_01 give the reason
            more[suffix] = ("share", "gold", tpr(members, others, fpr, rows=rows))
    return Found(compare(members, others, why, rows=rows), more=more)


def attack_scores(readout: Readout) -> dict[str, np.ndarray]:
    """Attack -> [N] scores, higher = looks like a member, for each attack that the readout allows."""
    found = {"loss": -mean_nll(readout)}
    if readout.logp is not None:
        found["min-k"] = min_k(readout, K)
    if readout.logp is not None and readout.mu is not None and readout.sigma is not None:
        found["min-k++"] = min_k_plus_plus(readout, K)
    if readout.logp_NC is not None:
        found["confidence"] = readout.logp_NC.max(axis=1)
    return found


def answer_text(example: Example) -> str:
    """The text that the model is to give: the answer, the whole text, or the last message."""
    if "answer" in example:
        return str(example["answer"])
    if "text" in example:
        return str(example["text"])
    messages = example.get("messages") or [{}]
    return str(messages[-1].get("content", ""))


def whole_text(example: Example) -> str:
    """All the text of an example: question and answer, the text, or every message."""
    if "messages" in example:
        return "\n".join(str(message.get("content", "")) for message in example["messages"])
    return "\n".join(str(example[key]) for key in ("question", "answer", "text") if key in example)


def answers(readout: Readout) -> list[str]:
    """[N] texts that the model was to give."""
    return readout.answers or [answer_text(example) for example in readout.examples]
