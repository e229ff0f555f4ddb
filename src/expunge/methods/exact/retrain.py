"""Training again without the forget set: the gold standard, and the price to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from expunge.core.context import Context
from expunge.core.contracts import Card, Example, Method, Subject
from expunge.core.errors import BadInput

CARD = Card(
    "Retraining without the forget set",
    paper="baseline",
    equation="exact by construction",
    needs={"forget": (), "retain": ()},
)


def train(fresh: Subject, data: Sequence[Example], context: Context) -> Subject:
    """Ordinary training of a fresh model on all the data: bases and gold models alike."""
    from expunge.methods.objective import plain_training

    return plain_training()(fresh, {"retain": list(data)}, context)


def retrain() -> Method:
    """Train anew, from the same start and as the model was trained, on all its data minus forget.

    Needs the model's training manifest (a model that `expunge train` made).
    """

    def apply(subject: Subject, splits: Mapping[str, Sequence[Example]], context: Context) -> Subject:
        from expunge.subjects.building import again, budget_of, training_data

        if not context.manifest:
            raise BadInput.of("method", "retrain", "needs to know how the model was trained",
                              "give a model made by `expunge train`")  # fmt: skip
        data = training_data(context.manifest, splits["forget"])
        fresh = again(context.manifest, subject)
        inner = context.child("retrain", budget=budget_of(context.manifest),
                              seed=int(context.manifest["seed"]))  # fmt: skip
        return train(fresh, data, inner)

    return apply
