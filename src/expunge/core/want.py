"""The values that a forward is asked for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from expunge.core.channels import FORWARD, OWN


@dataclass(frozen=True)
class Want:
    """The values that a forward should return: channels, hidden states by module path, and k for `topk`."""

    channels: frozenset[str] = frozenset({"nll"})
    hidden: tuple[str, ...] = ()
    k: int = 0

    def __or__(self, other: Want) -> Want:
        return Want(
            self.channels | other.channels,
            tuple(dict.fromkeys(self.hidden + other.hidden)),
            max(self.k, other.k),
        )


NLL = Want()
"""The plain want: NLL alone."""


def want_of(channels: Iterable[str]) -> Want:
    """A Want from channel names; `topk:64` sets k, `hidden:PATH` asks for a module's output."""
    plain, hidden, k = set(), [], 0
    for name in sorted(channels):
        kind, _, value = name.partition(":")
        if kind == "hidden":
            hidden.append(value)
            continue
        if kind == "topk":
            k = max(k, int(value or 64))
        if kind not in FORWARD and kind not in OWN:
            raise ValueError(f"unknown channel {name!r}; known: {', '.join([*FORWARD, *OWN])}, hidden:PATH")
        plain.add(kind)
    return Want(frozenset(plain), tuple(hidden), k)
