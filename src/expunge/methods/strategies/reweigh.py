"""Federated averaging of clients that weigh their rows so that group and label are independent."""

from __future__ import annotations

from collections import Counter

from torch import Tensor

from expunge.core.card import Card, MethodCard
from expunge.core.contracts import LossTerm, Run, Step, Term
from expunge.core.errors import BadInput
from expunge.data.clients import Clients
from expunge.methods._strategy import Strategy
from expunge.training.updates import mean_by_examples

CARD = Card(
    "Local reweighing",
    paper="arXiv:2012.02447",
    equation="section 4, local reweighing",
    means="Each client counts its own rows, and tells nobody how many it has of a group. What a model decides depends "
    "less on the group, at a little accuracy. The counts are of the client's rows in each round: a weight is that of "
    "its own data, not of all.",
)


class Balance(LossTerm):
    """(w - 1) times the loss of each row: with plain training's own loss, w times it. w = n_s n_y / (n n_sy)."""

    def __init__(self, by: str) -> None:
        super().__init__()
        self.by = by
        self.weights: dict[int, float] = {}
        """Row of the split -> its weight."""

    def prepare(self, run: Run) -> None:
        rows = list(zip(run.rows("retain"), run.examples("retain"), strict=True))
        if missing := [i for i, row in rows if self.by not in row]:
            raise BadInput.of("strategy.reweigh.by", self.by, f"is no field of row {missing[0] + 1}", "name another")
        cells = {i: (str(row[self.by]), row["label"]) for i, row in rows}
        both, groups, labels = (
            Counter(cells.values()),
            Counter(group for group, _ in cells.values()),
            Counter(label for _, label in cells.values()),
        )
        self.weights = {
            i: groups[group] * labels[label] / (len(cells) * both[group, label]) for i, (group, label) in cells.items()
        }

    def __call__(self, step: Step) -> Tensor:
        out = step["retain"]
        weight_B = out.nll_B.new_tensor([self.weights[i] for i in out.indices])
        return out.mean((weight_B - 1) * out.nll_B)


class Reweigh(Strategy):
    """The mean by examples, of clients that train with `Balance`."""

    averages = True

    def __init__(self, by: str) -> None:
        super().__init__(mean_by_examples, averages=True)
        self.by = by

    def fits(self, clients: Clients, where: str) -> None:
        for name, rows in clients.items():
            if missing := sum(row.get(self.by) is None for row in rows):
                why = f"is missing in {missing} of the {len(rows)} rows of client {name}"
                raise BadInput.of(f"{where}.reweigh.by", self.by, why, "add it, or name another field")

    def terms(self) -> dict[str, Term]:
        return {"balance": Term.of("balance", Balance(self.by), MethodCard("Weights", needs={"retain": {"nll"}}))}


def reweigh(*, by: str = "sex") -> Strategy:
    """Average the clients' models, each trained on rows that count n_s n_y / (n n_sy) (Kamiran and Calders 2012).

    n: rows of the client; s: the row's group, its field `by`; y: its label.
    """
    return Reweigh(by)
