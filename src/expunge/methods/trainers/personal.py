"""A federation, and after it a model of each client's own that stays near the common one (Per-SSFL, Ditto)."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from annotated_types import Ge, Le
from safetensors.torch import save_file
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Model, Step, Term
from expunge.core.files import PRIVATE, new_file
from expunge.data.clients import FIELD, Placing, clients_of
from expunge.methods._rounds import Local, local_budget, state_of
from expunge.methods.objective import plain_training
from expunge.methods.retain.hidden import CARD as MATCH
from expunge.methods.retain.hidden import Match
from expunge.methods.trainers import federation
from expunge.methods.training import BESIDE
from expunge.training import checkpoint
from expunge.training.updates import State

WHERE = "trainer.personal"
FILE = "personal-{}.safetensors"
"""Beside the model: the weights of a client's own, by its place among the clients' names."""


def client_in(options: Mapping[str, Any]) -> Callable[[Example], Any]:
    """With whom a row lies in the federation of these options."""
    return federation.client_in(options)


def check(model: Model, data: Sequence[Example], **options: Any) -> None:
    """As of a federation. Raises BadInput."""
    Local.of(options["local"], f"{WHERE}.local")
    federation.check(model, data, clients=options["clients"], local=options["local"], strategy="fedavg")


class Near(Match):
    """pull/2 times the squared distance of the last block's states from the common model's, on the same views."""

    def __init__(self, pull: float) -> None:
        super().__init__(None, traces=False)
        self.pull = pull

    def declare(self, model: Model) -> None:
        self.path = model.blocks[-1]
        self.needs = {"retain": {f"hidden:{self.path}"}}
        self.reference = self.needs

    def __call__(self, step: Step) -> Tensor:
        return self.pull / 2 * super().__call__(step)


def train(
    fresh: Model,
    data: Sequence[Example],
    context: Context,
    *,
    clients: Any = FIELD,
    rounds: Annotated[int, Ge(1), Le(100_000)] = 12,
    local: Any = 1,
    pull: Annotated[float, Ge(0)] = 1.0,
    passes: Annotated[int, Ge(1), Le(10_000)] = 10,
) -> Model:
    """Train a federation, then a model for each client from the common one, on the client's own rows.

    The common model is the result; the clients' own lie beside it (`FILE`), as each client would keep its own. Their
    loss is the model's own (an encoder's pretext) and pull/2 times the squared distance of representations of the same
    views from the common model's. passes: of a client over its rows. The other options are those of `federation`.
    Source: arXiv:2110.02470, where the personal models train within the rounds, and the distance is a cosine's.
    Raises BadInput.
    """
    federation.train(fresh, data, context, clients=clients, rounds=rounds, local=local, history="none")
    common, outcome = state_of(fresh), context.notes["outcome"]
    budget = local_budget(context.budget, Local.of(local, f"{WHERE}.local").model_copy(update={"epochs": passes}))
    divided = clients_of(data, Placing.of(clients, f"{WHERE}.clients"))
    folder = context.folder / BESIDE
    folder.mkdir(parents=True, exist_ok=True)
    for i, (name, rows) in enumerate(divided.items()):
        own = context.child(f"personal-{i}", draws=f"personal/client-{name}", budget=budget)
        weights = own.once("weights", functools.partial(personal, fresh, common, rows, own, pull))
        with new_file(folder / FILE.format(i), PRIVATE) as written:
            save_file(weights, written, {"client": name})
    checkpoint.restore(fresh.module, common, "")
    fresh.module.eval()
    context.notes["outcome"] = outcome
    return fresh


def personal(model: Model, common: State, rows: Sequence[Example], context: Context, pull: float) -> State:
    """The weights of one client's own model, trained on its rows from the common one."""
    checkpoint.restore(model.module, common, "")
    objective = plain_training()
    if pull:
        objective.terms["near"] = Term.of("near", Near(pull), MATCH)
    objective(model, {"retain": rows}, context)
    return state_of(model)
