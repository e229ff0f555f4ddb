"""A relearning attack: teach the model something, and measure what else comes back."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from expunge.attacks.shared.recovery import STEPS, answer_probability, figure_of, teach
from expunge.core.card import Example
from expunge.core.random import permutation
from expunge.evaluation.arrays import only
from expunge.evaluation.attack import Found, Target
from expunge.evaluation.implied import LEARNED
from expunge.evaluation.intervals import mean
from expunge.evaluation.scores import Figure, NotMeasured

RATE_SHARES = (0.1, 0.3, 1.0)
"""The attack's learning rates, as shares of the model's own: the first changes most models without wrecking them, and
the next is tried, by an attack with a control, only where the last one did not teach what was to be learned."""


def relearn(
    target: Target,
    taught: Sequence[Example],
    counts_N: np.ndarray,
    *,
    steps: int = STEPS,
    every: int = 6,
    batch: int = 16,
    control: bool = False,
) -> Found:
    """Fine-tune on `taught`; at every check, measure the knowledge of the forget examples that count.

    The figure is the mean knowledge at the check where it is highest (the attacker's best moment, for every model
    alike), step 0 included. control: add `learned`, how much of what was unknown of the taught examples is known at
    the end: an attack that taught nothing finds nothing.
    """
    rows = [row for row, counts in zip(target.forget, counts_N, strict=True) if counts]
    if not rows:
        raise NotMeasured("no forget example is left to ask for")
    start, best = target.plain[target.role][counts_N], target.plain[target.role][counts_N]
    more: dict[str, tuple[str, str, Figure]] = {}
    for share in RATE_SHARES:
        points = [(0, start)]
        with target.disposable() as model:
            first_T = answer_probability(model, taught) if control else np.zeros(0)
            for step in teach(
                model,
                taught,
                steps=steps,
                rate=target.rate * share,
                seed=target.derive("relearn"),
                every=every,
                batch=batch,
            ):
                points.append((step, answer_probability(model, rows)))
            learned = _learned_share(first_T, answer_probability(model, taught)) if control else None
        _, best = max([(0, best), *points], key=lambda point: float(point[1].mean()))
        if learned is None:
            break
        more["learned"] = "share", "higher", learned
        if (learned.value or 0.0) >= LEARNED:
            break
    recovered_N = np.zeros(len(counts_N))
    recovered_N[counts_N] = best
    recovered_N = only(recovered_N, counts_N)
    curve = [{"x": step, "value": float(values.mean())} for step, values in points]
    why = f"taught {len(taught)} examples, {steps} steps"
    return Found(figure_of(recovered_N, why), recovered_N, steps_to_half(target, counts_N, curve) | more, curve)


def _learned_share(first_T: np.ndarray, last_T: np.ndarray) -> Figure:
    """The gain in knowledge of [T] taught examples, of what there was to gain; 1 where all was known already."""
    share_T = np.where(first_T < 1 - 1e-6, (last_T - first_T) / np.maximum(1e-6, 1 - first_T), 1.0)
    return Figure(*mean(np.clip(share_T, 0.0, 1.0), 0.0, 1.0), len(share_T))


def steps_to_half(
    target: Target, counts_N: np.ndarray, curve: Sequence[dict[str, float]]
) -> dict[str, tuple[str, str, Figure]]:
    """The score "steps": the step at which half of the knowledge is back.

    Half is halfway from gold's to the model's before the change, on the same examples. Where it never comes back, the
    count is that of all steps and the score says so. Empty where the knowledge before the change is unknown.
    """
    if "before" not in target.plain:
        return {}
    most = float(target.plain["before"][counts_N].mean())
    least = float(target.plain["gold"][counts_N].mean()) if "gold" in target.plain else 0.0
    half = (most + least) / 2
    reached = next((point["x"] for point in curve if point["value"] >= half), None)
    why = f"half is {half:.2f}" if reached is not None else f"at least: half ({half:.2f}) is not back by then"
    steps = curve[-1]["x"] if reached is None else reached
    return {"steps": ("steps", "higher", Figure(float(steps), None, None, int(counts_N.sum()), why=why))}


def taught_examples(target: Target, share: float) -> tuple[list[Example], np.ndarray]:
    """(a seeded share of the forget set, which is taught; [N] whether an example was not taught, and so counts)."""
    n = len(target.forget)
    if n < 2:
        raise NotMeasured("one forget example cannot be both taught and asked for")
    taught = permutation(n, target.derive("relearn_forget"))[: max(1, min(n - 1, round(share * n)))]
    return [target.forget[i] for i in taught], ~np.isin(np.arange(n), taught)
