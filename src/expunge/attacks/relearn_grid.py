"""Relearning over a grid: all weights or an adapter, at three rates each."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt, Lt

from expunge.attacks.shared.recovery import (
    MEANS,
    STARTS_FROM_ASKING,
    STEPS,
    answer_probability,
    figure_of,
    teach,
)
from expunge.attacks.shared.relearning import Course, mean_heights, of_all, steps_to_half, taught_examples
from expunge.core.card import AttackCard, Example
from expunge.core.random import seed_libraries
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import Figure, NotMeasured
from expunge.models.adapters import insert, linear_targets
from expunge.models.guarded import bare_model
from expunge.models.weights import fold

CARD = AttackCard(
    "Relearning over rates and adapters",
    paper="arXiv:2406.13356",
    adversary="fine-tuning with part of the forget set, at rates of its choice",
    side="robustness",
    better="gold",
    unit="share",
    needs={"forget": {"examples"}},
    level="deep",
    more=("steps", "area"),
    passes=180,
    no_control=STARTS_FROM_ASKING,
    means=MEANS,
)
RATES = (0.1, 0.3, 1.0)
"""Learning rates of all weights, as shares of the model's own."""
ADAPTER_FACTOR = 10
"""An adapter learns at this many times the rate of all weights, as is usual (Hu et al. 2021)."""


def relearn_grid(
    *,
    share: Annotated[float, Gt(0), Lt(1)] = 0.25,
    steps: Annotated[int, Ge(1)] = STEPS,
    rank: Annotated[int, Gt(0)] = 8,
) -> Attack:
    """Relearn as `relearn_forget` does, in six settings, and let the attacker take the best (after Hu et al. 2024).

    All weights at a tenth, three tenths and the whole of the model's own rate; a LoRA adapter at ten times each. A
    setting that wrecks the model ends there. The figure is the mean knowledge at the best check of the best setting,
    named in the remark. `steps`: the fewest steps of any setting after which half of the knowledge is back. `area`: the
    mean height of the best setting's curve over its steps, so that two models' areas differ by the area between their
    curves.
    """

    def attack(target: Target) -> Found:
        taught, counts_N = taught_examples(target, share)
        rows = [row for row, counts in zip(target.forget, counts_N, strict=True) if counts]
        courses: dict[str, Course] = {}
        for name, adapter, rate in settings(target):
            first = (0, target.plain[target.role][counts_N])
            courses[name] = [first, *_course(target, taught, rows, rate, steps, rank if adapter else 0)]
        best = max(courses, key=lambda name: max(_heights(courses[name])))
        course, heights = courses[best], _heights(courses[best])
        top = int(np.argmax(heights))
        recovered_N, area_N = (of_all(values, counts_N) for values in (course[top][1], mean_heights(course)))
        why = f"most with {best}, {course[top][0]} of {steps} steps; taught {len(taught)} examples"
        curve = [{"x": step, "value": height} for (step, _), height in zip(course, heights, strict=True)]
        more = {"area": ("share", "gold", figure_of(area_N, f"with {best}"))} | _fewest_steps(target, counts_N, courses)
        return Found(figure_of(recovered_N, why), recovered_N, more, curve)

    return attack


def settings(target: Target) -> Iterator[tuple[str, bool, float]]:
    """(name, whether an adapter learns in place of all weights, learning rate)."""
    for part in RATES:
        yield f"all weights at {part:g} of the rate", False, part * target.rate
    if linear_targets(bare_model(target.model).module):
        for part in RATES:
            yield f"an adapter at {part * ADAPTER_FACTOR:g} times the rate", True, part * ADAPTER_FACTOR * target.rate


def _course(
    target: Target, taught: Sequence[Example], rows: Sequence[Example], rate: float, steps: int, rank: int
) -> Iterator[tuple[int, np.ndarray]]:
    """(step, [n] knowledge of the rows) at every check while the taught examples are learned. rank: 0 without an
    adapter."""
    with target.disposable() as model, _adapter(model, rank, target.derive("relearn_grid")):
        every, seed = max(1, steps // 4), target.derive("relearn")
        with contextlib.suppress(NotMeasured):  # the rate wrecked the model
            for step in teach(model, taught, steps=steps, rate=rate, seed=seed, every=every):
                yield step, answer_probability(model, rows)


@contextlib.contextmanager
def _adapter(model: Any, rank: int, seed: int) -> Iterator[None]:
    """A new LoRA adapter in the model while inside; none where rank is 0."""
    if not rank:
        yield
        return
    with torch.random.fork_rng(devices=[]):
        seed_libraries(seed, "lora")
        insert(model.module, rank=rank, alpha=2 * rank, dropout=0.0, targets=linear_targets(model.module))
        try:
            yield
        finally:
            fold(model.module)


def _heights(course: Course) -> list[float]:
    return [float(values.mean()) for _, values in course]


def _fewest_steps(
    target: Target, counts_N: np.ndarray, courses: dict[str, Course]
) -> dict[str, tuple[str, str, Figure]]:
    """The score "steps" of the setting that needs fewest; empty where the knowledge before the change is unknown."""
    found = []
    for name, course in courses.items():
        curve = [{"x": step, "value": height} for (step, _), height in zip(course, _heights(course), strict=True)]
        found += [(figure, name) for _, _, figure in steps_to_half(target, counts_N, curve).values()]
    if not found:
        return {}
    reached = [pair for pair in found if not pair[0].why.startswith("at least")]
    figure, name = min(reached, key=lambda pair: pair[0].value) if reached else max(found, key=lambda p: p[0].value)
    why = f"{figure.why}; with {name}" if reached else figure.why
    return {"steps": ("steps", "higher", Figure(figure.value, None, None, figure.n, why=why))}
