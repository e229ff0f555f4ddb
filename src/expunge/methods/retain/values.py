"""A floor under every group of the retain data."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt
from torch import Tensor

from expunge.core.contracts import LossTerm, MethodCard, Run, Step

CARD = MethodCard(
    "Every group of retain above a floor",
    paper="arXiv:2410.19198",
    equation="primal-dual form of problem (1), one multiplier per value",
    needs={"retain": {"nll"}},
    reference={"retain": {"nll"}},
    fidelity="variant",
    leaves_out="constraints on rewards: the bounds are on the loss of each group",
    distributed=True,
)

GROUPS_NOTED = 20
"""Groups that the evidence names, at most."""


class Floors(LossTerm):
    """The loss of values(): a multiplier for each group of the retain rows, updated after each step."""

    def __init__(self, slack: float, eta: float, start: float, by: str) -> None:
        self.slack, self.eta, self.start, self.by = slack, eta, start, by
        self.groups: dict[int, str] = {}
        """Row of retain -> its group."""
        self.multipliers: dict[str, float] = {}
        self.broken: dict[str, int] = {}
        """Group -> steps in which its bound was broken."""

    def prepare(self, run: Run) -> None:
        """Read the group of each row, and set every multiplier to its start."""
        rows = zip(run.rows("retain"), run.examples("retain"), strict=True)
        self.groups = {i: str(row.get(self.by, row.get("domain", ""))) for i, row in rows}
        self.multipliers = dict.fromkeys(sorted(set(self.groups.values())), self.start)
        self.broken = dict.fromkeys(self.multipliers, 0)

    def __call__(self, step: Step) -> Tensor:
        retain = step["retain"]
        names = [self.groups[i] for i in retain.indices]
        rise_B = (retain.nll_B - retain.reference.nll_B).detach()
        for group in self.multipliers:  # all of them, so that every process notes the same
            mine_B = torch.tensor([name == group for name in names], dtype=torch.bool, device=rise_B.device)
            step.note(f"values_rise_{group}", rise_B[mine_B].sum())
            step.note(f"values_positions_{group}", retain.n_B[mine_B].sum())
        weight_B = retain.nll_B.new_tensor([self.multipliers[name] for name in names])
        return (weight_B * retain.nll_B).sum() / max(1, retain.positions or int(retain.n_B.sum()))

    def after_step(self, index: int, notes: Mapping[str, float]) -> None:
        for group, multiplier in self.multipliers.items():
            if positions := notes.get(f"values_positions_{group}", 0.0):
                excess = notes[f"values_rise_{group}"] / positions - self.slack
                self.multipliers[group] = max(0.0, multiplier + self.eta * excess)
                self.broken[group] += excess > 0

    def notes(self) -> dict[str, Any]:
        """Last multiplier of each group and the steps that broke its bound, the largest first."""
        order = sorted(self.multipliers, key=lambda group: -self.multipliers[group])[:GROUPS_NOTED]
        return {
            "floor_multipliers": {group: self.multipliers[group] for group in order},
            "steps_with_a_broken_floor": {group: self.broken[group] for group in order},
        }

    def state_dict(self) -> dict[str, Any]:
        return {"multipliers": dict(self.multipliers), "broken": dict(self.broken)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.multipliers = {name: float(value) for name, value in state["multipliers"].items()}
        self.broken = {name: int(value) for name, value in state["broken"].items()}


def values(
    *,
    slack: Annotated[float, Ge(0)] = 0.05,
    eta: Annotated[float, Gt(0)] = 1.0,
    start: Annotated[float, Ge(0)] = 1.0,
    by: str = "group",
) -> LossTerm:
    """Keep each group of the retain rows above a floor: a bound on its loss, enforced by a multiplier.

    Mean over positions of m_g NLL, with m_g <- max(0, m_g + eta (rise_g - slack)) after each step that draws rows of
    group g; rise_g: its NLL per position minus the reference model's on the same rows (nats). start: the first m_g; by:
    the key of the rows that names their group (else `domain`, else all are one group).
    """
    return Floors(slack, eta, start, by)
