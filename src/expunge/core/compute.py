"""The compute of a method, in positions that the network computed: it compares between machines, unlike seconds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass
class Compute:
    """Forward and backward passes, in positions: a language model's tokens, padding included; of other models examples.

    A pass through a part of the blocks counts as that part of a pass.
    """

    forward: float = 0.0
    backward: float = 0.0

    def load(self, state: Mapping[str, float]) -> None:
        """Set to an earlier state of the same work, which a resumed run goes on from."""
        self.forward, self.backward = float(state["forward"]), float(state["backward"])

    def state(self) -> dict[str, float]:
        """The counts, for a checkpoint."""
        return {"forward": self.forward, "backward": self.backward}

    def positions(self) -> dict[str, int]:
        """The counts in whole positions, for the evidence."""
        return {name: round(count) for name, count in self.state().items()}
