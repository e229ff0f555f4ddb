"""Membership by a client that stays in a federation: what it can tell of a leaving client's rows."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np

from expunge.attacks.shared.membership import MEANS, compare
from expunge.attacks.shared.rounds import leaving_clients, losses, sequence_of
from expunge.core.card import AttackCard, Example
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import NotMeasured
from expunge.methods.training import client_in
from expunge.models.history import FEDERATED

CARD = AttackCard(
    "Membership by a fellow client",
    paper="arXiv:1812.00910",
    adversary="weights of all rounds' common models; its own rows",
    side="privacy",
    better="gold",
    unit="auc",
    capabilities=(FEDERATED, "labels"),
    needs={"forget": {"examples"}, "retain": {"examples"}, "holdout": {"examples"}},
    level="deep",
    passes=24,
    means=MEANS + " It sees what every client is sent, and no other client's update. It is run from the rounds that "
    "the server kept (`history: all`), which are the same models: on the model before and on gold, for a model after "
    "a departure has no record. The client itself keeps them, whatever the server deletes.",
)
RIDGE = 1.0
"""Of the learned direction, shared out over the rows that teach it."""
LEAST = 1e-7
"""Nats that a loss counts as at least: single precision says no more."""


def fellow_auc() -> Attack:
    """AUC of forget against holdout by a score that a client which stays learns from the models of all rounds.

    The staying client with the most rows reads the log of the loss under every round's common model on its own rows,
    which took part, and on rows like them that did not, for which every second row of holdout stands; a ridge tells
    these apart by the sequence, and scores the forgotten rows and the other half (the passive local attacker of Nasr
    et al. 2019, with a linear classifier for their network).
    """

    def attack(target: Target) -> Found:
        kept = sequence_of(target)
        own = fellow_rows(target)
        forget, known, unseen = target.forget, target.splits["holdout"][::2], target.splits["holdout"][1::2]
        if not unseen:
            raise NotMeasured("a holdout of one row leaves none to compare with")
        with target.disposable() as model:
            last = {name: value.clone() for name, value in model.module.state_dict().items()}
            models = [*[one.before for one in kept[1:]], last]
            read_TN = np.stack([losses(model, one, [*forget, *unseen], [*own, *known]) for one in models])
        score = separation(np.log(np.maximum(read_TN, LEAST)).T, len(forget) + len(unseen), len(own))
        ours, theirs = score[: len(forget)], score[len(forget) :]
        return Found(compare(ours, theirs, f"{len(own)} rows of its own", rows=(forget, unseen)))

    return attack


def fellow_rows(target: Target) -> Sequence[Example]:
    """The rows of the staying client that has the most of them. Raises NotMeasured where no client stays."""
    holder = client_in(target.manifest)
    leaving = leaving_clients(target)
    lies = [str(holder(row)) if holder else "" for row in target.splits["retain"]]
    staying = Counter(name for name in lies if name not in leaving)
    if not holder or not staying:
        raise NotMeasured("no client is known that stays")
    most = max(staying, key=lambda name: (staying[name], name))
    return [row for row, name in zip(target.splits["retain"], lies, strict=True) if name == most]


def separation(read_NT: np.ndarray, scored: int, members: int) -> np.ndarray:
    """[scored] the score of the first rows, higher = a member, by a ridge that was fitted on the others.

    read_NT: the sequence of each row: first those that are scored, then so many members, then rows that are none.
    Both sides weigh alike, however many rows they have.
    """
    taught_MT = read_NT[scored:]
    side_M = np.where(np.arange(len(taught_MT)) < members, 1.0, -1.0)
    weight_M = np.where(side_M > 0, 0.5 / members, 0.5 / max(1, len(taught_MT) - members))
    middle_T = weight_M @ taught_MT
    scale_T = np.sqrt(weight_M @ (taught_MT - middle_T) ** 2) + 1e-12
    x_MT = (taught_MT - middle_T) / scale_T
    inner_TT = (x_MT * weight_M[:, None]).T @ x_MT + RIDGE / len(taught_MT) * np.eye(x_MT.shape[1])
    direction_T = np.linalg.solve(inner_TT, x_MT.T @ (weight_M * side_M))
    return np.asarray(((read_NT[:scored] - middle_T) / scale_T) @ direction_T)
