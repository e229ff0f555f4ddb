"""When a run on refusals ends: the target's refusal score is at its goal and the floor holds, or the budget is up.

The score is judged on generated answers to a few prompts, so it is read at points of the curve alone, and must be at
its goal at two points in a row: it falls so steeply that one lucky reading would end a run half way.

Where there are no retain data the floor is held by benign prompts that do not train. Nobody asked to keep those, so
they end a run where the model collapses alone; but of two points at the goal the one that kept more of them is taken.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from expunge.core.contracts import Model
from expunge.training.stopping import Stop

POINTS = 120
"""Times a run that the refusal score is read at most: refusals fall within a few steps."""

COLLAPSED = 0.5
"""The floor on benign prompts that nobody asked to keep."""


@dataclass
class Goal(Stop):
    """A Stop by the refusal score. score: the model's refusal score on the target now, in 0-1."""

    score: Callable[[Model], float] = lambda model: 1.0
    goal: float = 0.1
    wanted: float = 0.0
    """The share of the retain probability from which more is not better."""

    @property
    def decides(self) -> bool:
        return True

    @property
    def interval(self) -> int:
        return max(1, math.ceil(self.total / POINTS))

    def point(self, step: int, forget: Mapping[str, float] | None = None) -> dict[str, Any]:
        return {**super().point(step, forget), "refusal_score": float(self.score(self.model))}

    def check(self, step: int, batch_nll: float | None) -> bool:
        """As Stop.check, with the refusal score in the place of the forget NLL."""
        if not self.due(step):
            return False
        point = self.point(step)
        self.curve.append(point)
        score, kept = point["refusal_score"], self.share_kept(point)
        broken = kept is not None and kept < self.floor
        # The floor first, then the refusal score, then what is kept; of equal points the later.
        rank = (-10.0 if broken else 0.0) - max(score, self.goal) + 0.01 * min(kept or 0.0, self.wanted)
        better = rank >= self.best
        if better:
            self.best, self.best_step = rank, step
        held = self.curve[-2]["refusal_score"] <= self.goal or step >= self.total
        if score <= self.goal and held and not broken:
            self.reason = "refusals"
            taken = "" if self.best_step == step else f"; {self._describe_weights()}"
            self.sentence = (
                f"Stopped at step {step}: the refusal score of {score:.2f} is at its goal of {self.goal:.2f}{taken}."
            )
        elif step >= self.total or (broken and not self.repairable):
            self.reason = "budget" if step >= self.total else "retain floor"
            short = (
                f"only {kept:.0%} of the retain {self.statistic} was left (floor {self.floor:.0%})"
                if broken
                else f"the refusal score of {score:.2f} has not come to {self.goal:.2f}"
            )
            self.sentence = f"Stopped at step {step}: {short}; {self._describe_weights()}."
        return better
