"""Cross-entropy on retain with a group's labels in the place of each row's own."""

from __future__ import annotations

from collections import Counter, defaultdict

import torch
from torch import Tensor

from expunge.core.contracts import LossTerm, MethodCard, Run, Step

CARD = MethodCard(
    "Aggregate responses on retain",
    paper="arXiv:2401.11081",
    equation="the instance-level loss",
    needs={"retain": {"logits"}},
    capabilities={"labels"},
    fidelity="faithful",
    means="Needs no row's own label, only how often each class occurs in its group (`group` of the rows; without one, "
    "in all of retain): the less the groups are mixed, the more is kept.",
    distributed=True,
)


class Aggregate(LossTerm):
    """The loss of aggregate(), and the shares of the classes in each row's group, which `prepare` counts."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.by = by
        self.shares: dict[int, Counter[int]] = {}

    def prepare(self, run: Run) -> None:
        """Count the labels of each group over all of retain."""
        counts: dict[str, Counter[int]] = defaultdict(Counter)
        groups = [str(row.get(self.by, "")) for row in run.splits["retain"]]
        for group, row in zip(groups, run.splits["retain"], strict=True):
            counts[group][int(row["label"])] += 1
        self.shares = {i: counts[group] for i, group in enumerate(groups)}

    def __call__(self, step: Step) -> Tensor:
        retain = step["retain"]
        target_BV = torch.zeros_like(retain.logits_BTV[:, 0])
        for place, row in enumerate(retain.indices):
            for label, count in self.shares[row].items():
                target_BV[place, label] = count / self.shares[row].total()
        return retain.mean(-(target_BV * retain.logits_BTV[:, 0].log_softmax(-1)).sum(-1))


def aggregate(*, by: str = "group") -> LossTerm:
    """Go on training on retain where only groups' labels are known.

    Cross-entropy (nats) of each example with the shares of the classes among the retain rows of its group.
    """
    return Aggregate(by)
