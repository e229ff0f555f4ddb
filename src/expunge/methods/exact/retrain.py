"""Retraining without the forget set: the gold standard, and the cost to beat."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from expunge.core.budget import batch_size
from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.core.errors import BadInput
from expunge.methods.training import check_homes, trainer_for
from expunge.models.build import again, budget_of, check_again, training_data
from expunge.models.manifest import retraining_tokens

CARD = MethodCard(
    "Retraining without the forget set",
    paper="baseline",
    equation="exact by construction",
    needs={"forget": (), "retain": ()},
    deterministic=True,
    fidelity="faithful",
)


def train(fresh: Model, data: Sequence[Example], context: Context) -> Model:
    """Train a fresh model on all the data, as its family is trained: bases and gold models alike."""
    return trainer_for((context.manifest or {}).get("trainer"), fresh)(fresh, data, context)


def retrain() -> Method:
    """Retrain from the same start and as the model was trained, on all its data minus forget.

    Needs the model's training manifest (a model that `expunge train` made).
    """
    return Retraining()


class Retraining(Method):
    """The method; the plan refuses it where the training cannot be repeated."""

    def fits(
        self, model: Model, splits: Mapping[str, Sequence[Example]], manifest: Mapping[str, Any] | None
    ) -> list[str]:
        """Check that the training can be repeated, and set `steps` and `tokens`; no notes. Raises BadInput."""
        if manifest and "budget" in manifest:  # an embedded world's has none before it is built
            left = len(self._data(model, splits, manifest))
            budget = budget_of(manifest)
            epoch = -(-left // batch_size(budget, left))
            self.steps = budget.steps if budget.steps is not None else int(budget.epochs or 1) * epoch
            self.tokens = retraining_tokens(manifest, splits)
        return []

    @staticmethod
    def _data(
        model: Model, splits: Mapping[str, Sequence[Example]], manifest: Mapping[str, Any] | None
    ) -> list[Example]:
        if not manifest:
            raise BadInput.of(
                "method",
                "retrain",
                "needs the record of how the model was trained",
                "give a model made by `expunge train`",
            )
        data = training_data(manifest, splits["forget"], model.trusted)
        check_homes(manifest, data)
        check_again(manifest, model)
        return data

    def __call__(self, model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        data = self._data(model, splits, context.manifest)
        assert context.manifest is not None
        fresh = again(context.manifest, model)
        inner = context.child("retrain", budget=budget_of(context.manifest), seed=int(context.manifest["seed"]))
        return train(fresh, data, inner)
