"""Cross-entropy on retain without the rows that their own group finds unlikely."""

from __future__ import annotations

from collections import defaultdict
from typing import Annotated, Any

from annotated_types import Ge
from torch import Tensor

from expunge.core.contracts import LossTerm, MethodCard, Run, Step, want_of

CARD = MethodCard(
    "Denoised retain data",
    paper="arXiv:2502.00348",
    equation="the personal loss distribution, cut instead of sampled from",
    needs={"retain": {"nll"}},
    fidelity="variant",
    leaves_out="a recommender's sampling by each user's losses: rows beyond a group's own bar are left out",
    means="Leaves out what the reference model finds unlikely among rows of its kind, as wrong labels are that were "
    "not learned by heart; hard right ones go too.",
    shown="A tenth of the wrong labels that fine-tuning learns by heart stays unlearned.",
    distributed=True,
)


class Denoised(LossTerm):
    """The loss of denoised(), and the rows that count, which `prepare` chooses."""

    def __init__(self, deviations: float, by: str) -> None:
        super().__init__()
        self.deviations, self.by = deviations, by
        self.left_out: set[int] = set()

    def prepare(self, run: Run) -> None:
        """Read each row's loss under the reference model, and find those beyond their group's bar."""
        rows, examples = run.rows("retain"), run.examples("retain")
        self.left_out = set()
        if not rows:
            return
        nll = run.record(examples, want_of({"nll"})).nll_B.double().numpy()
        groups: dict[str, list[int]] = defaultdict(list)
        for place, row in enumerate(examples):
            groups[str(row.get(self.by, ""))].append(place)
        for places in groups.values():
            bar = nll[places].mean() + self.deviations * nll[places].std()
            self.left_out |= {rows[place] for place in places if nll[place] > bar}

    def __call__(self, step: Step) -> Tensor:
        retain = step["retain"]
        weight_B = retain.nll_B.new_tensor([float(row not in self.left_out) for row in retain.indices])
        return (weight_B * retain.nll_B).sum() / max(1, retain.positions or int(retain.n_B.sum()))

    def notes(self) -> dict[str, Any]:
        """The number of rows left out."""
        return {"denoised": {"left_out": len(self.left_out)}}


def denoised(*, deviations: Annotated[float, Ge(0)] = 2.0, by: str = "group") -> LossTerm:
    """Go on training on retain, without rows whose loss lies far above that of their group.

    Mean NLL per position; rows count 0 whose NLL under the reference model (summed over the answer) exceeds the mean of
    those with the same `by` by more than so many standard deviations. Rows without the field are one group.
    """
    return Denoised(deviations, by)
