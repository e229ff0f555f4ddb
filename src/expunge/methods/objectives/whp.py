"""Who's Harry Potter: generic labels from a reinforced model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import torch
from annotated_types import Gt
from torch import Tensor

from expunge.core.contracts import Example, LossTerm, MethodCard, Model, Run, Step, Want
from expunge.methods.objective import plain_training
from expunge.models.passes import passes
from expunge.training.checkpoint import restore

CARD = MethodCard(
    "Who's Harry Potter: approximate unlearning by generic labels",
    paper="arXiv:2310.02238",
    equation="1",
    needs={"forget": {"logits"}},
    capabilities={"tokens"},
    means="Labels are generic as far as the reinforced copy differs: names that both models prefer stay.",
    fidelity="simplified",
    leaves_out="the replacement of anchor terms; labels come from the 64 likeliest tokens",
    shown="A fifth of the forget answers' words go, and at equal forget NLL it keeps a tenth more of retain than "
    "ascent; that its answers stay fluent is not shown.",
    distributed=True,
)
RECIPE = {"retain": "cross_entropy", "stop": "none"}
CANDIDATES = 64
"""Labels are chosen among the reference model's most likely tokens; by the formula no other token gains."""


class Generic(LossTerm):
    """The loss of whp(): labels [R, T] of the rows that the run draws, right-aligned."""

    def __init__(self, strength: float) -> None:
        self.strength = strength

    def prepare(self, run: Run) -> None:
        """Reinforce a copy of the weights on forget, and derive the labels from both models."""
        self.places = {row: i for i, row in enumerate(run.rows("forget"))}
        if not self.places:  # a run of no steps
            return
        stored = run.context.once("generic", lambda: {"labels": self._labels(run)})
        self.labels_RT = stored["labels"].long()

    def _labels(self, run: Run) -> Tensor:
        examples, module = run.examples("forget"), run.model.module
        index_RTK, base_RTK = _logits(run.model, examples)
        before = {name: value.detach().cpu().clone() for name, value in module.state_dict().items()}
        moves = {name: p.requires_grad for name, p in module.named_parameters()}
        plain_training("forget")(run.model, {"forget": examples}, run.context.child("reinforced"))
        _, reinforced_RTK = _logits(run.model, examples, index_RTK)
        restore(module, before, "")
        for name, parameter in module.named_parameters():
            parameter.requires_grad_(moves[name])
        return generic_labels(index_RTK, base_RTK, reinforced_RTK, self.strength).int()

    def __call__(self, step: Step) -> Tensor:
        forget = step["forget"]
        places = [self.places[row] for row in forget.indices]
        labels_BT = self.labels_RT[places][:, -forget.mask_BT.shape[1] :].to(forget.mask_BT.device)
        logp_BT = forget.logits_BTV.log_softmax(-1).gather(-1, labels_BT[..., None])[..., 0]
        return forget.mean(-logp_BT)


def generic_labels(index_RTK: Tensor, base_RTK: Tensor, reinforced_RTK: Tensor, strength: float) -> Tensor:
    """Labels [R, T]: argmax of v_b - strength relu(v_r - v_b) over the candidates, v logits."""
    best_RT1 = (base_RTK - strength * (reinforced_RTK - base_RTK).relu()).argmax(-1, keepdim=True)
    return index_RTK.gather(-1, best_RT1)[..., 0]


def _logits(model: Model, rows: Sequence[Example], index: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Return (token ids, logits) of each position's candidates, [R, T, K] right-aligned, on the CPU.

    The candidates are the most likely tokens, or those of `index`.
    """
    parts: list[tuple[list[int], Tensor, Tensor]] = []
    for batch, out in passes(model, rows, Want(frozenset({"nll", "logits"}))):
        logits_BTV = out.logits_BTV
        if index is None:
            index_BTK = logits_BTV.topk(min(CANDIDATES, logits_BTV.shape[-1])).indices
        else:
            index_BTK = index[batch][:, -logits_BTV.shape[1] :].to(logits_BTV.device)
        parts.append((batch, index_BTK.cpu(), logits_BTV.gather(-1, index_BTK).cpu()))
    steps = max(ids.shape[1] for _, ids, _ in parts)
    shape = (len(rows), steps, parts[0][1].shape[-1])
    ids_RTK, values_RTK = torch.zeros(shape, dtype=torch.long), torch.zeros(shape)
    for batch, ids_BTK, values_BTK in parts:
        ids_RTK[batch, steps - ids_BTK.shape[1] :] = ids_BTK
        values_RTK[batch, steps - ids_BTK.shape[1] :] = values_BTK
    return ids_RTK, values_RTK


def whp(*, strength: Annotated[float, Gt(0)] = 5.0) -> LossTerm:
    """Train on the tokens of a model that never saw forget, estimated from one that was reinforced on it.

    A copy is reinforced on forget with the run's budget; the label of each position is the argmax of
    v_b - strength relu(v_r - v_b), v the logits of the reference and of the reinforced model.
    """
    return Generic(strength)
