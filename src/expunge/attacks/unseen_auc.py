"""Membership by out-of-distribution scores: whether the forgotten looks unseen."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import numpy as np
from annotated_types import Ge

from expunge.attacks.shared.membership import compare
from expunge.core.card import AttackCard, Example
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.ood import Rows, far_rows, read_rows, scorer
from expunge.evaluation.scores import Figure, NotMeasured

CARD = AttackCard(
    "Whether the forgotten looks unseen",
    paper="arXiv:2204.06507",
    adversary="hidden states; rows of the retain set",
    side="privacy",
    better="gold",
    unit="auc",
    capabilities=("labels",),
    needs={"forget": {"examples"}, "retain": {"examples"}},
    level="standard",
    more=("kept", "far", "confidence"),
    passes=5,
    whole=True,
    means="How far the forget set lies from what the model knows, beside data that it never saw. Gold's figures are "
    "the aim from both sides: a forget set that looks more familiar was not forgotten, one that looks stranger than an "
    "unseen one tells what was erased. In the features of a model that knows it, a class forms a group of its own, far "
    "from all others, and rows with wrong labels lie apart from those with right ones.",
)
ALIKE = ("test_forget", "holdout")
"""Unseen rows like the forget set, the first split that there is: those of a forgotten class, else the holdout."""
KEPT = ("test", "holdout")
"""Unseen rows of what stays."""


def unseen_auc(*, k: Annotated[int, Ge(1)] = 5) -> Attack:
    """AUC by which forget rows lie nearer to the retain set than unseen rows like them (features, k-th neighbour).

    `kept`: the same against unseen rows of what stays. `far`: against the unseen rows with their pixels or values
    shuffled; for inputs given as arrays. `confidence`: against unseen rows of what stays by the largest class
    probability. Where a class was forgotten, the rows like it are its own in the test split.
    """

    def attack(target: Target) -> Found:
        alike, kept = (next((name for name in names if target.splits.get(name)), "") for names in (ALIKE, KEPT))
        if not alike:
            raise NotMeasured("no holdout was given, and no test rows of a forgotten class")
        known = read_rows(target.model, target.splits["retain"])
        splits: dict[str, Sequence[Example]] = {name: target.splits[name] for name in ("forget", alike, kept) if name}
        splits["far"] = far_rows(splits[alike], target.derive("unseen"))
        read = {name: read_rows(target.model, rows) for name, rows in splits.items() if rows}

        def against(name: str, score: str, options: dict[str, int], why: str = "") -> Figure:
            def familiar(rows: Rows) -> np.ndarray:
                return -scorer(score, options)(known, rows)

            sides = splits["forget"], splits[name]
            return compare(familiar(read["forget"]), familiar(read[name]), why, rows=sides)

        nearest = "knn", {"k": k}
        why = f"against {alike}; neighbours among {len(known.logits_NC)} retain rows"
        more = {"kept": against(kept, *nearest), "confidence": against(kept, "msp", {})} if kept else {}
        more |= {"far": against("far", *nearest)} if "far" in read else {}
        return Found(against(alike, *nearest, why), more={name: ("auc", "gold", one) for name, one in more.items()})

    return attack
