"""A departure: who leaves a federation, who stays, and the rounds without the rows that leave."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from expunge.core.budget import Budget
from expunge.core.card import Example
from expunge.core.context import Context
from expunge.core.contracts import Method, Model
from expunge.core.errors import BadInput, did_you_mean
from expunge.data.clients import Clients, Placing, clients_of
from expunge.methods._history import Kept, read_history
from expunge.methods._noisy_training import guarantee_of, require_opacus
from expunge.methods._rounds import Duties, Ledger, Rounds, local_budget, state_of
from expunge.methods._strategy import Strategy, strategy_of
from expunge.methods.claims import Keys
from expunge.methods.sealed import check_sums
from expunge.methods.trainers.federation import WHERE, cost_of, federation_of, local_of, outcome_of
from expunge.models.build import budget_of
from expunge.models.history import history_of
from expunge.training import checkpoint
from expunge.training.updates import State, without_clients


@dataclass
class Departure:
    """The parties and the settings of a federation that some rows leave.

    leaving: rows to forget, by their clients. staying: the rows that the method may train on, by theirs: a client that
    asks for a part of its rows stands in both. local: the budget of a client's training within a round. duties: what
    clients do within one.
    """

    model: Model
    context: Context
    leaving: Clients
    staying: Clients
    options: Mapping[str, Any]
    local: Budget
    spent: Ledger = field(default_factory=Ledger)
    duties: Duties = field(default_factory=Duties)

    @property
    def strategy(self) -> Strategy:
        """A new one, as the federation was trained with."""
        return strategy_of(self.options["strategy"], f"{WHERE}.strategy")

    @property
    def kept(self) -> list[Kept]:
        """The rounds that the server kept."""
        return read_history(history_of(self.model), state_of(self.model))

    def reference(self, strategy: Any = None) -> State:
        """The mean of the other clients' models in the last round: the global model without the leaving clients' last
        updates, for as many of them as took part in it; the global model where the server saw nobody's. strategy: in
        the mean's place, over what the server kept."""
        if not (kept := self.kept):
            self.context.notes.setdefault("remarks", []).append(HIDDEN)
            return state_of(self.model)
        last = kept[-1]
        others = [one for one in last.updates if one.client not in self.leaving]
        if strategy is not None and others:
            return strategy_of(strategy, "method.strategy")(last.before, others)
        gone = [one for one in last.updates if one.client in self.leaving]
        total = sum(one.examples for one in last.updates)
        if not gone or total == sum(one.examples for one in gone):
            return state_of(self.model)
        return without_clients(state_of(self.model), total, gone)

    def go_on(self, weights: State, count: int, strategy: Any = None) -> State:
        """The global model after so many rounds of those who stay; strategy: of these rounds, else the training's."""
        run = self.rounds(self.context.child("rounds"))
        run.strategy = run.strategy if strategy is None else strategy_of(strategy, "method.strategy")
        return run.run(weights, count) if count else weights

    def rounds(self, context: Context, local: Budget | None = None) -> Rounds:
        """Rounds of those who stay, which add to what was spent."""
        share = _placing(self.options).fraction
        given = (self.model, self.staying, self.strategy, context, local or self.local, share)
        run = Rounds(*given, ledger=self.spent)
        run.take(self.duties)
        return run

    def keys(self, clients: Clients) -> Keys | None:
        """The keys by which these sign, as in the training."""
        return Keys.of(self.duties.sign, list(clients))


HIDDEN = (
    "The server saw sums of the clients' updates alone, so that the leaving client's last one could not be taken off: "
    "the departure began with the global model."
)

BARE = (
    "The leaving clients raise their loss without noise, and send the result: what the noise of their training had "
    "bounded no longer holds of their rows."
)


def _placing(options: Mapping[str, Any]) -> Placing:
    return Placing.of(options["clients"], f"{WHERE}.clients")


Erase = Callable[[Departure], State]
"""Works out the weights after the departure; notes go to its context."""
Count = Callable[[int, int], float]
"""(rounds of the training, passes of a client within one) -> what the departure asks of those who stay, in rounds."""


class Leaves(Method):
    """A method of those who stay and, where it says so, of those who leave. local: of the first, in passes a round.

    count: the rounds of those who stay, by which the plan counts. averages: whether it takes the global model for the
    mean of the clients' models. whole: whether it replays all rounds, which the server must have kept. last: whether
    it is nothing without each client's last update. helps: the leaving clients send something.
    """

    def __init__(
        self,
        erase: Erase,
        count: Count,
        *,
        averages: bool = False,
        whole: bool = False,
        last: bool = False,
        helps: bool = False,
    ) -> None:
        super().__init__()
        self.erase, self.count, self.averages = erase, count, averages
        self.whole, self.last, self.helps = whole, last, helps

    def fits(
        self, model: Any, splits: Mapping[str, Sequence[Example]], manifest: Mapping[str, Any] | None
    ) -> list[str]:
        options = federation_of(manifest)
        account = (manifest or {}).get("federation") or {}
        leaving, staying, duties = self.parties(splits, manifest)
        name = options["strategy"]
        strategy = strategy_of(name, f"{WHERE}.strategy")
        check_sums(duties.encrypt, strategy, name, options["history"])
        Keys.of(duties.sign, [*staying, *(leaving if self.helps else ())])
        if duties.dp:
            require_opacus()
        if self.averages and not strategy.averages:
            raise BadInput.of(
                "method", str(name), "is a strategy under which the global model is no mean", "train with fedavg"
            )
        if self.whole and options["history"] != "all":
            raise BadInput.of(
                "method", str(options["history"]), "is what the server kept, not all rounds", "train with history: all"
            )
        if self.last and duties.encrypt:
            why = "sums show nobody's last update, which this takes off"
            raise BadInput.of("method", duties.encrypt, why, "leave drop_last out")
        share = self.count(int(options["rounds"]), duties.epochs) / int(options["rounds"])
        self.steps, self.tokens = _share_of_training(share, len(splits["retain"]), manifest or {})
        return [*_absences(leaving, staying, account), *([BARE] if self.helps and duties.dp else [])]

    @staticmethod
    def parties(
        splits: Mapping[str, Sequence[Example]], manifest: Mapping[str, Any] | None
    ) -> tuple[Clients, Clients, Duties]:
        """(rows to forget by client, rows that stay by client, the clients' part within a round). Raises BadInput."""
        options = federation_of(manifest)
        clients_of([*splits["forget"], *splits["retain"]], _placing(options))
        leaving, staying = (clients_of(splits[name], _placing(options)) for name in ("forget", "retain"))
        account = (manifest or {}).get("federation") or {}
        return leaving, staying, local_of({"federation": account}, options)

    def __call__(self, model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        began = time.monotonic()
        assert context.manifest is not None
        options = federation_of(context.manifest)
        if context.budget.steps == 0:
            context.notes["outcome"] = outcome_of(_nothing(model, context), None, 0.0)
            return model
        duties = local_of(context.manifest, options)
        departure = Departure(
            model,
            context,
            clients_of(splits["forget"], _placing(options)),
            clients_of(splits["retain"], _placing(options)),
            options,
            local_budget(budget_of(context.manifest), duties),
            Ledger(head=_last_link(context.manifest)),
            duties,
        )
        weights = self.erase(departure)
        checkpoint.restore(model.module, weights, "")
        model.module.eval()
        rounds = Rounds(model, departure.staying, departure.strategy, context, departure.local, ledger=departure.spent)
        outcome = outcome_of(rounds, departure.local.learning_rate, time.monotonic() - began)
        account = outcome.pop("federation")
        context.notes["federation"] = cost_of(account, context.manifest)
        context.notes["facts"] = _sheet(account, context.manifest, departure)
        context.notes["outcome"] = outcome
        return model


def _absences(leaving: Clients, staying: Clients, account: Mapping[str, Any]) -> list[str]:
    """Notes on clients that leave whole, and of whom not all rows are to be forgotten.

    account: of the training; without its clients nothing is known. Raises BadInput for a client that was never there.
    """
    trained = account.get("examples")
    if not trained:
        return []
    notes = []
    for name, rows in leaving.items():
        if name not in trained:
            fix = did_you_mean(name, trained)
            raise BadInput.of("forget", f"client {name}", "had no part in the training of the model", fix)
        if name not in staying and len(rows) < trained[name]:
            notes.append(
                f"Client {name} had {trained[name]} rows in the training, and {len(rows)} are to be forgotten: it "
                "leaves whole, and gold keeps the others."
            )
    return notes


def _share_of_training(share: float, staying: int, manifest: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """(steps, tokens) of a share of the training's rounds, of so many of its rows; None where it does not say."""
    rows = len(manifest.get("hashes") or [])
    if not rows or not manifest.get("tokens") or not manifest.get("steps"):
        return None, None
    share *= staying / rows
    return max(1, round(share * manifest["steps"])), max(1, round(share * manifest["tokens"]))


def _nothing(model: Model, context: Context) -> Rounds:
    return Rounds(model, {}, Strategy(), context, Budget())


def _last_link(manifest: Mapping[str, Any]) -> str:
    """The last link of the training's facts; "" where it has none."""
    facts = (manifest.get("federation") or {}).get("facts") or [{}]
    return str(facts[-1].get("chain", ""))


def _sheet(account: Mapping[str, Any], manifest: Mapping[str, Any], departure: Departure) -> dict[str, Any]:
    """The account of the departure's rounds. What noise guarantees is of the training's rounds and these together."""
    training = manifest.get("federation") or {}
    guarantee = departure.strategy.guarantee(int(training.get("rounds") or 0) + int(account["rounds"]))
    found = {**account, **({"privacy": guarantee} if guarantee else {})}
    if departure.duties.encrypt:
        found["sums"] = departure.duties.encrypt
    if departure.duties.dp:
        now = ({name: len(rows) for name, rows in departure.staying.items()}, account)
        stages = [(training.get("examples") or {}, training), now]
        found["privacy_of_rows"] = guarantee_of(departure.duties.dp, departure.local, stages)
    return found
