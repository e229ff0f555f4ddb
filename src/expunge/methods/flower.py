"""The rounds of a federation as Flower's messages: a ClientApp over the clients' training, and a grid in this process.

`exchange_through` gives `Rounds` an exchange that sends its global model through any Flower grid; the clients' side is
`client_app`. With `InProcessGrid` both run here, without Ray and without a SuperLink, and the models are those of the
rounds without Flower, bit for bit. Needs flwr 1.42 (the extra `federated`).
"""

from __future__ import annotations

import importlib
import itertools
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from expunge.core.errors import BadInput
from expunge.core.extras import require
from expunge.data.clients import in_order
from expunge.methods._rounds import Exchange
from expunge.methods.sealed import Open
from expunge.training.updates import ClientUpdate, State

Train = Callable[[int, str, State, int], ClientUpdate]
"""(round, name of the client, global model, how many clients the round asks) -> its update: `Rounds.send`."""
FAILED = 1
"""Code of an error reply: the client's training raised."""


def _flwr(module: str) -> Any:
    """A module of flwr. Raises BadInput where it is not installed."""
    require("trainer", "federation", "flwr", "federated")
    return importlib.import_module(f"flwr.{module}")


Read = Callable[[State], str]
"""Global model -> what the client says of its own rows under it, as JSON."""


def client_app(train: Train, *, name: str = "", read: Read | None = None, open_sum: Open | None = None) -> Any:
    """The ClientApp whose train action trains one client from the arrays that it is sent.

    A message has the records "arrays" (the global model) and "config" (`round`, `client`, `count`); the reply "arrays",
    "metrics" (`examples`) and "config" (`signature`, `key`: empty without a claim). Where they are given, `query.name`
    is answered with the client's name, `query.read` with what it reads, and `query.open` with the numbers of an
    encrypted sum.
    """
    app, flwr = _flwr("clientapp").ClientApp(), _flwr("app")

    def answer(make: Callable[[Any], dict[str, Any]]) -> Callable[[Any, Any], Any]:
        return lambda message, context: flwr.Message(flwr.RecordDict(make(message)), reply_to=message)

    def tell(key: str, make: Callable[[Any], str]) -> Callable[[Any, Any], Any]:
        return answer(lambda message: {"config": flwr.ConfigRecord({key: make(message)})})

    app.train()(answer(lambda message: _train(message, train)))
    if name:
        app.query("name")(tell("name", lambda message: name))
    if read:
        app.query("read")(tell("read", lambda message: read(_weights_in(message))))
    if open_sum:
        app.query("open")(answer(lambda message: _open(message, open_sum)))
    return app


def _train(message: Any, train: Train) -> dict[str, Any]:
    """The records of a client's update."""
    flwr, config = _flwr("app"), message.content["config"]
    sent = train(int(config["round"]), str(config["client"]), _weights_in(message), int(config["count"]))
    return {
        "arrays": flwr.ArrayRecord(sent.weights),
        "metrics": flwr.MetricRecord({"examples": sent.examples}),
        "config": flwr.ConfigRecord({"signature": sent.signature, "key": sent.key}),
    }


def _open(message: Any, open_sum: Open) -> dict[str, Any]:
    """The records of an encrypted sum's numbers."""
    config = message.content["config"]
    found = open_sum(_weights_in(message), int(config["count"]), int(config["size"]))
    return {"arrays": _flwr("app").ArrayRecord({"sum": torch.from_numpy(found)})}


def _weights_in(message: Any) -> State:
    return dict(message.content["arrays"].to_torch_state_dict())


def nodes_of(grid: Any, count: int, timeout: float = 60.0) -> dict[str, int]:
    """Client -> the node that holds it, once so many are there. Raises BadInput where they are not in time."""
    flwr, until = _flwr("app"), time.monotonic() + timeout
    found: dict[str, int] = {}
    while time.monotonic() < until and len(found) < count:
        nodes = [node for node in grid.get_node_ids() if node not in found.values()]
        messages = [grid.create_message(flwr.RecordDict({}), "query.name", node, "0") for node in nodes]
        for reply in grid.send_and_receive(messages, timeout=timeout) if messages else []:
            if not reply.has_error():
                found[str(reply.content["config"]["name"])] = reply.metadata.src_node_id
        time.sleep(0 if len(found) >= count else 1)
    if len(found) < count:
        raise BadInput.of("clients", len(found), f"are there of {count}", "start the others, or wait for longer")
    return dict(sorted(found.items(), key=lambda item: in_order(item[0])))


def read_through(grid: Any, nodes: Mapping[str, int], weights: State, timeout: float | None = None) -> dict[str, str]:
    """Client -> what it says of its own rows under these weights, of those that answer."""
    flwr, names = _flwr("app"), {node: name for name, node in nodes.items()}
    records = flwr.RecordDict({"arrays": flwr.ArrayRecord(weights)})
    messages = [grid.create_message(records, "query.read", node, "0") for node in nodes.values()]
    replies = grid.send_and_receive(messages, timeout=timeout)
    sound = {names[one.metadata.src_node_id]: one for one in replies if not one.has_error()}
    return {name: str(sound[name].content["config"]["read"]) for name in nodes if name in sound}


def exchange_through(grid: Any, nodes: Mapping[str, int], timeout: float | None = None) -> Exchange:
    """The exchange that sends a round's messages through a Flower grid. nodes: client -> the node that holds it.

    Replies with an error or of another form count as none, and so do nodes that are late; the order of replies does not
    matter.
    """
    flwr = _flwr("app")
    client_at = {node: name for name, node in nodes.items()}

    def exchange(number: int, names: Sequence[str], weights: State) -> list[ClientUpdate]:
        messages = []
        for name in names:
            records = {
                "arrays": flwr.ArrayRecord(weights),
                "config": flwr.ConfigRecord({"round": number, "client": name, "count": len(names)}),
            }
            messages.append(grid.create_message(flwr.RecordDict(records), "train", nodes[name], str(number)))
        replies = grid.send_and_receive(messages, timeout=timeout)
        sent = [_update(client_at, reply) for reply in replies if not reply.has_error()]
        return [update for update in sent if update is not None]

    return exchange


def _update(client_at: Mapping[int, str], reply: Any) -> ClientUpdate | None:
    """The update in a reply; None where it lacks a record: one client must not end the round of all."""
    try:
        client, told = client_at[reply.metadata.src_node_id], reply.content["config"]
        examples = int(reply.content["metrics"]["examples"])
        return ClientUpdate(client, _weights_in(reply), examples, str(told["signature"]), str(told["key"]))
    except (KeyError, TypeError, ValueError):
        return None


def open_through(grid: Any, nodes: Mapping[str, int], timeout: float | None = None) -> Open:
    """Let an encrypted sum be decrypted by the first client that answers. Raises BadInput where none does."""
    flwr = _flwr("app")

    def open_sum(total: State, count: int, size: int) -> np.ndarray:
        config = flwr.ConfigRecord({"count": count, "size": size})
        records = flwr.RecordDict({"arrays": flwr.ArrayRecord(total), "config": config})
        for node in nodes.values():
            message = grid.create_message(records, "query.open", node, "0")
            for reply in grid.send_and_receive([message], timeout=timeout):
                if not reply.has_error():
                    return np.asarray(_weights_in(reply)["sum"].numpy())
        raise BadInput.of("trainer.federation.sums", count, "clients' sum was decrypted by nobody", "start the clients")

    return open_sum


class InProcessGrid:
    """A grid with the methods of flwr's, which calls the ClientApp directly, node after node.

    Messages are answered as they are pushed, and wait until they are pulled. A client that raises replies with an
    error.
    """

    def __init__(self, app: Any, nodes: Iterable[int]) -> None:
        flwr = _flwr("app")
        identity = _flwr("supercore.task_identity").TaskIdentity  # without one, a process can make no message
        identity.task_id = identity.run_id = identity.node_id = 1
        self.app = app
        self.contexts = {
            node: flwr.Context(run_id=1, node_id=node, node_config={}, state=flwr.RecordDict(), run_config={})
            for node in nodes
        }
        self.replies: dict[str, Any] = {}
        self.places = itertools.count()

    def create_message(
        self, content: Any, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Any:
        """A message to a node."""
        return _flwr("app").Message(content, dst_node_id, message_type, ttl=ttl, group_id=group_id)

    def get_node_ids(self) -> list[int]:
        """The nodes that there are."""
        return list(self.contexts)

    def push_messages(self, messages: Iterable[Any]) -> list[str]:
        """Let the nodes answer; the places of their replies."""
        places: list[str] = []
        for message in messages:
            places.append(str(next(self.places)))
            self.replies[places[-1]] = self._answer(message)
        return places

    def pull_messages(self, message_ids: Iterable[str]) -> list[Any]:
        """The replies at these places, each once."""
        return [self.replies.pop(place) for place in message_ids if place in self.replies]

    def send_and_receive(self, messages: Iterable[Any], *, timeout: float | None = None) -> list[Any]:
        """Push the messages and pull their replies; nobody is late here."""
        return self.pull_messages(self.push_messages(messages))

    def _answer(self, message: Any) -> Any:
        try:
            return self.app(message, self.contexts[message.metadata.dst_node_id])
        except Exception as error:
            flwr = _flwr("app")
            return flwr.Message(flwr.Error(FAILED, type(error).__name__), reply_to=message)
