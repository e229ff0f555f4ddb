"""Gradient boosting over the clients of a federation: in each round every client grows trees on its own rows."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from annotated_types import Ge, Gt, Le

from expunge.core.context import Context
from expunge.core.contracts import Example, Model
from expunge.core.errors import BadInput
from expunge.data.clients import FIELD, Clients, Placing, client_of, clients_of
from expunge.methods.trainers import boosting
from expunge.models.classifier import floats
from expunge.models.trees import Boosted, Trees, booster_of, grow

NAME = "federated_boosting"
WHERE = f"trainer.{NAME}.clients"


def client_in(options: Mapping[str, Any]) -> Callable[[Example], Any]:
    """With whom a row lies in the federation of these options."""
    placing = Placing.of(options["clients"], WHERE)
    return lambda row: client_of(row, placing)


def check(model: Model, data: Sequence[Example], **options: Any) -> None:
    """Check the model, and that there are two clients. Raises BadInput."""
    boosting.require_trees(model, NAME)
    if len(clients := clients_of(data, Placing.of(options["clients"], WHERE))) < 2:
        raise BadInput.of(WHERE, len(clients), "is the number of clients", "give rows of two clients or more")


def train(
    fresh: Model,
    data: Sequence[Example],
    context: Context,
    *,
    clients: Any = FIELD,
    depth: Annotated[int, Ge(1), Le(30)] = 6,
    rate: Annotated[float, Gt(0), Le(1)] = 0.3,
    least_weight: Annotated[float, Ge(0)] = 1.0,
    shrinkage: Annotated[float, Ge(0)] = 1.0,
) -> Model:
    """Grow as many rounds as the budget has epochs: the clients' trees of a round, each by its share of the rows.

    Every client grows the next trees of the common model on its own rows (XGBoost, arXiv:1603.02754), and the server
    adds all of them, their leaves times the client's share of all rows: bagging (McMahan et al.; Flower's FedXgbBagging
    adds them whole). clients: as of `federation`; all take part in each round. The other options are those of
    `boosting`. What a client sends are trees, whose splits and leaves are sums over its rows.
    """
    check(fresh, data, clients=clients)
    began, classes = time.monotonic(), classes_of(fresh)
    parameters = {
        **boosting.objective(classes),
        "base_score": 0.5,  # a client would else start from its own rows
        "max_depth": depth,
        "eta": rate,
        "min_child_weight": least_weight,
        "lambda": shrinkage,
        "seed": context.derive(NAME) % 2**31,
    }
    divided, rounds = clients_of(data, Placing.of(clients, WHERE)), int(context.budget.epochs or 1)
    raw, sent = b"", {"bytes_up": 0, "bytes_down": 0}
    context.reporter.start(NAME, rounds)
    for number in range(1, rounds + 1):
        raw = _round(raw, divided, parameters, sent)
        context.reporter.advance(NAME, number, f"round {number}")
    context.reporter.finish(NAME)
    told = {"rounds": rounds, "participants": [list(divided)] * rounds, **sent}
    context.notes["outcome"] = {"steps": rounds, "tokens": rounds * len(data), "federation": told}
    context.notes["outcome"]["seconds"] = time.monotonic() - began
    return Trees(Boosted(classes, len(floats(data[0]["features"])), raw).eval())


def classes_of(model: Model) -> int:
    """The number of classes of a model of trees."""
    assert isinstance(model, Trees)
    return model.boosted.classes


def _round(raw: bytes, clients: Clients, parameters: Mapping[str, Any], sent: dict[str, int]) -> bytes:
    """The model with the trees that every client grew on top of it."""
    total = sum(len(rows) for rows in clients.values())
    grown = [(grow(raw, rows, parameters, 1), len(rows) / total) for rows in clients.values()]
    sent["bytes_down"] += len(raw) * len(clients)
    sent["bytes_up"] += sum(len(one) - len(raw) for one, _ in grown)
    return merge(raw, grown)


def merge(raw: bytes, grown: Sequence[tuple[bytes, float]]) -> bytes:
    """A booster with the trees that others have beyond its own, their leaves times each one's share.

    raw: XGBoost's bytes, empty before the first round. grown: boosters that continue it, in the order of their trees.
    """
    whole = _document(grown[0][0])
    model = whole["learner"]["gradient_booster"]["model"]
    own = len(_document(raw)["learner"]["gradient_booster"]["model"]["trees"]) if raw else 0
    trees, classes = model["trees"][:own], model["tree_info"][:own]
    ends = [end for end in model["iteration_indptr"] if end <= own]
    for one, share in grown:
        further = _document(one)["learner"]["gradient_booster"]["model"]
        trees += [_scale_leaves(tree, share, len(trees) + i) for i, tree in enumerate(further["trees"][own:])]
        classes += further["tree_info"][own:]
        ends.append(len(trees))
    model |= {"trees": trees, "tree_info": classes, "iteration_indptr": ends}
    model["gbtree_model_param"]["num_trees"] = str(len(trees))
    return bytes(booster_of(json.dumps(whole).encode()).save_raw("ubj"))


def _document(raw: bytes) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(booster_of(raw).save_raw("json"))
    return found


def _scale_leaves(tree: dict[str, Any], share: float, place: int) -> dict[str, Any]:
    """A tree with another place and its leaves, whose values stand among the conditions, times the share."""
    conditions = zip(tree["split_conditions"], tree["left_children"], strict=True)
    return {
        **tree,
        "id": place,
        "split_conditions": [value * share if left == -1 else value for value, left in conditions],
    }
