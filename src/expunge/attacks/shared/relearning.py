"""A relearning attack: teach the model something, and measure what else comes back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

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
FINER = 1.5
"""Factor from one rate to the next beyond gold's: at a rate that teaches everything, all models look alike."""


Course = list[tuple[int, np.ndarray]]
"""(step, [n] knowledge of the examples that count) at each check, step 0 first."""


def relearn(
    target: Target,
    taught: Sequence[Example],
    counts_N: np.ndarray,
    *,
    steps: int = STEPS,
    every: int = 6,
    batch: int = 16,
    control: str = "",
) -> Found:
    """Fine-tune on `taught`; at every check, measure the knowledge of the forget examples that count.

    The figure is the mean knowledge at the check where it is highest (the attacker's best moment, for every model
    alike), step 0 included. control: the attack's name, for one with a control. It adds `area`, the mean height of the
    curve, and `learned`, how much of what was unknown of the taught examples is known at the end, since an attack that
    taught nothing finds nothing, and goes up in its rate until a tenth is learned. A model that is compared with gold
    is attacked at gold's rate from the start, and gold models again where they took another than it: what comes back
    tells two models apart at one rate alone.
    """
    if not counts_N.any():
        raise NotMeasured("no forget example is left to ask for")
    lesson = _Lesson(taught, counts_N, steps, every, batch, control)
    for share in _rates(target.golds["gold"].strength(control) if "gold" in target.golds else 0.0):
        course, learned = lesson.teach(target, share)
        if (learned.value or 0.0) >= LEARNED:
            break
    golds = {}
    for role, gold in target.golds.items():
        if gold.open and gold.direct_N is not None and gold.strength(control) not in (0.0, share):
            plain = {**target.plain, role: gold.direct_N}
            again = replace(target, model=gold.open(), role=role, plain=plain, golds={})
            golds[role] = lesson.conclude(again, share, *lesson.teach(again, share), again=True)
    return replace(lesson.conclude(target, share, course, learned, again=bool(golds)), golds=golds)


@dataclass(frozen=True)
class _Lesson:
    """A fine-tuning, and the examples of which the knowledge counts."""

    taught: Sequence[Example]
    counts_N: np.ndarray
    steps: int
    every: int
    batch: int
    control: str

    def teach(self, of: Target, share: float) -> tuple[Course, Figure]:
        """(the course at this share of the model's own rate, the share learned of what was unknown)."""
        rows = [row for row, counts in zip(of.forget, self.counts_N, strict=True) if counts]
        course = [(0, of.plain[of.role][self.counts_N])]
        with of.disposable() as model:
            first_T = answer_probability(model, self.taught) if self.control else np.zeros(0)
            rate, seed = of.rate * share, of.derive("relearn")
            for step in teach(
                model, self.taught, steps=self.steps, rate=rate, seed=seed, every=self.every, batch=self.batch
            ):
                course.append((step, answer_probability(model, rows)))
            last_T = answer_probability(model, self.taught) if self.control else np.zeros(0)
        return course, _learned_share(first_T, last_T) if self.control else Figure(1.0, None, None, 0)

    def conclude(self, of: Target, share: float, course: Course, learned: Figure, *, again: bool) -> Found:
        """The result. again: at a rate that golds did not take by themselves."""
        curve = [{"x": step, "value": float(values.mean())} for step, values in course]
        more = steps_to_half(of, self.counts_N, curve)
        why = f"taught {len(self.taught)} examples, {self.steps} steps"
        if again:
            why += f", at {share:g} of the model's rate, to which the changed model had to go"
        recovered_N = _best(course, self.counts_N)
        if not self.control:
            return Found(figure_of(recovered_N, why), recovered_N, more, curve)
        area = figure_of(of_all(mean_heights(course), self.counts_N), why)
        more |= {"area": ("share", "gold", area), "learned": ("share", "higher", learned)}
        return Found(figure_of(recovered_N, why), recovered_N, more, curve, strength=share)


def _rates(least: float) -> tuple[float, ...]:
    """The rates to try, as shares of the model's own; from gold's on in finer steps."""
    if not least:
        return RATE_SHARES
    rates = [least]
    while rates[-1] * FINER < RATE_SHARES[-1]:
        rates.append(rates[-1] * FINER)
    return (*rates, RATE_SHARES[-1]) if rates[-1] < RATE_SHARES[-1] else tuple(rates)


def _best(course: Course, counts_N: np.ndarray) -> np.ndarray:
    """[N] the knowledge at the check with the highest mean, of the examples that count."""
    return of_all(max((values for _, values in course), key=lambda values: float(values.mean())), counts_N)


def of_all(values_n: np.ndarray, counts_N: np.ndarray) -> np.ndarray:
    """[N] the values of the examples that count, the others masked."""
    all_N = np.zeros(len(counts_N))
    all_N[counts_N] = values_n
    return only(all_N, counts_N)


def mean_heights(course: Course) -> np.ndarray:
    """[n] mean height of each example's curve over its steps, by trapezoids: the area under it, as a share. A curve of
    one point has its height."""
    steps = np.array([step for step, _ in course], dtype=float)
    values = np.stack([values for _, values in course])
    return values[0] if len(steps) == 1 else np.trapezoid(values, steps, axis=0) / (steps[-1] - steps[0])


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
