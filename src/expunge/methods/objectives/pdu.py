"""Primal-dual unlearning."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from annotated_types import Ge, Gt
from torch import Tensor

from expunge.core.contracts import LossTerm, MethodCard, Run, Step, want_of

CARD = MethodCard(
    "PDU: forget as deeply as a bound on the retain loss allows",
    paper="arXiv:2506.05314",
    equation="primal-dual updates of section 4",
    needs={"forget": {"logits"}, "retain": {"nll"}},
    fidelity="faithful",
    shown="The retain NLL ends near its bound of .15, and the forget NLL at over ten times what it was.",
    distributed=True,
)
RECIPE = {"retain": "none", "stop": "none"}
SAMPLE = 256
"""Retain examples from which the default bound is measured, at most."""


class Dual(LossTerm):
    """The loss of pdu(): its multiplier changes after each step."""

    def __init__(self, epsilon: float | None, eta: float, start: float, warmup_epochs: int) -> None:
        self.epsilon, self.eta, self.warmup_epochs = epsilon, eta, warmup_epochs
        self.multiplier = start
        self.epoch = 0

    def prepare(self, run: Run) -> None:
        """Set the default bound: the reference model's own retain loss plus 5 %, at least 0.05 nats."""
        if self.epsilon is not None:
            return
        rows = run.examples("retain")[:SAMPLE]
        if not rows:  # a run of no steps
            return
        positions = run.model.collate(rows).n_B.sum()
        nll = float(run.record(rows, want_of({"nll"})).nll_B.sum() / positions)
        self.epsilon = nll + max(0.05 * nll, 0.05)

    def __call__(self, step: Step) -> Tensor:
        forget, retain = step["forget"], step["retain"]
        logits_BTV = forget.logits_BTV
        flat = forget.mean((logits_BTV.amax(-1) - logits_BTV.mean(-1)).square())
        nll = retain.nll
        step.note("pdu_retain", nll.detach())
        step.note("pdu_epoch", step.share * step.epoch)
        return flat + self.multiplier * nll

    def after_step(self, index: int, notes: Mapping[str, float]) -> None:
        if self.epsilon is not None and notes.get("pdu_epoch", 0.0) >= self.warmup_epochs - 1e-6:
            self.multiplier = max(0.0, self.multiplier + self.eta * (notes["pdu_retain"] - self.epsilon))

    def notes(self) -> dict[str, Any]:
        """Note the last multiplier."""
        return {"retain_multiplier": self.multiplier}

    def state_dict(self) -> dict[str, Any]:
        return {"multiplier": self.multiplier}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.multiplier = float(state["multiplier"])


def pdu(
    *,
    epsilon: Annotated[float, Gt(0)] | None = None,
    eta: Annotated[float, Gt(0)] = 1.0,
    start: Annotated[float, Ge(0)] = 50.0,
    warmup_epochs: Annotated[int, Ge(0)] = 0,
) -> LossTerm:
    """Flatten the logits on forget, subject to a bound on the retain loss that a multiplier enforces.

    Mean over positions of (max logit - mean logit)^2 + m (retain NLL), with m <- max(0, m + eta (retain NLL - epsilon))
    after each step. epsilon in nats per token, by default the reference model's NLL plus 5 % (at least 0.05); start:
    the first m; warmup_epochs: epochs in which m is constant.
    """
    return Dual(epsilon, eta, start, warmup_epochs)
