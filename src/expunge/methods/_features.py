"""Terms that put a classifier's features through its head again, in another shape."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from expunge.core.contracts import LossTerm, Model, Output, Run, Step
from expunge.core.errors import BadInput
from expunge.methods._head import linear_head


class FeatureTerm(LossTerm, ABC):
    """Cross-entropy of the head on features that `reshape` changes, a mean over several draws of it."""

    def __init__(self, name: str, draws: int) -> None:
        super().__init__()
        self.name, self.draws = name, draws

    def declare(self, model: Model) -> None:
        paths = [path for path, part in model.module.named_modules() if isinstance(part, nn.Linear)]
        if not paths:
            fix = "choose another retain term, or a model with a linear head"
            raise BadInput.of("model", type(model.module).__name__, f"has no linear layer, as {self.name} needs", fix)
        self.module, self.path = model.module, paths[-1]
        self.needs = {"retain": {"nll", f"hidden:{self.path}:in"}}

    def prepare(self, run: Run) -> None:
        """Check that the last layer's outputs are the logits."""
        if rows := run.examples("retain")[:2]:
            linear_head(run.model, rows, f"{self.name} changes what it reads")

    @abstractmethod
    def reshape(self, feature_BD: Tensor, draws_of: Callable[[int], Tensor]) -> Tensor:
        """[B, D] features to put through the head. draws_of: a width -> [B, width] uniform draws."""

    def __call__(self, step: Step) -> Tensor:
        retain = step["retain"]
        feature_BD = retain.hidden[f"{self.path}:in"][:, 0]
        head = self.module.get_submodule(self.path)
        losses = []
        for _ in range(self.draws):
            changed_BD = self.reshape(feature_BD, lambda width: _uniform(step, retain, width))
            losses.append(cross_entropy(head(changed_BD).float(), retain.labels_BT[:, 0], reduction="none"))
        return retain.mean(torch.stack(losses).mean(0))


def _uniform(step: Step, out: Output, width: int) -> Tensor:
    """[B, width] draws of each example, by the step's generator and its place in the step."""
    places = list(out.rows or range(len(out.labels_BT)))
    drawn = [torch.rand(width, generator=step.generator) for _ in range(max(places, default=-1) + 1)]
    chosen = [drawn[place] for place in places]
    found = torch.stack(chosen) if chosen else torch.zeros(0, width)
    return found.to(out.labels_BT.device)
