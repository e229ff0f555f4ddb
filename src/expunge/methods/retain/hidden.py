"""Hidden states held at their values in the reference model."""

from __future__ import annotations

import torch
from torch import Tensor

from expunge.core.contracts import LossTerm, MethodCard, Model, Output, Step, Stream
from expunge.methods._layers import choose_layer
from expunge.methods._traces import trace_as_answer

CARD = MethodCard(
    "Hidden-state match on retain",
    paper="arXiv:2403.03218",
    equation="section 4, retain loss",
    needs={"retain": {"hidden"}},
    reference={"retain": {"hidden"}},
    fidelity="faithful",
    distributed=True,
)
TRACES = "retain_traces"


class Match(LossTerm):
    """The loss of hidden()."""

    def __init__(self, layer: int | None, traces: bool) -> None:
        self.layer = layer
        self.names = ("retain", TRACES) if traces else ("retain",)
        if traces:
            self.streams = {TRACES: Stream(split="retain", make=trace_as_answer)}

    def declare(self, model: Model) -> None:
        self.path = model.blocks[choose_layer(model, self.layer)]
        self.needs = {name: {f"hidden:{self.path}"} for name in self.names}
        self.reference = self.needs

    def __call__(self, step: Step) -> Tensor:
        return torch.stack([self._distance(step[name]) for name in self.names]).sum()

    def _distance(self, out: Output) -> Tensor:
        """Mean squared distance of the counted positions' activations from the reference model's."""
        now_BTD, then_BTD = out.hidden[self.path].float(), out.reference.hidden[self.path].float()
        return out.mean((now_BTD - then_BTD).square().mean(-1))


def hidden(*, layer: int | None = None, traces: bool = False) -> LossTerm:
    """Keep the retain examples' activations at one layer where they were.

    Squared error to the reference model's hidden state, averaged over positions and dimensions. traces: as much
    again for the reasoning of the examples that carry `trace`, read as `<think>trace</think>`.
    """
    return Match(layer, traces)
