"""Subtract what the leaving client sent, and let those who stay teach the rest the old model's answers."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Annotated

from annotated_types import Ge, Gt, Le
from torch import Tensor

from expunge.core.contracts import LossTerm, Method, MethodCard, Reference, Run, Step, Term, want_of
from expunge.methods._distribution import tempered_kl_BT
from expunge.methods._history import Kept
from expunge.methods._rounds import state_of
from expunge.methods.federated._departure import Departure, Leaves
from expunge.training import checkpoint
from expunge.training.references import Record
from expunge.training.updates import State, floating, size_of

CARD = MethodCard(
    "Subtraction of a client's updates, and distillation at the others",
    paper="arXiv:2201.09441",
    equation="equations 5 and 6",
    needs={"forget": (), "retain": {"nll"}},
    capabilities={"federation", "labels"},
    means="The leaving client need not help. Its share of every round's change is subtracted, which ruins the model, "
    "and those who stay teach it the old model's answers on their own rows. These ask the old model for nothing of a "
    "trigger; what else it knows of the client may pass. The server must have kept all rounds (`history: all`).",
    fidelity="variant",
    shown="On digits and on MNIST a planted trigger falls from over .9 to under .05 in five rounds that read no "
    "label, with clean accuracy within 2 points of the retrained federation's. Rounds by labels from the subtracted "
    "weights do as well.",
    leaves_out="Unlabelled rows at the server, in whose place each client distils on its own, in rounds.",
)
KEPT = want_of({"topk:64"})


class Taught(LossTerm):
    """temperature^2 KL(teacher || model) on a client's rows. teacher: all weights of the model whose answers count."""

    def __init__(self, teacher: State, temperature: float) -> None:
        super().__init__()
        self.teacher, self.temperature = teacher, temperature
        self.record = Record({}, Reference())

    def prepare(self, run: Run) -> None:
        """Read the teacher's answers: for a moment its weights stand in the model."""
        now, rows = state_of(run.model), run.splits["retain"]
        checkpoint.restore(run.model.module, self.teacher, "")
        self.record = Record({i: i for i in range(len(rows))}, run.record(rows, KEPT))
        checkpoint.restore(run.model.module, now, "")

    def __call__(self, step: Step) -> Tensor:
        retain = step["retain"]
        answers = self.record.at(retain.indices, retain.logits_BTV.shape[1], retain.logits_BTV.device)
        return retain.mean(tempered_kl_BT(retain.logits_BTV, answers, self.temperature))


def distil_others(
    *,
    rounds: Annotated[int, Ge(0), Le(10_000)] = 5,
    share: Annotated[float, Ge(0), Le(1)] = 1.0,
    temperature: Annotated[float, Gt(0), Le(100)] = 3.0,
) -> Method:
    """Subtract all that the leaving client sent, and go on without it, taught by the old model's answers.

    The global model loses the client's share of the change in each round; the others' later updates, which built on
    it, stay. A client's loss is then (1 - share) NLL of its labels + share T^2 KL(old model || model) on its own rows,
    both over T = temperature: with a share of 1 no label is read. Each client gets the old model once.
    """

    def erase(departure: Departure) -> State:
        teacher = state_of(departure.model)
        weights = without_all(teacher, departure.kept, departure.leaving)
        if not rounds:
            return weights
        run = departure.rounds(departure.context.child("rounds"))
        card = MethodCard("The old model's answers", needs={"retain": {"logits", "nll"}})
        run.terms = {"taught": Term.of("taught", Taught(teacher, temperature), card, share)} if share else {}
        run.labels = 1 - share
        departure.spent.bytes_down += size_of(teacher) * len(departure.staying) if share else 0
        return run.run(weights, rounds)

    return Leaves(erase, lambda *_: rounds, averages=True, whole=True)


def without_all(now: State, kept: Sequence[Kept], leaving: Container[str]) -> State:
    """The global model less the leaving clients' share of the change in every round: n_i / n (w_i - w), summed."""
    found = dict(now)
    for name in floating(now):
        total = now[name].double()
        for one in kept:
            count = sum(update.examples for update in one.updates)
            for update in one.updates:
                if update.client in leaving:
                    moved = update.weights[name].double() - one.before[name].double()
                    total = total - update.examples / count * moved
        found[name] = total.to(now[name].dtype)
    return found
