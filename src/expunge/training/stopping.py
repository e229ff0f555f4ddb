"""When a run ends: the forget NLL has come to where it should be with the floor held, or the budget.

A floor that breaks on the way ends the run only where no retain term could repair it: NPO and its kin
dip and recover. Which weights are taken at the end, the floor decides in any case.

The level is the holdout's: one half of it, read under the ORIGIN (under the moving model a
collapsing method would drag the holdout along and never be stopped). The other half is for audits.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from expunge.core import processes
from expunge.core.card import Example
from expunge.core.context import Watch
from expunge.core.contracts import Model, Want
from expunge.models.family import family
from expunge.models.passes import passes
from expunge.training.sharding import is_sharded

ACCURACY = "accuracy"
"""The statistic that is read off the likeliest class."""

CHECKS = 10
"""Times a run that the curve (and with it the floor) is checked at most; never where no check decides."""


NEAR, MAYBE = 0.95, 0.6
"""Shares of the target, of a step's and of the curve's forget NLL, from which the forget set alone is
read at every other step, so that the run does not overshoot."""


REACHED = 0.2
"""Nats by which a level that was reached counts nearer than one that was not."""


def figures(model: Model, rows: Sequence[Example]) -> dict[str, float]:
    """nll (mean over examples of nats per position), probability (its exponential) or the family's own knowledge, and
    accuracy where the family's retain floor is held by it. Several processes read a share each."""
    kind = family(model.family)
    want = Want(frozenset({"nll", "argmax"} if kind.kept == ACCURACY else {"nll"}))
    nll, hits = [], []
    shared = len(rows) >= processes.world() > 1 and not model.together and not is_sharded(model.module)
    for _, out in passes(model, [rows[i] for i in processes.share(len(rows))] if shared else rows, want):
        nll.append((out.nll_B / out.n_B.clamp(min=1)).float().cpu().numpy())
        if out.argmax_BT is not None:
            hits.append((out.argmax_BT == out.labels_BT)[:, -1].float().cpu().numpy())
    if shared:
        nll, hits = (list(itertools.chain(*parts)) for parts in zip(*processes.gather((nll, hits)), strict=True))
    values = np.concatenate(nll)
    known = "probability" if kind.kept == ACCURACY else kind.kept
    found = {"nll": float(values.mean()), known: float(kind.knowledge(values).mean())}
    if hits:
        found[ACCURACY] = float(np.concatenate(hits).mean())
    return found


@dataclass
class Stop:
    """Checks a run at points of its curve and says when it ends and which weights are best.

    target: the forget NLL to reach (None: run out the budget). floor: share of the retain
    probability (accuracy, for classifiers) of before. State is JSON, for checkpoints.
    """

    model: Model
    forget: Sequence[Example]
    retain: Sequence[Example]
    target: float | None
    rule: str
    floor: float
    total: int
    repairable: bool = False
    """Is there a retain term, which may bring a broken floor back."""
    watch: Watch | None = None
    curve: list[dict[str, Any]] = field(default_factory=list)
    best: float = -math.inf
    best_step: int = 0
    reason: str = ""
    sentence: str = ""
    near: bool = False
    level: float = 0.0

    @property
    def decides(self) -> bool:
        """Whether a check may end the run, or send it back to earlier weights."""
        return self.target is not None or self.watch is not None or (self.floor > 0 and bool(self.retain))

    @property
    def interval(self) -> int:
        return max(1, math.ceil(self.total / CHECKS))

    def due(self, step: int) -> bool:
        """Whether step (the number of steps done) is a point of the curve."""
        return step == self.total or step % self.interval == 0

    def point(self, step: int, forget: Mapping[str, float] | None = None) -> dict[str, Any]:
        """Reads forget (unless just read) and retain now."""
        found: dict[str, Any] = {"step": step}
        if self.forget:
            read = forget or figures(self.model, self.forget)
            found |= {f"forget_{name}": value for name, value in read.items()}
        if self.retain:
            found |= {f"retain_{name}": value for name, value in figures(self.model, self.retain).items()}
        return found

    def share_kept(self, point: Mapping[str, Any]) -> float | None:
        """Share of the first point's retain accuracy, probability or knowledge that is left."""
        name = f"retain_{self.statistic}"
        if name not in point or not self.curve:
            return None
        return float(point[name]) / max(1e-9, float(self.curve[0][name]))

    @property
    def statistic(self) -> str:
        """The statistic of the retain floor."""
        return family(self.model.family).kept

    def start(self) -> None:
        """The point before the first step, where a check decides: else nobody would use what it reads."""
        if self.decides and not self.curve:
            self.curve.append(self.point(0))

    def check(self, step: int, batch_nll: float | None) -> bool:
        """Looks at the run after `step` steps; True when the weights now are the best so far.

        Sets `reason` when the run ends. batch_nll: the step's own forget NLL, before its update;
        once it nears the target the forget set is read at every step.
        """
        if not self.decides:
            return self._run_out(step)
        forget = None
        if not self.due(step) and (forget := self._early(step, batch_nll)) is None:
            return False
        point = self.point(step, forget)
        self.curve.append(point)
        if self.target is not None and "forget_nll" in point:
            # Reached with the floor broken, only the next point of the curve can tell more.
            self.near = MAYBE * self.target < point["forget_nll"] < self.target
        reached = self.target is not None and point.get("forget_nll", 0.0) >= self.target
        kept = self.share_kept(point)
        broken = kept is not None and kept < self.floor
        rank = -math.inf if broken else self._rank(point)
        better = not broken and rank >= self.best
        if better:
            self.best, self.best_step = rank, step
        if reached and not broken:
            self._end_at_level(point)
        elif broken and (not self.repairable or step >= self.total):
            self.reason = "retain floor"
            left = f"only {kept:.0%} of the retain {self.statistic} was left (floor {self.floor:.0%})"
            self.sentence = f"Stopped at step {step}: {left}; {self._describe_weights()}."
        elif step >= self.total:
            self.reason = "budget"
            level = f"the forget NLL of {point.get('forget_nll', 0.0):.2f}"
            short = f" before {level} reached the {self.rule}'s {self.target:.2f} nats" if self.target else ""
            taken = "" if self.best_step == step else f"; {self._describe_weights()}"
            self.sentence = f"Stopped at step {step}: the budget was used up{short}{taken}."
        return better

    def _run_out(self, step: int) -> bool:
        """Ends a run that no check can end, with the weights of its last step."""
        if step < self.total:
            return False
        self.best_step, self.reason = step, "budget"
        self.sentence = f"Stopped at step {step}: the budget was used up."
        return True

    def _end_at_level(self, point: Mapping[str, Any]) -> None:
        """Ends the run at its level; the weights are those of this point, or of an earlier one that ranks higher."""
        self.reason = self.rule
        level = f"the forget NLL of {point['forget_nll']:.2f} reached the {self.rule}'s {self.target:.2f} nats"
        if self.best_step == point["step"]:
            self.sentence = f"Stopped at step {point['step']}: {level}."
            return
        why = "but an earlier point was nearer"
        if self._bar(point) < self._bar(self._best_point):
            self.reason, why = "bar", "but there fewer of the acceptance criteria were met"
        self.sentence = f"Stopped at step {point['step']}: {level}, {why}; {self._describe_weights()}."

    @property
    def _best_point(self) -> Mapping[str, Any]:
        """The point of the curve whose weights are the best so far; the first before any is."""
        return next((point for point in self.curve if point["step"] == self.best_step), self.curve[0])

    def _describe_weights(self) -> str:
        """The weights that the run ends with, in words, with their own figure."""
        nll = self._best_point.get("forget_nll")
        figure = "" if nll is None else f" (forget NLL {nll:.2f})"
        return f"the weights of step {self.best_step}{figure} were taken"

    def _bar(self, point: Mapping[str, Any]) -> float:
        """How well a point meets the acceptance criteria; 0 where there are none."""
        return self.watch(point, self.curve[0]) if self.watch is not None else 0.0

    def _early(self, step: int, batch_nll: float | None) -> dict[str, float] | None:
        """The forget set's figures where it has reached the target between points of the curve, else None."""
        if self.target is None:
            return None
        if batch_nll is not None:  # smoothed: a step's examples are few
            self.level = 0.7 * self.level + 0.3 * batch_nll
            self.near = self.level > NEAR * self.target
        leap = batch_nll is not None and batch_nll > 1.2 * self.target  # ascent explodes within steps
        if not leap and (not self.near or step % 2):
            return None
        forget = figures(self.model, self.forget)
        return None if forget["nll"] < self.target else forget

    def _rank(self, point: Mapping[str, Any]) -> float:
        """Higher is better: the request's bar first, then nearness to the target, then lateness."""
        nearness = 0.0
        if self.target is not None and "forget_nll" in point:
            ratio = max(1e-9, point["forget_nll"]) / max(1e-9, self.target)
            nearness = -abs(math.log(ratio)) + (REACHED if ratio >= 1 else 0.0)
        return 1e3 * self._bar(point) + nearness

    def state(self) -> dict[str, Any]:
        return {
            "curve": self.curve,
            "best": self.best if math.isfinite(self.best) else None,
            "best_step": self.best_step,
            "near": self.near,
            "level": self.level,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        self.curve, self.best_step = list(state["curve"]), state["best_step"]
        self.near, self.level = state["near"], state["level"]
        self.best = -math.inf if state["best"] is None else state["best"]
