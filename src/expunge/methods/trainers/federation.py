"""Rounds of local training at the clients of a federation, whose models a strategy combines."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from annotated_types import Ge, Le

from expunge.core.context import Context
from expunge.core.contracts import Example, Model
from expunge.core.errors import BadInput
from expunge.data.clients import FIELD, Placing, client_of, clients_of
from expunge.methods._history import Kept, write_history
from expunge.methods._noisy_training import check_noise, guarantee_of
from expunge.methods._rounds import Duties, Rounds, local_budget, state_of
from expunge.methods._strategy import strategy_of
from expunge.methods.claims import Keys
from expunge.methods.sealed import check_sums
from expunge.methods.single_shot import choose, pairs_of, search_of
from expunge.methods.training import BESIDE, with_defaults
from expunge.models.history import FEDERATED, with_history
from expunge.training import checkpoint

NAME = "federation"
WHERE = f"trainer.{NAME}"


def added_capabilities(options: Mapping[str, Any]) -> frozenset[str]:
    """A server's record of the rounds, where these options keep one."""
    return frozenset({FEDERATED} if options["history"] != "none" or _duties(options).encrypt else ())


def client_in(options: Mapping[str, Any]) -> Callable[[Example], Any]:
    """With whom a row lies in the federation of these options."""
    placing = Placing.of(options["clients"], f"{WHERE}.clients")
    return lambda row: client_of(row, placing)


def check(model: Model, data: Sequence[Example], **options: Any) -> None:
    """Check the strategy, and that there are two clients. Raises BadInput."""
    strategy = strategy_of(options["strategy"], f"{WHERE}.strategy")
    duties = _duties(options)
    clients = clients_of(data, Placing.of(options["clients"], f"{WHERE}.clients"))
    if len(clients) < 2:
        raise BadInput.of(WHERE, len(clients), "is the number of clients", "give rows of two clients or more")
    strategy.fits(clients, f"{WHERE}.strategy")
    check_sums(duties.encrypt, strategy, options["strategy"], options.get("history", "none"))
    Keys.of(duties.sign, list(clients))
    if duties.dp:
        check_noise(model, strategy.terms(), options["strategy"])


def train(
    fresh: Model,
    data: Sequence[Example],
    context: Context,
    *,
    clients: Any = FIELD,
    rounds: Annotated[int, Ge(1), Le(100_000)] = 12,
    local: Any = 1,
    strategy: Any = "fedavg",
    history: Literal["none", "last", "all"] = "last",
) -> Model:
    """Train the clients' models from the global one, round by round, and combine them by the strategy.

    clients: the field that names a row's client, or how rows are dealt out, and the `fraction` of the clients that
    takes part in a round (`Placing`). history: what the server keeps beside the model: each client's last model, or
    those of all rounds, which `federaser` replays. local: a client's passes over its rows in a round, or `Local`: with
    `sgd`, at that rate by SGD with a momentum of 0.9, else by AdamW at the rate of train.yaml. The batch size counts,
    `epochs` there do not. Lists of rates and passes are a search: each client says what it loses with each on its
    own rows, and one is chosen from that (`Search`). `dp`: with noise, `encrypt`: into
    ciphertexts that the server adds, `sign`: with its own key (`Duties`).
    Raises BadInput.
    """
    began, placing = time.monotonic(), Placing.of(clients, f"{WHERE}.clients")
    divided = clients_of(data, placing)
    plan = strategy_of(strategy, f"{WHERE}.strategy")
    run = Rounds(fresh, divided, plan, context, context.budget, placing.fraction)
    setting = _setting(run, local)
    run.budget = local_budget(context.budget, setting)
    run.take(setting)
    kept = _run(run, rounds, history)
    fresh.module.eval()
    if kept or run.sums:  # of sums an empty record: nobody's update was seen
        write_history(context.folder / BESIDE, kept)
        with_history(fresh, context.folder / BESIDE)
    context.notes["outcome"] = outcome_of(run, run.budget.learning_rate, time.monotonic() - began)
    context.notes["outcome"]["federation"] |= _clients(run, setting)
    return fresh


def _clients(run: Rounds, duties: Duties) -> dict[str, Any]:
    """The account's part on the clients: their rows, what they did, and what noise guarantees of a row."""
    sizes = {name: len(rows) for name, rows in run.clients.items()}
    told: dict[str, Any] = {"examples": sizes, "local": duties.model_dump(exclude_none=True)}
    if duties.dp:
        told["privacy_of_rows"] = guarantee_of(duties.dp, run.budget, [(sizes, run.ledger.account())])
    return told


def _duties(options: Mapping[str, Any]) -> Duties:
    """The clients' part within a round; of a search what it leaves open. Raises BadInput."""
    searched = search_of(options["local"], f"{WHERE}.local") is not None
    return Duties() if searched else Duties.of(options["local"], f"{WHERE}.local")


def _setting(run: Rounds, local: Any) -> Duties:
    """How clients train within a round: as they were told to, or chosen from what each lost on its own rows."""
    search = search_of(local, f"{WHERE}.local")
    if search is None:
        return Duties.of(local, f"{WHERE}.local")
    found = choose(pairs_of(run, search, state_of(run.model)), search, run.context.derive("single shot"))
    return Duties(**found.model_dump())


def local_of(manifest: Mapping[str, Any], options: Mapping[str, Any]) -> Duties:
    """How the clients of a federation train within a round: as it was chosen, or as its options say."""
    told = (manifest.get("federation") or {}).get("local")
    return Duties.of(options["local"] if told is None else told, f"{WHERE}.local")


def _run(run: Rounds, count: int, history: str) -> list[Kept]:
    """All rounds, after which the model has the last one's weights; and the rounds that are kept."""
    weights, kept, context = state_of(run.model), [], run.context
    context.reporter.start(context.label, count)
    for number in range(1, count + 1):
        wanted = history == "all" or (history == "last" and number == count)
        before = weights
        weights, updates = run.round(number, before, keep=wanted)
        kept += [Kept(number, before, updates)] if wanted else []
        context.reporter.advance(context.label, number, f"round {number}")
    context.reporter.finish(context.label)
    checkpoint.restore(run.model.module, weights, "")
    return kept


def outcome_of(run: Rounds, rate: Any, seconds: float) -> dict[str, Any]:
    """The rounds in the form of a training run's outcome, with `federation`: who took part, and bytes."""
    ledger = run.ledger
    guarantee = run.strategy.guarantee(len(ledger.rounds))
    hidden = {"sums": run.sums.name} if run.sums else {}
    return {
        "steps": ledger.steps,
        "tokens": ledger.tokens,
        "seconds": max(ledger.seconds, seconds),
        "curve": [],
        "stop": {},
        "learning_rate": float(rate) if isinstance(rate, float | int) else 0.0,
        "rate_source": "as in training",
        "federation": ledger.account() | ({"privacy": guarantee} if guarantee else {}) | hidden,
    }


def cost_of(spent: Mapping[str, Any], manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Rounds and bytes of a departure, and of the whole training that a retraining repeats."""
    whole = manifest.get("federation") or {}
    known = {f"training_{name}": whole[name] for name in ("rounds", "bytes_down", "bytes_up") if name in whole}
    return {**{name: spent[name] for name in ("rounds", "bytes_down", "bytes_up")}, **known}


def federation_of(manifest: Mapping[str, Any] | None) -> dict[str, Any]:
    """The options of the federation that trained the model. Raises BadInput where none did."""
    options = ((manifest or {}).get("trainer") or {}).get("federation")
    if options is None:
        raise BadInput.of(
            "method", "", "needs a model that a federation trained", "train with `trainer: federation` in train.yaml"
        )
    bound = with_defaults({NAME: options}, "trainer")
    assert bound is not None
    return bound[NAME]
