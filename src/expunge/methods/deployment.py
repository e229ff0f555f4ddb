"""A federation on several machines, by Flower's SuperLink and SuperNodes: the server's side, and a client's.

Server and clients have the same train.yaml, each a copy of its own: nobody sends code, and a server cannot choose what
a client runs. A client's rows are read where it runs, and never leave it.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.core.card import Example
from expunge.core.context import Context
from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.core.files import write_json
from expunge.core.train_config import TrainConfig
from expunge.data.clients import Placing, clients_of
from expunge.data.load import load
from expunge.methods._noisy_training import check_network, check_terms
from expunge.methods._rounds import Duties, Rounds, local_budget, state_of
from expunge.methods._strategy import Strategy, strategy_of
from expunge.methods.claims import private_key, sign
from expunge.methods.facts import keys_in
from expunge.methods.flower import client_app, exchange_through, nodes_of, open_through, read_through
from expunge.methods.sealed import Open, Sums, check_sums, scheme_of
from expunge.methods.single_shot import search_of
from expunge.methods.trainers.federation import WHERE
from expunge.methods.training import with_defaults
from expunge.models.build import fresh
from expunge.training import checkpoint
from expunge.training.updates import ClientUpdate, State, digest_of

RECORDS = {"last": "a record of each client's last model", "all": "a record of all rounds"}
"""`history` -> what it asks of the server."""


def check_apart(options: Mapping[str, Any]) -> None:
    """Check what a server that has no rows, and keeps no record, can do of a federation's options. Raises BadInput.

    options: without `history` where nobody asked for one.
    """
    strategy, apart = strategy_of(options["strategy"], f"{WHERE}.strategy"), "between machines"
    if search_of(options["local"], f"{WHERE}.local"):
        why = f"is a search, which is not done {apart}"
        raise BadInput.of(f"{WHERE}.local", str(options["local"]), why, "give one rate, as sgd: 0.05")
    if options.get("history", "none") in RECORDS:
        why = f"asks for {RECORDS[options['history']]}, and {apart} the server keeps none"
        raise BadInput.of(f"{WHERE}.history", options["history"], why, "set history: none")
    if strategy.looks:
        why = f"chooses clients by their rows, which the server does not see {apart}"
        raise BadInput.of(f"{WHERE}.strategy", str(options["strategy"]), why, "take fedavg")
    duties = Duties.of(options["local"], f"{WHERE}.local")
    check_sums(duties.encrypt, strategy, options["strategy"], options.get("history", "none"))
    if duties.dp:
        check_terms(strategy.terms(), options["strategy"])


@dataclass(frozen=True)
class Training:
    """A federation's train.yaml, as server and clients both read it."""

    config: TrainConfig
    options: Mapping[str, Any]

    @classmethod
    def read(cls, path: str | Path) -> Training:
        """From the file. Raises BadInput, also where a federation between machines could not do what it asks."""
        config = TrainConfig.read(path)
        chosen = with_defaults(config.trainer, "trainer") or {}
        if "federation" not in chosen:
            why = "is not what server and clients run between machines"
            raise BadInput.of("trainer", ", ".join(chosen), why, "set trainer: {federation: {...}}")
        given, options = config.trainer, dict(chosen["federation"])
        asked = given["federation"] if isinstance(given, Mapping) else None
        if "history" not in (asked or {}):
            del options["history"]  # a default that only one process can have
        check_apart(options)
        training = cls(config, options)
        if training.duties.dp:
            check_network(fresh(config.model, [], config.seed, config.trust_code))
        return training

    def rounds(self, model: Model, clients: Mapping[str, list[Example]], folder: Path) -> Rounds:
        """The rounds over these clients, as a training in one process has them."""
        budget = local_budget(self.config.budget, self.duties)
        context = Context(self.config.budget, folder, self.config.seed, "train")
        run = Rounds(model, dict(clients), self.strategy, context, budget, self.placing.fraction)
        run.dp = self.duties.dp
        return run

    @property
    def duties(self) -> Duties:
        """The clients' part within a round; where keys lie is said when they join."""
        return Duties.of(self.options["local"], f"{WHERE}.local")

    @property
    def placing(self) -> Placing:
        """How rows are dealt out to clients."""
        return Placing.of(self.options["clients"], f"{WHERE}.clients")

    def sums(self, key: str | Path, where: str, ask: Open | None = None) -> Sums | None:
        """The client's side of encrypted sums, or with `ask` the server's; None where sums are plain. Raises
        BadInput."""
        name = self.duties.encrypt
        if name is None:
            return None
        if not key:
            raise BadInput.of(where, "", f"is missing, and the sums are {name}", "name the file of the key")
        own = scheme_of(name, key)
        return Sums(name, own, own.decrypt, own) if ask is None else Sums(name, own, ask)

    def check_key(self, key: str | Path, where: str, what: str) -> None:
        """Check that there is a key where the clients are to sign. Raises BadInput."""
        if self.duties.sign and not key:
            raise BadInput.of(where, "", f"is missing, and {WHERE}.local.sign asks for claims", f"name the {what}")

    @property
    def strategy(self) -> Strategy:
        """A new one."""
        return strategy_of(self.options["strategy"], f"{WHERE}.strategy")


def join(
    path: str | Path,
    name: str,
    rows: str | Path | list[Example],
    folder: Path,
    read: Callable[[Model, Any], str],
    *,
    secret: str | Path = "",
    key: str | Path = "",
) -> Any:
    """The ClientApp of one client. path: train.yaml. rows: its own rows, or a file of them. folder: for scratch.

    read: what the client says of its own rows under a model, as JSON: readouts, or sums alone. secret: file of the
    clients' key for `encrypt` (methods/sealed.py). key: file of the client's own, by which it signs
    (methods/claims.py). Raises BadInput.
    """
    training = Training.read(path)
    sums = training.sums(secret, "secret")
    training.check_key(key, "key", "file of the client's own key")
    own_key = private_key(Path(key)) if key else None

    @functools.cache
    def own() -> Rounds:
        data = rows if isinstance(rows, list) else list(load(str(rows), "rows", training.config.columns))
        model = fresh(training.config.model, data, training.config.seed, training.config.trust_code)
        run = training.rounds(model, {name: data}, folder)
        run.sums = sums
        return run

    def train(number: int, client: str, weights: State, count: int) -> ClientUpdate:
        sent = own().send(number, name, weights, count)
        return sign(own_key, number, digest_of(weights), sent) if own_key else sent

    def tell(weights: State) -> str:
        checkpoint.restore(own().model.module, weights, "")
        own().model.module.eval()
        return read(own().model, own().clients[name])

    return client_app(train, name=name, read=tell, open_sum=sums.open if sums else None)


def join_simulated(path: str | Path, number: int, folder: Path, read: Callable[[Model, Any], str]) -> Any:
    """The ClientApp of one client in Flower's simulation, whose nodes have numbers and no rows of their own.

    path: train.yaml, whose data are all clients' rows. number: of the client among the names in order.
    """
    config = Training.read(path)
    clients = clients_of(list(load(config.config.data, "data", config.config.columns)), config.placing)
    name = list(clients)[number]
    return join(path, name, clients[name], folder, read)


def serve(
    path: str | Path,
    grid: Any,
    count: int,
    out: Path,
    *,
    timeout: float = 600.0,
    public: str | Path = "",
    parties: str | Path = "",
) -> State:
    """Train over the grid's nodes once `count` clients are there, and write the model to a folder.

    Beside it lie the account of the rounds (`federation.json`) and what each client says of its own rows under the last
    model (`read.json`). public: file of the server's key for `encrypt`. parties: folder of the clients' public keys, by
    which they must sign. Raises BadInput where clients are missing.
    """
    training = Training.read(path)
    training.check_key(parties, "parties", "folder of the clients' public keys")
    if count < 2:
        raise BadInput.of("clients", count, "is the number of clients", "wait for two clients or more")
    nodes = nodes_of(grid, count, timeout)
    model = fresh(training.config.model, [], training.config.seed, training.config.trust_code)
    run = training.rounds(model, {name: [] for name in nodes}, out / "work")
    run.exchange = exchange_through(grid, nodes, timeout)
    run.sums = training.sums(public, "public", open_through(grid, nodes, timeout))
    run.parties = keys_in(Path(parties)) if parties else {}
    weights = run.run(state_of(model), int(training.options["rounds"]))
    checkpoint.restore(model.module, weights, "")
    model.module.eval()
    (out / "model").mkdir(parents=True)
    model.save(out / "model")
    write_json(out / "federation.json", run.ledger.account())
    write_json(out / "read.json", read_through(grid, nodes, weights, timeout))
    return weights
