"""The models that the clients of a federation send after a round, and their means: arithmetic on named tensors.

Sums run over the clients in the order of their names and in float64, so that they do not depend on who answered first.
Whole-number tensors (counters of batches) have no mean: they are carried apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import torch
from torch import Tensor

from expunge.core.errors import BadInput
from expunge.core.files import digest

State = dict[str, Tensor]
"""All weights and buffers of a model, by name."""
FARTHEST = 1e6
"""Times the median distance from the round's start at which an update is left out."""


@dataclass(frozen=True)
class ClientUpdate:
    """A client's model after a round of local training, or ciphertexts of its change. examples: how many it trained on.

    signature, key: of its claim (methods/claims.py), in hexadecimal; "" where it made none.
    """

    client: str
    weights: State
    examples: int
    signature: str = ""
    key: str = ""

    @property
    def size(self) -> int:
        """Bytes."""
        return size_of(self.weights)


def size_of(weights: Mapping[str, Tensor]) -> int:
    """Bytes of a message that holds these tensors."""
    return sum(value.numel() * value.element_size() for value in weights.values())


def digest_of(weights: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and bytes of a model."""
    total = hashlib.sha256()
    for name, value in sorted(weights.items()):
        total.update(f"{name}|{value.dtype}|{tuple(value.shape)}".encode())
        if value.numel():
            total.update(value.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def chain(previous: str, fact: Mapping[str, object]) -> str:
    """The link of a fact: it changes with each fact before. previous: their last link, empty at first."""
    return digest([previous, dict(fact)])


def by_client(updates: Sequence[ClientUpdate]) -> list[ClientUpdate]:
    """The updates in the order in which they are summed."""
    return sorted(updates, key=lambda one: one.client)


def floating(weights: Mapping[str, Tensor]) -> list[str]:
    """Names of the tensors that can be averaged."""
    return [name for name, value in weights.items() if value.is_floating_point()]


Combine = Callable[[Tensor], Tensor]
"""[C, ...] one tensor of C clients in float64 -> [...]."""


def combine(before: State, updates: Sequence[ClientUpdate], rule: Combine) -> State:
    """The next global model: `rule` over each tensor of the clients, cast back; of counters the largest."""
    ordered = by_client(updates)
    after = {}
    for name, value in before.items():
        sent = [one.weights[name] for one in ordered]
        if value.is_floating_point():
            after[name] = rule(torch.stack([one.double() for one in sent])).to(value.dtype)
        else:
            after[name] = torch.stack(sent).amax(0)
    return after


def weighted_mean(shares: Sequence[float]) -> Combine:
    """The mean over the clients by these shares, which are brought to a sum of 1."""
    shares_C = torch.tensor(shares, dtype=torch.float64) / sum(shares)

    def rule(values: Tensor) -> Tensor:
        total = torch.zeros_like(values[0])
        for share, value in zip(shares_C, values, strict=True):  # one after another: a fixed order of summation
            total = total + share * value
        return total

    return rule


def mean_by_examples(before: State, updates: Sequence[ClientUpdate]) -> State:
    """The mean of the clients' models, each by its number of examples."""
    return combine(before, updates, weighted_mean([one.examples for one in by_client(updates)]))


def without_clients(now: State, total: int, leaving: Sequence[ClientUpdate]) -> State:
    """The mean of the others' models: (n w - sum of n_i w_i) / (n - sum of n_i) over the leaving clients i.

    now: the mean of all clients' models by their examples, n = `total` of them. Source: arXiv:2207.05521, equation 1,
    there with equal weights.
    """
    rest = total - sum(one.examples for one in leaving)
    found = {}
    for name, value in now.items():
        if not value.is_floating_point():
            found[name] = value.clone()
            continue
        kept = total * value.double()
        for one in by_client(leaving):
            kept = kept - one.examples * one.weights[name].double()
        found[name] = (kept / rest).to(value.dtype)
    return found


def distance(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> float:
    """The Euclidean distance of two models' floating-point tensors, in float64."""
    total = sum(
        float((value.double() - other[name].double()).square().sum())
        for name, value in one.items()
        if value.is_floating_point()
    )
    return float(total**0.5)


def fault_of(before: Mapping[str, Tensor], sent: Mapping[str, Tensor]) -> str:
    """Why a model cannot be the round's model further trained; "" where it can."""
    if missing := sorted(before.keys() ^ sent.keys()):
        return f"sent other tensors than it received ({missing[0]})"
    for name, value in before.items():
        if sent[name].shape != value.shape or sent[name].dtype != value.dtype:
            return f"sent {name} in another shape or type"
        if value.is_floating_point() and not bool(torch.isfinite(sent[name]).all()):
            return f"sent {name} with values that are not finite"
    return ""


def screen(before: State, updates: Sequence[ClientUpdate]) -> tuple[list[ClientUpdate], dict[str, str]]:
    """(the updates that may be used, client -> why its update is left out).

    Left out are other tensors, shapes or types than were sent, values that are not finite, a count that is not
    positive, and a distance from `before` of FARTHEST times the median one.
    """
    refused = {one.client: fault_of(before, one.weights) for one in updates}
    for one in updates:
        if not refused[one.client] and one.examples <= 0:
            refused[one.client] = "trained on no example"
    sound = [one for one in by_client(updates) if not refused[one.client]]
    lengths = {one.client: distance(before, one.weights) for one in sound}
    middle = median(lengths.values()) if lengths else 0.0
    for name, length in lengths.items():
        if middle and length > FARTHEST * middle:
            refused[name] = f"moved {length / middle:.0e} times as far as the median client"
    return [one for one in sound if not refused[one.client]], {k: why for k, why in refused.items() if why}


def require_some(usable: Sequence[ClientUpdate], round_: int, refused: Mapping[str, str], least: int = 1) -> None:
    """Raises BadInput where fewer than `least` updates of a round can be used."""
    if usable and len(usable) < least:
        why = f"has updates of {len(usable)} clients, and the noise of a sum takes {least}"
        raise BadInput.of("trainer.federation", f"round {round_}", why, "look at the clients, or trust fewer")
    if not usable:
        why = "; ".join(f"client {name} {reason}" for name, reason in refused.items()) or "no client answered"
        raise BadInput.of(
            "trainer.federation", f"round {round_}", f"has no usable update ({why})", "look at the clients"
        )
