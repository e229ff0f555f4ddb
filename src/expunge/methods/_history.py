"""The rounds that the server of a federation keeps, for a client that leaves later.

It lies beside the model in `federation.safetensors` and is not written again with a model that was changed: an erased
client's updates go with the model that held them.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from expunge.core.errors import BadInput
from expunge.core.files import PRIVATE, new_file
from expunge.models.history import HISTORY
from expunge.training.updates import ClientUpdate, State, fault_of


@dataclass(frozen=True)
class Kept:
    """One round: the global model that it began with, and what the clients sent."""

    number: int
    before: State
    updates: Sequence[ClientUpdate]


def write_history(folder: Path, rounds: Sequence[Kept]) -> None:
    """Write the rounds to a folder."""
    tensors: State = {}
    told = []
    for i, kept in enumerate(rounds):
        tensors |= {f"{i}.before.{name}": value for name, value in kept.before.items()}
        for k, one in enumerate(kept.updates):
            tensors |= {f"{i}.{k}.{name}": value for name, value in one.weights.items()}
        clients = [[one.client, one.examples] for one in kept.updates]
        told.append({"round": kept.number, "clients": clients})
    folder.mkdir(parents=True, exist_ok=True)
    with new_file(folder / HISTORY, PRIVATE) as written:
        save_file(tensors, written, {"rounds": json.dumps(told)})


def read_history(folder: Path, like: State) -> list[Kept]:
    """The rounds that were kept, the oldest first. like: the model's weights. Raises BadInput."""
    path = folder / HISTORY
    try:
        with safe_open(path, "pt") as file:
            told = json.loads((file.metadata() or {})["rounds"])
            return [_round(file, i, one, like, path) for i, one in enumerate(told)]
    except (SafetensorError, OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise BadInput.of("model", str(path), f"cannot be read ({type(error).__name__})", "train it again") from None


def _round(file: Any, i: int, told: Any, like: State, path: Path) -> Kept:
    def tensors(head: str) -> State:
        found = {name: file.get_tensor(f"{i}.{head}.{name}") for name in like}
        if why := fault_of(like, found):
            raise BadInput.of("model", str(path), f"holds another model's rounds (a client {why})", "train it again")
        return found

    updates = [ClientUpdate(str(name), tensors(str(k)), int(count)) for k, (name, count) in enumerate(told["clients"])]
    return Kept(int(told["round"]), tensors("before"), updates)
