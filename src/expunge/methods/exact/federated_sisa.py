"""Exact federations: each shard is a federation of its own, of clients that join it slice after slice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import Ge, Le
from torch import Tensor

from expunge.core.budget import batch_size
from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.core.errors import BadInput
from expunge.core.random import derive
from expunge.data.clients import FIELD, Placing, client_of, clients_of
from expunge.methods._rounds import Local, Rounds, local_budget
from expunge.methods._strategy import strategy_of
from expunge.methods.exact._deletion import budget_in
from expunge.methods.exact._shards import ShardDeletion, Sharding, train_shards
from expunge.methods.exact._sliced import Slices, Stages, one_process
from expunge.methods.trainers.federation import cost_of

CARD = MethodCard(
    "Sharded and sliced training of federations",
    paper="arXiv:1912.03817",
    equation="sections IV to VI, with clients in the place of examples",
    needs={"forget": ()},
    capabilities={"shards", "exact:federated_sisa"},
    yields="ensemble",
    means="Exact: each shard's weights are those of a federation without the client, bit for bit. The others of the "
    "client's shard must help; the other shards need not. Requires `exact: {federated_sisa: ...}` in train.yaml, "
    "stores one checkpoint per slice and no client's update, and answers with all shards at once.",
    deterministic=True,
    fidelity="variant",
    leaves_out="Examples of one client at several shards: a client's rows stand in one place.",
    shown="After a client's departure every tensor of every shard is that of a training without it. In two shards of "
    "two slices on digits it takes under .45 of a retraining's steps on average; accuracy is within 3 points of one "
    "federation's.",
)
NAME = "federated_sisa"
WHERE = f"exact.{NAME}"


def client_in(options: Mapping[str, Any]) -> Callable[[Example], Any]:
    """With whom a row lies in the federations of these options."""
    placing = Placing.of(options["clients"], f"{WHERE}.clients")
    return lambda row: client_of(row, placing)


def check(fresh: Model, data: Sequence[Example], **options: Any) -> None:
    """Check the options, and that each slice of each shard has a client, and each shard two. Raises BadInput."""
    one_process(WHERE)
    placing, shards, slices = _placing(options), options["shards"], options["slices"]
    Local.of(options["local"], f"{WHERE}.local")
    clients = clients_of(data, placing)
    places = [place(name, shards, slices, placing.seed) for name in clients]
    for k in range(shards):
        for i in range(slices):
            if (k, i) not in places:
                why = f"leave no client for slice {i + 1} of shard {k + 1}: there are {len(clients)} clients"
                fix = "take fewer shards or slices; clients that are numbered from 0 are divided evenly"
                raise BadInput.of(WHERE, f"{shards} shards of {slices} slices", why, fix)
        if sum(shard == k for shard, _ in places) < 2:
            raise BadInput.of(f"{WHERE}.shards", shards, f"leaves shard {k + 1} with one client", "take fewer shards")


def train(
    fresh: Model,
    data: Sequence[Example],
    context: Context,
    *,
    shards: Annotated[int, Ge(1), Le(1000)] = 2,
    slices: Annotated[int, Ge(1), Le(1000)] = 2,
    clients: Any = FIELD,
    rounds: Annotated[int, Ge(1), Le(100_000)] = 12,
    local: Any = 1,
) -> Model:
    """Train an ensemble of `shards` federations, which the clients join in `slices` steps.

    Stage i of a shard is a federation of the clients of its slices 1..i, all of whom take part in each of its
    2/(slices + 1) of the rounds; what it ends with is stored, and the next stage starts there. Shard and slice of a
    client follow from its name alone: whole numbers go round the shards, then the slices. clients, local: as of
    `trainer: federation`, under FedAvg. Raises BadInput.
    """
    options = {"shards": shards, "slices": slices}
    options |= {"clients": clients, "rounds": rounds, "local": local}
    ensemble = train_shards(fresh, data, context, NAME, options, FederatedSharding())
    context.notes["outcome"]["federation"] = context.notes.pop("federation")
    return ensemble


def federated_sisa() -> Method:
    """Retrain only the shards whose clients lose rows, each from the checkpoint before the first of these took part.

    The model must come from `exact: {federated_sisa: {shards: 2, slices: 2}}` in train.yaml; seed, stage and budget are
    those of its training. A client leaves whole, or goes on with the rows that stay.
    """
    return ClientDeletion(FederatedSharding())


def place(client: str, shards: int, slices: int, seed: int) -> tuple[int, int]:
    """Return (shard, slice) of a client, both from 0: by its number, or by a hash of its name."""
    number = int(client) if client.isdecimal() else derive(seed, "client", client)
    return number % shards, number // shards % slices


def _placing(options: Mapping[str, Any]) -> Placing:
    """The deal of rows. Raises BadInput where a fraction of the clients takes part: the draw depends on all of them."""
    placing = Placing.of(options["clients"], f"{WHERE}.clients")
    if placing.fraction < 1:
        why = "lets the draw of a round depend on a client that left"
        raise BadInput.of(f"{WHERE}.clients.fraction", placing.fraction, why, "leave it out: all take part")
    return placing


@dataclass(frozen=True)
class FederatedSharding(Sharding):
    """Clients in the place of examples, and rounds in that of steps."""

    def parts(self, rows: Sequence[Example], state: Mapping[str, Any]) -> list[Slices]:
        options = state["options"]
        shards, slices, placing = int(options["shards"]), int(options["slices"]), _placing(options)
        pieces: list[Slices] = [[[] for _ in range(slices)] for _ in range(shards)]
        for name, own in clients_of(rows, placing).items():
            shard, number = place(name, shards, slices, placing.seed)
            pieces[shard][number] += own
        return pieces

    def stages(self, fresh: Model, state: Mapping[str, Any], context: Context) -> Stages:
        given = (int(state["seed"]), str(state["stage"]), budget_in(state), int(state["options"]["slices"]))
        stages = FederatedStages(fresh, *given, context)
        stages.options = state["options"]
        return stages

    def steps_of(self, piece: Slices, state: Mapping[str, Any]) -> list[int]:
        options, steps = state["options"], []
        rows: list[Example] = []
        local = Local.of(options["local"], f"{WHERE}.local")
        for part in piece:
            rows = [*rows, *part]
            sizes = [len(own) for own in clients_of(rows, _placing(options)).values()]
            passes = sum(-(-size // batch_size(budget_in(state), size)) for size in sizes)
            steps.append(rounds_of(options) * local.epochs * passes)
        return steps


def rounds_of(options: Mapping[str, Any]) -> int:
    """Rounds of each stage: 2/(R + 1) of them all, so that clients train as often as in one federation."""
    return max(1, round(2 * int(options["rounds"]) / (int(options["slices"]) + 1)))


class FederatedStages(Stages):
    """Stages that are rounds of a federation. options: of the scheme. Rounds and bytes go to the context's notes."""

    options: Mapping[str, Any]

    def train(
        self, inner: Context, rows: Sequence[Example], before: Mapping[str, Tensor], method: Method | None
    ) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
        clients = clients_of(rows, _placing(self.options))
        local = local_budget(self.budget, Local.of(self.options["local"], f"{WHERE}.local"))
        run = Rounds(self.model, clients, strategy_of("fedavg", WHERE), inner, local)
        weights = run.run(dict(before), rounds_of(self.options))
        ledger, spent = run.ledger, self.context.notes.setdefault("federation", {})
        for name in ("bytes_down", "bytes_up"):
            spent[name] = spent.get(name, 0) + getattr(ledger, name)
        spent["rounds"] = spent.get("rounds", 0) + len(ledger.rounds)
        return weights, {"steps": ledger.steps, "tokens": ledger.tokens, "seconds": ledger.seconds}


class ClientDeletion(ShardDeletion):
    """The method, which also notes rounds and bytes beside those of the training."""

    def __call__(self, model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        found = super().__call__(model, splits, context)
        spent = context.notes.get("federation", {"rounds": 0, "bytes_down": 0, "bytes_up": 0})
        context.notes["federation"] = cost_of(spent, context.manifest or {})
        return found
