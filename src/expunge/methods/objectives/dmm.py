"""Datamodel matching: the model is taught the outputs that attributions predict of gold."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import torch
from annotated_types import Ge, Le, MultipleOf
from torch import Tensor

from expunge.core.contracts import Example, LossTerm, MethodCard, Model, Output, Run, Step, want_of
from expunge.methods.objective import plain_training
from expunge.models.build import again, budget_of, check_retrainable
from expunge.models.passes import passes

CARD = MethodCard(
    "Datamodel matching",
    paper="arXiv:2410.23232",
    equation="section 4, outputs of the model less the attributions of the forget set, matched by squares",
    needs={"forget": {"logits"}, "retain": {"logits"}},
    capabilities={"labels"},
    fidelity="simplified",
    leaves_out="an attribution to each example: blocks of examples have one together, from few retrainings",
    means="Its retrainings cost more than gold does: it pays where one set of them serves many requests, which is not "
    "kept here. Of a whole class of digits it ends further from gold than fine-tuning: every half has rows of it, "
    "which stand in for the others. Of MNIST and a perceptron it loses a second "
    "time: of three seeds one calls everything the forgotten class, and one gets half of the others wrong.",
)
RECIPE = {"retain": "none", "epochs": 30, "share": 0.5, "schedule": "cosine", "stop": "none", "floor": 0.0}
STREAMS = ("forget", "retain")
RIDGE = 1e-2
"""The shrinkage of the regression on indicators of -1 and 1, as a share of the retrainings."""


class DatamodelMatching(LossTerm):
    """The loss of dmm(); targets: stream -> gold's predicted outputs [N, V]; places: stream -> row -> place there."""

    def __init__(self, models: int, blocks: int) -> None:
        super().__init__()
        self.models, self.blocks = models, blocks
        self.targets: dict[str, Tensor] = {}
        self.places: dict[str, dict[Any, int]] = {}

    def fits(self, model: Model, manifest: Mapping[str, Any] | None) -> None:
        """Raises BadInput where the model cannot be trained again from its start."""
        check_retrainable(manifest, model, "dmm")

    def prepare(self, run: Run) -> None:
        """Train models on random halves, attribute the outputs to blocks, and predict gold's."""
        if not run.examples("forget"):
            return
        self.places = {name: {row: i for i, row in enumerate(run.rows(name))} for name in STREAMS}
        self.targets = self._predict(run)
        notes = (run.context.notes[f"half_{number}"]["outcome"] for number in range(self.models))
        self.trained = sum(int(one["tokens"]) for one in notes)

    def _predict(self, run: Run) -> dict[str, Tensor]:
        """Each stream's outputs under the model, less what the forget set's blocks are found to add to them."""
        draws = run.context.generator("blocks")
        forget, retain = (cut(run.splits[name], self.blocks, draws) for name in STREAMS)
        half_KG = draw_halves(self.models, len(forget) + len(retain), draws)
        each = []
        for number, half_G in enumerate(half_KG.tolist()):
            rows = [row for part, sign in zip([*forget, *retain], half_G, strict=True) if sign > 0 for row in part]
            each.append(run.context.once(f"half_{number}", functools.partial(self._outputs, run, number, rows)))
        found = {}
        for name in STREAMS:
            added_GNV = attribute(half_KG, torch.stack([one[name] for one in each]))
            found[name] = outputs(run.model, run.examples(name)) - added_GNV[: len(forget)].sum(0)
        return found

    def _outputs(self, run: Run, number: int, rows: Sequence[Example]) -> dict[str, Tensor]:
        """The outputs on both streams of a model that is trained, as the base was, on these rows."""
        manifest = run.context.manifest
        assert manifest is not None, "fits() refuses a model without one"
        model = again({**manifest, "seed": run.context.derive("half", number)}, run.model)
        model.module.to(next(run.model.module.parameters()).device)
        context = run.context.child(f"half_{number}", budget=budget_of(manifest), watch=None, manifest=None)
        plain_training()(model, {"retain": rows}, context)
        return {name: outputs(model, run.examples(name)) for name in STREAMS}

    def __call__(self, step: Step) -> Tensor:
        return torch.stack([self._apart(step[name], name) for name in STREAMS]).sum()

    def _apart(self, out: Output, name: str) -> Tensor:
        """The mean over examples of the mean over classes of the squared difference from the targets."""
        rows = [self.places[name][i] for i in out.indices]
        target_BV = self.targets[name][rows].to(out.logits_BTV.device)
        return out.mean((centre(out.logits_BTV[:, -1]) - target_BV).square().mean(-1))


def centre(logits_BV: Tensor) -> Tensor:
    """The logits less their mean: what of them the probabilities depend on."""
    return logits_BV.float() - logits_BV.float().mean(-1, keepdim=True)


@torch.no_grad()
def outputs(model: Model, rows: Sequence[Example]) -> Tensor:
    """[N, V] centred logits of the rows, on the CPU."""
    found: dict[int, Tensor] = {}
    for indices, out in passes(model, rows, want_of({"logits"})):
        found |= dict(zip(indices, centre(out.logits_BTV[:, -1]).cpu(), strict=True))
    return torch.stack([found[i] for i in range(len(rows))])


def cut(rows: Sequence[Example], count: int, draws: torch.Generator) -> list[list[Example]]:
    """The rows in `count` parts of near-equal size, dealt at random; none is empty."""
    order = torch.randperm(len(rows), generator=draws).tolist()
    return [[rows[i] for i in sorted(order[k::count])] for k in range(min(count, len(rows)))]


def draw_halves(models: int, parts: int, draws: torch.Generator) -> Tensor:
    """[models, parts] of -1 and 1: every part in half of the models, and no model without a part."""
    half_K = torch.tensor([1.0, -1.0]).repeat(models // 2)
    while True:
        half_KG = torch.stack([half_K[torch.randperm(models, generator=draws)] for _ in range(parts)], dim=1)
        if bool((half_KG > 0).any(1).all()):
            return half_KG


def attribute(half_KG: Tensor, output_KNV: Tensor) -> Tensor:
    """[G, N, V] what each part adds to each output where it is among the rows, by ridge regression over the models.

    The output is linear in the indicators, -1 and 1: a part that comes in adds twice its weight.
    """
    flat_KM = (output_KNV - output_KNV.mean(0)).flatten(1)
    ridge_GG = RIDGE * len(half_KG) * torch.eye(half_KG.shape[1])
    weight_GM = torch.linalg.solve(half_KG.T @ half_KG + ridge_GG, half_KG.T @ flat_KM)
    return 2 * weight_GM.view(-1, *output_KNV.shape[1:])


def dmm(
    *, models: Annotated[int, Ge(2), Le(512), MultipleOf(2)] = 12, blocks: Annotated[int, Ge(1), Le(64)] = 3
) -> LossTerm:
    """Predict by attributions what gold would say of forget and retain, and teach it to the model.

    `models` networks are trained as the base was, each on a random half of `blocks` blocks of forget and as many of
    retain; ridge regression of their outputs (logits less their mean) on which blocks they had gives what each adds.
    Targets are the model's own outputs less what the forget set's blocks add; the loss is the squared difference, a
    mean over classes and examples, of forget plus of retain.
    """
    return DatamodelMatching(models, blocks)
