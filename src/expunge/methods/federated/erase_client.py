"""Erase a client by its own ascent around the mean of the others, then rounds without it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from annotated_types import Ge, Gt, Le
from torch import Tensor

from expunge.core.budget import batch_size
from expunge.core.card import Example
from expunge.core.contracts import Method, MethodCard, Model
from expunge.core.random import permutation
from expunge.data.sampling import sample
from expunge.methods._rounds import state_of
from expunge.methods._strategy import strategy_of
from expunge.methods.claims import claims_of
from expunge.methods.federated._departure import Departure, Leaves
from expunge.models.build import again
from expunge.training import checkpoint
from expunge.training.stopping import figures
from expunge.training.updates import ClientUpdate, State, digest_of, distance, fault_of, size_of

CARD = MethodCard(
    "Projected ascent of the leaving client",
    paper="arXiv:2207.05521",
    equation="algorithm 1",
    needs={"forget": {"nll"}, "retain": {"nll"}},
    capabilities={"federation", "labels"},
    means="The leaving client must help, and needs rows to validate on, for which a sample of the retain data stands "
    "here. In the published radius nothing is ever projected: what limits the ascent is the early stop. The server "
    "refuses a model from outside the radius and goes on from the mean of the others.",
    fidelity="faithful",
    shown="On digits and on MNIST a trigger that one of eight clients planted falls from over .9 to under .15 in five "
    "rounds, with clean accuracy within 2 points of the retrained federation's; going on without the client leaves "
    "over .1 more of it on digits, and over .9 of it on MNIST.",
)
VALIDATION = 256
"""Rows on which the ascent watches what must stay."""
DRAWS = 10
"""Random starts whose mean distance from the reference sets the radius."""
SLACK = 1e-4
"""Relative error of a distance that the server still accepts: weights are rounded to float32."""


@dataclass(frozen=True)
class Ascent:
    """The leaving client's settings. patience: steps between two looks at the validation rows."""

    rate: float
    epochs: int
    clip: float
    stop_at: float
    momentum: float = 0.9


def erase_client(
    *,
    rounds: Annotated[int, Ge(0), Le(10_000)] = 5,
    rate: Annotated[float, Gt(0)] = 0.01,
    epochs: Annotated[int, Ge(1)] = 5,
    clip: Annotated[float, Gt(0)] = 5.0,
    radius: Annotated[float, Gt(0)] | None = None,
    stop_at: Annotated[float, Ge(0), Le(1)] = 0.5,
    strategy: Any = None,
) -> Method:
    """Let the leaving client raise its loss within a ball around the mean of the others, then go on without it.

    Ascent by SGD with momentum 0.9 on the rows to forget, from the mean of the other clients' last models; each step
    is clipped and projected on the ball. radius: of the ball; by default a third of the mean distance between the
    mean of the others and ten random starts. stop_at: the share of the validation accuracy under which the ascent
    stops. rounds: of those who stay, afterwards. strategy: of these rounds, by default the training's, and of the
    others' last models in the mean's place; a robust one (`krum`) withstands a client that sends the old model back.
    """
    if strategy is not None:
        strategy_of(strategy, "method.strategy")
    ascent = Ascent(rate, epochs, clip, stop_at)

    def erase(departure: Departure) -> State:
        start = departure.reference(strategy)
        limit = radius if radius is not None else _published_radius(departure, start)
        sent = departure.context.once("ascent", lambda: _ascend(departure, start, limit, ascent))
        note = departure.context.notes["ascent"]
        departure.spent.steps += int(note["steps"])
        departure.spent.tokens += int(note["rows"])
        departure.spent.bytes_up += size_of(start)
        weights, why = admit(start, sent, limit)
        _add_fact(departure, start, sent, weights)
        note["radius"] = limit
        if why:
            departure.context.notes.setdefault("remarks", []).append(
                f"The server refused the leaving client's model, which {why}, and went on from the mean of the others."
            )
        return departure.go_on(weights, rounds, strategy)

    return Leaves(erase, lambda *_: rounds, averages=True, helps=True)


def _add_fact(departure: Departure, start: State, sent: State, after: State) -> None:
    """Round 0 of a departure: the leaving clients' model, and the one that the server goes on from."""
    names, far = list(departure.leaving), None if fault_of(start, sent) else round(distance(start, sent), 6)
    moved = {} if far is None else dict.fromkeys(names, far)
    told: dict[str, Any] = {"updates": dict.fromkeys(names, digest_of(sent)), "moved": moved}
    if keys := departure.keys(departure.leaving):
        begin = digest_of(start)
        own = [ClientUpdate(name, sent, len(rows)) for name, rows in departure.leaving.items()]
        told |= {"received": begin, "claims": claims_of([keys.sign(0, begin, one) for one in own])}
    departure.spent.add_fact(round=0, **told, model=digest_of(after))


def admit(reference: State, sent: Mapping[str, Tensor], radius: float) -> tuple[State, str]:
    """(the model that the server goes on from, why it refused the leaving client's; "" where it did not)."""
    if why := fault_of(reference, sent):
        return reference, why
    if (far := distance(reference, sent)) > radius * (1 + SLACK):
        return reference, f"lies {far:.3g} from the mean of the others, outside the radius of {radius:.3g}"
    return dict(sent), ""


def _published_radius(departure: Departure, reference: State) -> float:
    """A third of the mean distance from the reference to random starts."""
    manifest, model = departure.context.manifest or {}, departure.model
    starts = [again({**manifest, "seed": departure.context.derive("start", i) % 2**31}, model) for i in range(DRAWS)]
    return sum(distance(reference, state_of(one)) for one in starts) / len(starts) / 3


def _ascend(departure: Departure, start: State, radius: float, settings: Ascent) -> State:
    """The leaving clients' model: their loss raised until the validation accuracy falls or the passes are done."""
    model, context = departure.model, departure.context
    rows = [row for own in departure.leaving.values() for row in own]
    validation = sample([row for own in departure.staying.values() for row in own], context.seed, VALIDATION)
    checkpoint.restore(model.module, start, "")
    least = settings.stop_at * figures(model, validation)["accuracy"]
    parameters = [p for p in model.module.parameters() if p.requires_grad]
    middle = [p.detach().clone() for p in parameters]
    climber = torch.optim.SGD(parameters, lr=settings.rate, momentum=settings.momentum, maximize=True)
    steps, read, stopped = 0, 0, False
    for batch in _batches(rows, departure, settings.epochs):
        _step(model, batch, climber, settings.clip)
        _project(parameters, middle, radius)
        steps, read = steps + 1, read + len(batch)
        if figures(model, validation)["accuracy"] < least:
            stopped = True
            break
    found = state_of(model)
    note: dict[str, Any] = {"steps": steps, "rows": read, "stopped": float(stopped), "moved": distance(start, found)}
    context.notes["ascent"] = note
    return found


def _batches(rows: Sequence[Example], departure: Departure, epochs: int) -> Iterator[list[Example]]:
    size = batch_size(departure.local, len(rows))
    for epoch in range(epochs):
        order = permutation(len(rows), departure.context.derive("ascent", epoch))
        yield from ([rows[i] for i in order[first : first + size]] for first in range(0, len(order), size))


def _step(model: Model, batch: Sequence[Example], climber: torch.optim.Optimizer, clip: float) -> None:
    model.module.train(not model.coupled)
    loss = model.forward(model.collate(batch)).nll
    climber.zero_grad(set_to_none=True)
    loss.backward()
    parameters = [p for group in climber.param_groups for p in group["params"]]
    torch.nn.utils.clip_grad_norm_(parameters, clip)
    climber.step()
    climber.zero_grad(set_to_none=True)
    model.module.eval()


@torch.no_grad()
def _project(parameters: Sequence[Tensor], middle: Sequence[Tensor], radius: float) -> None:
    """Bring the parameters back into the ball around `middle`."""
    moved = [p - m for p, m in zip(parameters, middle, strict=True)]
    length = float(torch.stack([part.double().square().sum() for part in moved]).sum().sqrt())
    if length > radius:
        for p, m, part in zip(parameters, middle, moved, strict=True):
            p.copy_(m + part * (radius / length))
