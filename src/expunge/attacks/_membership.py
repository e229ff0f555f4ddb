"""Membership attacks: can the forget set be told from data that were never seen?

Each attack gives every example a score, higher = looks like a member; the figure is the AUC of
forget against holdout, both scored by the same model. 1: forget looks seen; 0.5: no difference;
below 0.5: the forget set looks less seen than unseen data, which gives it away as well. So the aim
is gold's AUC, not a low one (on an honest holdout gold's is 0.5).
"""

from __future__ import annotations

import numpy as np

from expunge.core.card import Example
from expunge.core.readout import Readout
from expunge.evidence import Figure, NotMeasured
from expunge.intervals import auc, placements
from expunge.metrics._arrays import only

MEANS = ("How well an attacker with this score tells the forget set from data that were never "
         "seen; near gold's is good, and a stronger attack may still see more.")  # fmt: skip


def compare(members: np.ndarray, others: np.ndarray, why: str = "") -> Figure:
    """AUC of scores [M] of the forget set against [N] of the holdout, with DeLong's interval.

    The per-example values are each forget example's exposure: the share of the holdout that it
    beats. Their mean is the AUC. Masked scores do not count.
    """
    counts = ~np.ma.getmaskarray(members)
    ours, theirs = (np.ma.masked_array(x).compressed() for x in (members, others))
    if not len(ours) or not len(theirs):
        raise NotMeasured("no example carries what it needs")
    broken = int((~np.isfinite(ours)).sum() + (~np.isfinite(theirs)).sum())
    if broken:
        raise NotMeasured(f"the score is not finite on {broken} examples: the model has diverged")
    exposure = np.zeros(len(members))
    exposure[counts] = placements(ours, theirs)[0]
    return Figure(*auc(ours, theirs), n=len(ours) + len(theirs), values=only(exposure, counts),
                  why=why)  # fmt: skip


def answer_text(example: Example) -> str:
    """The text that is asked of the model: the answer, the whole text, or the last message."""
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
    """[N] the texts that were asked of the model."""
    return readout.answers or [answer_text(example) for example in readout.examples]
