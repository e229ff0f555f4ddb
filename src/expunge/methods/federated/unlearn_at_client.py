"""Let the client whose rows go unlearn them in its own steps, while the others train as always."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from annotated_types import Ge, Le

from expunge.core.card import Example
from expunge.core.contracts import Method, MethodCard
from expunge.core.errors import BadInput
from expunge.methods._rounds import state_of
from expunge.methods.federated._departure import Departure, Leaves
from expunge.training.updates import State

CARD = MethodCard(
    "A local objective at the client",
    paper="baseline",
    equation="the objective's own, at the client",
    needs={"forget": (), "retain": ()},
    capabilities={"federation"},
    wraps={"objective", "recipe"},
    means="For a client that asks for some of its rows and goes on with the others: the server and the other clients "
    "see none of them, and need not know which they are. The client's weight in the mean is that of all its rows.",
    fidelity="faithful",
    shown="On digits a trigger that a client planted with its own rows falls from over .9 to under .05 after three "
    "rounds of NPO at the client and two without these rows, with clean accuracy within 3 points of a retraining's; "
    "five rounds without them leave over .2.",
)
RECIPE = {"inner": "npo"}


def unlearn_at_client(
    *,
    inner: Method,
    rounds: Annotated[int, Ge(1), Le(10_000)] = 3,
    after: Annotated[int, Ge(0), Le(10_000)] = 2,
) -> Method:
    """Run the inner objective on the client's own rows within each round, then go on without those that were to go.

    inner: its forget term takes the rows to forget, its retain term the client's others; passes, batches and rate are
    those of the client's training. The reference model is the one that the round begins with. rounds: so many with the
    objective. after: ordinary ones without these rows.
    """

    def erase(departure: Departure) -> State:
        run = departure.rounds(departure.context.child("rounds"))
        run.unlearning = {name: (inner, rows) for name, rows in departure.leaving.items()}
        weights = run.run(state_of(departure.model), rounds)
        run.unlearning = {}
        return run.run(weights, after, rounds + 1) if after else weights

    return AtClient(erase, lambda *_: rounds + after, inner)


class AtClient(Leaves):
    """The method; the plan refuses it where no row of the client stays to be kept."""

    def __init__(self, erase: Any, count: Any, inner: Method) -> None:
        super().__init__(erase, count)
        self.inner = inner

    def fits(
        self, model: Any, splits: Mapping[str, Sequence[Example]], manifest: Mapping[str, Any] | None
    ) -> list[str]:
        leaving, staying, duties = self.parties(splits, manifest)
        if whole := [name for name in leaving if name not in staying]:
            why = "leaves whole, and has no rows that its objective could keep"
            raise BadInput.of("method", f"client {whole[0]}", why, "take erase_client")
        if duties.dp:
            why = "is noise on each step, which the objective's steps have none of"
            raise BadInput.of("method", "dp", why, "take retrain")
        return [*super().fits(model, splits, manifest), *self.inner.fits(model, splits, manifest)]
