"""Rounds of a federation: the clients train from the global model, and a strategy combines their models.

Everything follows from (seed, stage, round, name of the client): who takes part, the batches, the order of summation.
The same round without one client is the same round for all others.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from expunge.core.budget import Budget
from expunge.core.card import Example
from expunge.core.context import Context
from expunge.core.contracts import Method, Model, Silent, Term
from expunge.core.files import delete
from expunge.core.random import derive
from expunge.core.request import parse
from expunge.data.clients import Clients
from expunge.methods._noisy_training import SILENT, Noise, train_noisily
from expunge.methods._strategy import Strategy
from expunge.methods.claims import Keys, claims_of, faults_of_claims
from expunge.methods.objective import plain_training
from expunge.methods.sealed import Sums, Unsendable, seal
from expunge.models.weights import snapshot
from expunge.training import checkpoint
from expunge.training.stopping import figures
from expunge.training.updates import ClientUpdate, State, chain, digest_of, distance, require_some, screen, size_of

Exchange = Callable[[int, Sequence[str], State], list[ClientUpdate]]
"""(round, names of the clients, global model) -> what came back: one update each, or none of a client that is gone."""
TOLD = ("updates", "moved", "received", "claims", "model")
"""Of a round's outcome what its fact holds."""


def state_of(model: Model) -> State:
    """A copy of all weights and buffers, on the CPU."""
    return {name: value.detach().cpu().clone().contiguous() for name, value in snapshot(model.module).items()}


@dataclass
class Ledger:
    """The cost of the rounds so far: rounds, who took part, whose updates were left out, bytes, steps."""

    rounds: list[list[str]] = field(default_factory=list)
    refused: list[dict[str, str]] = field(default_factory=list)
    facts: list[dict[str, Any]] = field(default_factory=list)
    """Of each round digests of the updates and of the model, and a link to the round before (methods/facts.py)."""
    head: str = ""
    """The link that the first fact follows: of the training before a departure; "" at the start of a training."""
    bytes_down: int = 0
    bytes_up: int = 0
    steps: int = 0
    tokens: int = 0
    seconds: float = 0.0

    def add_fact(self, **fact: Any) -> None:
        """Add the fact of a round, linked to the one before."""
        previous = self.facts[-1]["chain"] if self.facts else self.head
        self.facts.append({**fact, "chain": chain(previous, fact)})

    def account(self) -> dict[str, Any]:
        """For the manifest and the evidence."""
        left_out = {str(i + 1): each for i, each in enumerate(self.refused) if each}
        return {
            "rounds": len(self.rounds),
            "participants": self.rounds,
            **({"left_out": left_out} if left_out else {}),
            "bytes_down": self.bytes_down,
            "bytes_up": self.bytes_up,
            "facts": self.facts,
        }


@dataclass
class Rounds:
    """Rounds over these clients from these weights on.

    budget: of a client's training within a round. share: of the clients that take part in a round. exchange: how a
    round's clients are reached; by default they train here, one after another. sums: the server adds ciphertexts, and
    sees no client's own model. keys: clients sign what they send. dp: they train with noise.
    """

    model: Model
    clients: Clients
    strategy: Strategy
    context: Context
    budget: Budget
    share: float = 1.0
    exchange: Exchange | None = None
    sums: Sums | None = None
    keys: Keys | None = None
    parties: Mapping[str, str] = field(default_factory=dict)
    """Client -> its public key, where the server knows it."""
    dp: Noise | None = None
    terms: Mapping[str, Term] = field(default_factory=dict)
    """Loss terms of the clients' training beside their labels' and the strategy's."""
    labels: float = 1.0
    """Weight of the labels' loss."""
    unlearning: Mapping[str, tuple[Method, Sequence[Example]]] = field(default_factory=dict)
    """Client -> (an objective in its training's place, rows that it unlearns by it)."""
    ledger: Ledger = field(default_factory=Ledger)

    def take(self, duties: Duties) -> None:
        """Let the clients do these beside their training, both sides' keys in this process. Raises BadInput."""
        self.sums, self.keys = Sums.of(duties.encrypt), Keys.of(duties.sign, list(self.clients))
        self.dp = duties.dp

    def run(self, weights: State, count: int, first: int = 1) -> State:
        """The global model after `count` rounds, the first of them with this number."""
        stage = self.context.label
        self.context.reporter.start(stage, count)
        for number in range(first, first + count):
            weights, _ = self.round(number, weights)
            self.context.reporter.advance(stage, number - first + 1, f"round {number}")
        self.context.reporter.finish(stage)
        return weights

    def round(self, number: int, weights: State, *, keep: bool = False) -> tuple[State, list[ClientUpdate]]:
        """(the next global model, with `keep` the updates that it was made of): stored, and not computed again."""
        stored = self.context.once(f"round-{number:04d}", lambda: self._round(number, weights, keep))
        delete(self._folder(number))
        outcome = self.context.notes.pop(f"round-{number:04d}")
        self._account(number, outcome)
        self.strategy.load_state(_part(stored, "strategy."))
        updates = [
            ClientUpdate(name, _part(stored, f"update.{i}."), outcome["examples"][i])
            for i, name in enumerate(outcome["usable"])
            if keep
        ]
        return _part(stored, "weights."), updates

    def _round(self, number: int, weights: State, keep: bool) -> dict[str, Tensor]:
        began = time.monotonic()
        delete(self._folder(number))  # of a killed round: it begins anew
        names = self._participants(number)
        updates = (self.exchange or self.train_here)(number, names, weights)
        usable, refused = self._screen(number, weights, updates)
        refused |= {name: SILENT for name in names if name not in {one.client for one in updates}}
        require_some(usable, number, refused, self.strategy.least(len(names)))
        after, opened = self._combine(weights, usable)
        self.strategy.judge(number, self._sizes, lambda some: self._accuracy(after, some))
        cost = self.context.notes.pop("local", {})
        self.context.notes[f"round-{number:04d}"] = {
            "asked": names,
            "usable": [one.client for one in usable],
            "examples": [one.examples for one in usable],
            "refused": refused,
            **self._facts(weights, usable),
            "model": digest_of(after),
            "bytes_down": len(names) * size_of(weights) + opened,
            "bytes_up": sum(one.size for one in updates) + (size_of(weights) if self.sums else 0),
            "steps": cost.get("steps", 0),
            "tokens": cost.get("tokens", 0),
            "seconds": time.monotonic() - began,
        }
        tensors = {f"weights.{name}": value for name, value in after.items()}
        tensors |= {f"strategy.{name}": value for name, value in self.strategy.state().items()}
        for i, one in enumerate(usable if keep else []):
            tensors |= {f"update.{i}.{name}": value for name, value in one.weights.items()}
        return tensors

    def _screen(
        self, number: int, weights: State, updates: Sequence[ClientUpdate]
    ) -> tuple[list[ClientUpdate], dict[str, str]]:
        """(the updates that may be used, client -> why its own is left out)."""
        usable, refused = (self.sums.screen if self.sums else screen)(weights, updates)
        if self.keys or self.parties or any(one.signature for one in updates):
            refused |= faults_of_claims(number, digest_of(weights), usable, self.parties)
        return [one for one in usable if one.client not in refused], refused

    def _combine(self, weights: State, usable: Sequence[ClientUpdate]) -> tuple[State, int]:
        """(the next global model, bytes of an encrypted sum that goes to a client)."""
        if self.sums is None:
            return self.strategy(weights, usable), 0
        shares = [self.strategy.share(one) for one in usable]
        mean, size = self.sums.mean(weights, usable, shares)
        return self.strategy(weights, [mean]), size

    def _facts(self, weights: State, usable: Sequence[ClientUpdate]) -> dict[str, Any]:
        """The clients' part of a round's fact: of ciphertexts digests alone."""
        known = [] if self.sums else usable
        found: dict[str, Any] = {
            "updates": {one.client: digest_of(one.weights) for one in usable},
            "moved": {one.client: round(distance(weights, one.weights), 6) for one in known},
        }
        if any(one.signature for one in usable):
            found |= {"received": digest_of(weights), "claims": claims_of(usable)}
        return found

    @property
    def _sizes(self) -> dict[str, int]:
        return {name: len(rows) for name, rows in self.clients.items()}

    def _participants(self, number: int) -> list[str]:
        """The clients of a round, in the order of all: the strategy's choice, or drawn at random."""
        names = list(self.clients)
        count = count_of(names, self.share)
        chosen = self.strategy.choose(self._sizes, count, lambda name: _draw(self.context, number, name))
        if chosen is None:
            return participants(names, self.share, self.context, number)
        return [name for name in names if name in chosen]

    def _accuracy(self, weights: State, names: Sequence[str]) -> float:
        """The accuracy of a model on the rows of these clients, each of which counts its own."""
        checkpoint.restore(self.model.module, weights, "")
        self.model.module.eval()
        found = [(len(self.clients[name]), figures(self.model, self.clients[name])["accuracy"]) for name in names]
        return sum(size * accuracy for size, accuracy in found) / sum(size for size, _ in found)

    def _account(self, number: int, outcome: Mapping[str, Any]) -> None:
        ledger = self.ledger
        ledger.rounds.append(list(outcome["usable"]))
        ledger.refused.append(dict(outcome["refused"]))
        ledger.add_fact(round=number, **{name: outcome[name] for name in TOLD if name in outcome})
        ledger.bytes_down += int(outcome["bytes_down"])
        ledger.bytes_up += int(outcome["bytes_up"])
        ledger.steps += int(outcome["steps"])
        ledger.tokens += int(outcome["tokens"])
        ledger.seconds += float(outcome["seconds"])

    def train_here(self, number: int, names: Sequence[str], weights: State) -> list[ClientUpdate]:
        """The clients' training in this process, one after another; whose change cannot be encrypted is silent."""
        sent = []
        for name in names:
            with contextlib.suppress(Unsendable):
                sent.append(self.send(number, name, weights, len(names)))
        return sent

    def send(self, number: int, name: str, weights: State, count: int) -> ClientUpdate:
        """Train a client; encrypt and sign what it sends, where it should. count: of the clients that were asked."""
        update = self.strategy.protect(weights, self.train_client(number, name, weights), count)
        if self.sums and self.sums.client:
            update = seal(self.sums.client, weights, update, self.strategy.share(update), count)
        return self.keys.sign(number, digest_of(weights), update) if self.keys else update

    def train_client(self, number: int, name: str, weights: State) -> ClientUpdate:
        """One client's training from the global model: its own rows, its own draws."""
        rows = self.clients[name]
        place = f"client-{list(self.clients).index(name)}"
        label = f"{self.context.label}/round-{number:04d}"
        own = dataclasses.replace(self.context, folder=self._folder(number), label=label, notes={}, reporter=Silent())
        inner = own.child(place, draws=f"round-{number}/client-{name}", budget=self.budget, notes={})

        checkpoint.restore(self.model.module, weights, "")
        unlearn, gone = self.unlearning.get(name, (None, ()))
        if unlearn is not None:
            unlearn(self.model, {"forget": gone, "retain": rows}, inner)
            outcome = inner.notes["outcome"]
        elif self.dp:
            outcome = train_noisily(self.model, rows, inner, self.dp)
        else:
            objective = plain_training()
            objective.terms.update(self.strategy.terms() | dict(self.terms))
            objective.terms["train"].weight = self.labels
            objective(self.model, {"retain": rows}, inner)
            outcome = inner.notes["outcome"]
        spent = self.context.notes.setdefault("local", {"steps": 0, "tokens": 0})
        spent["steps"] += outcome["steps"]
        spent["tokens"] += outcome["tokens"]
        return ClientUpdate(name, state_of(self.model), len(rows) + len(gone))

    def _folder(self, number: int) -> Path:
        return self.context.folder / f"round-{number:04d}"


def _part(tensors: Mapping[str, Tensor], prefix: str) -> State:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def participants(names: Sequence[str], share: float, context: Context, number: int) -> list[str]:
    """The clients of a round, in the order of `names`: each round's own draw, in which each has its own number."""
    drawn = sorted(names, key=lambda name: _draw(context, number, name))[: count_of(names, share)]
    return [name for name in names if name in drawn]


def count_of(names: Sequence[str], share: float) -> int:
    """How many clients take part in a round."""
    return max(1, math.ceil(share * len(names) - 1e-9))


def _draw(context: Context, number: int, name: str) -> int:
    return derive(context.seed, context.stage, "round", number, name)


class Local(BaseModel):
    """How a client trains within a round: passes over its rows, and the rate of SGD with momentum in AdamW's place."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    epochs: Annotated[int, Field(ge=1, le=1000)] = 1
    sgd: Annotated[float, Field(gt=0, le=10)] | None = None

    @classmethod
    def of(cls, value: Any, where: str) -> Self:
        """From a number of passes, or a mapping of the fields. Raises BadInput."""
        return parse(cls, value if isinstance(value, Mapping) else {"epochs": value}, where)


class Duties(Local):
    """A client's part within a round: how it trains, with what noise on each step, by which scheme it encrypts its
    change (`methods/sealed.py`), and in which folder the key lies by which it signs (`methods/claims.py`)."""

    dp: Noise | None = None
    encrypt: Literal["ckks", "paillier"] | None = None
    sign: str | None = None


def local_budget(budget: Budget, local: Local) -> Budget:
    """The budget of a client's training within a round: at a steady rate, and by SGD without decay of the weights."""
    kept = {key: value for key, value in budget.model_dump(exclude_unset=True).items() if key not in ("steps",)}
    plain = {} if local.sgd is None else {"optimizer": "sgd", "learning_rate": local.sgd, "weight_decay": 0.0}
    return Budget(**{**kept, **plain, "epochs": local.epochs, "schedule": "constant", "warmup": 0.0, "stop": "none"})
