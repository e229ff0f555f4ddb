"""An objective run: forget and retain terms, the trainable weights, the update, the loop."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from expunge.core.budget import Budget
from expunge.core.card import Example
from expunge.core.context import Context
from expunge.core.contracts import Method, MethodCard, Model, Step, Term, Update, Weights
from expunge.core.errors import BadInput
from expunge.methods.updates.plain import plain
from expunge.methods.weights.all import all as all_weights
from expunge.models.weights import thaw
from expunge.training import Trainer
from expunge.training.sharding import split_weights
from expunge.training.steps import Streams


@dataclass
class Objective(Method):
    """The method that minimises forget_weight * forget(step) + alpha * retain(step)."""

    terms: dict[str, Term]
    weights: Weights
    update: Update
    budget: Budget = field(default_factory=Budget)
    """The recipe's own budget; the request's takes precedence."""
    rate: float = 1.0
    """Factor on the automatic learning rate that the trainable weights and the terms ask for."""
    anchor: str = "forget"

    def __call__(self, model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        context = dataclasses.replace(context, budget=context.budget.over(self.budget))
        terms = {**self.terms, **self.update.terms}
        for term in terms.values():
            term.loss.declare(model)
        with split_weights(model, self.weights(model, splits, context), context.budget.shard) as trainable:
            trainer = Trainer(
                model,
                splits,
                terms,
                context,
                trainable,
                self.update,
                self.anchor,
                freeze_statistics="forget" in self.terms,
                shares=self.rate,
            )
            outcome = trainer.run()
        tokens = outcome.tokens + sum(term.loss.trained for term in terms.values())
        context.notes["outcome"] = {**dataclasses.asdict(outcome), "tokens": tokens}
        for term in terms.values():
            context.notes |= term.loss.notes()
        thaw(model.module)
        return model

    def fits(
        self, model: Any, splits: Mapping[str, Sequence[Example]], manifest: Mapping[str, Any] | None
    ) -> list[str]:
        for term in {**self.terms, **self.update.terms}.values():
            for name in term.loss.reads:
                if not splits.get(name):
                    fix = f"add {name}: FILE, or leave the option out"
                    raise BadInput.of(name, "", f"is missing, and an option of {term.name} needs it", fix)
            term.loss.fits(model, manifest)
            term.loss.fits_rows(splits)
        self.ahead = sum(term.loss.ahead for term in self.terms.values())
        return []

    def streams(self) -> dict[str, Any]:
        """Stream -> split of all terms, for the plan's counts."""
        terms = {**self.terms, **self.update.terms}
        return {name: stream.split for name, stream in Streams.of(terms).streams.items()}


def plain_training(stream: str = "retain", weight_decay: float = 0.01, update: Update | None = None) -> Objective:
    """Ordinary training on one split: bases, gold models, fine-tuning; by another gradient where one is given."""

    def loss(step: Step) -> Tensor:
        return step[stream].nll

    card = MethodCard("Cross-entropy", needs={stream: {"nll"}})
    return Objective(
        {"train": Term.of("cross_entropy", loss, card)},
        all_weights(),
        update or plain(),
        Budget(schedule="cosine", warmup=0.1, weight_decay=weight_decay, stop="none"),
        anchor=stream,
    )
