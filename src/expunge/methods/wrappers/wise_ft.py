"""Interpolation between the model before and the model after the inner method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any, Literal

from annotated_types import Ge, Gt, Le
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Example, Method, MethodCard, Model
from expunge.core.errors import BadInput
from expunge.core.random import derive
from expunge.core.words import WordTokenizer
from expunge.data.examples import answer_of, identity
from expunge.data.sampling import halves, sample
from expunge.methods._line_search import FORGET_SAMPLE, Goal
from expunge.methods.wrappers._change import change_of
from expunge.training.checkpoint import restore

CARD = MethodCard(
    "WiSE-FT: interpolated weights",
    paper="arXiv:2109.01903",
    equation="(1 - share) before + share after",
    needs={"forget": ()},
    optional=("retain",),
    wraps={"weights"},
    means="Gives back what must stay at the price of what had to go: the forget set is known again in part.",
    shown="On three small worlds, by answers and around NPO beside distillation, .95 of the held-out probability and "
    "ROUGE-L are left and the answers are gone. By NLL it keeps about what NPO's own stop keeps (two worlds).",
    fidelity="variant",
    leaves_out="the average over shares chosen on test data: one share is chosen on samples of forget and retain",
)
RECIPE = {"inner": "npo"}
Until = Literal["nll", "answers"]
Rouge = Callable[[str, str], float]
"""(the true answer, another) -> the share of its words that the other has, in order."""


class WiseFt(Method):
    """The method of wise_ft()."""

    def __init__(self, inner: Method, points: int, share: float | None, until: Until, slack: float) -> None:
        super().__init__()
        self.inner, self.points, self.share, self.until, self.slack = inner, points, share, until, slack
        self.optional = ("holdout",) if share is None and until == "answers" else ()

    def fits(
        self, model: Any, splits: Mapping[str, Sequence[Example]], manifest: Mapping[str, Any] | None
    ) -> list[str]:
        if self.share is None and not splits.get("retain"):
            fix = "add retain: FILE, or give the share"
            raise BadInput.of("retain", "", "is missing, and wise_ft looks for its share on it", fix)
        if self.share is None and self.until == "answers" and "generate" not in model.capabilities:
            why = "compares answers in words, which this model does not write"
            raise BadInput.of("method.wise_ft.until", self.until, why, "take until: nll")
        return self.inner.fits(model, splits, manifest)

    def __call__(self, model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        by_nll = self.share is None and self.until == "nll"
        goal = Goal.of(model, splits, context) if by_nll else None
        answers = Answers.of(model, splits, context, self.slack) if self.share is None and not by_nll else None
        before, after = change_of(self.inner, model, splits, context)

        def put(share: float) -> None:
            restore(model.module, interpolate(before, after, share), "")

        if answers is not None:
            context.notes["wise_ft"] = answers.least_share(model, put, self.points)
            return model
        if goal is None:
            assert self.share is not None
            put(self.share)
            context.notes["wise_ft"] = {"strength": self.share}
            return model
        measured = []
        for i in range(self.points):
            put((i + 1) / self.points)
            measured.append(goal.measure(model, (i + 1) / self.points))
        best = min(filter(goal.holds, measured), key=goal.rank, default=None)
        if best:
            put(best.strength)
        else:  # not by a share of 0: weights that are not finite would stay so
            restore(model.module, before, "")
        context.notes["wise_ft"] = dataclasses.asdict(best) if best else {"strength": 0.0}
        return model


@dataclasses.dataclass(frozen=True)
class Answers:
    """The forget examples whose answers are to go, and the ROUGE-L recall at which they are as good as gone."""

    forget: Sequence[Example]
    level: float
    rouge: Rouge
    before: float
    """Recall of the forget answers before the change."""

    @classmethod
    def of(cls, model: Model, splits: Mapping[str, Sequence[Example]], context: Context, slack: float) -> Answers:
        """The level is `slack` times that of answers about what the model never saw: half of the holdout, before the
        change.

        Without a holdout it is what one gets who answers with a retain example's answer, whichever.
        """
        rouge, forget = _rouge(), sample(splits["forget"], context.seed, FORGET_SAMPLE)
        before = _recall(forget, model.generate(forget), rouge)
        if splits.get("holdout"):
            unseen = sample(halves(splits["holdout"], context.seed)[0], context.seed, FORGET_SAMPLE)
            return cls(forget, slack * _recall(unseen, model.generate(unseen), rouge), rouge, before)
        retain = splits["retain"]
        others = [answer_of(retain[derive(0, "other", identity(row)) % len(retain)]) for row in forget]
        return cls(forget, slack * _recall(forget, others, rouge), rouge, before)

    def least_share(self, model: Model, put: Callable[[float], None], points: int) -> dict[str, float]:
        """Put the model at the least multiple of 1/points that is at the level; at the whole change where none is, and
        where the answers were there before it, as those of plain texts are: then words do not tell what was forgotten.

        Recall falls with the share, so that halving finds it.
        """
        recall: dict[int, float] = {}

        def is_gone(i: int) -> bool:
            put(i / points)
            recall[i] = _recall(self.forget, model.generate(self.forget), self.rouge)
            return recall[i] <= self.level

        low, high = (0, points) if self.before > self.level else (points, points)
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if is_gone(middle) else (middle, high)
        if high not in recall:
            is_gone(high)
        put(high / points)
        return {"strength": high / points, "rouge_l": recall[high], "level": self.level}


def _rouge() -> Rouge:
    from rouge_score.rouge_scorer import RougeScorer  # heavy, and `expunge list` imports every wrapper

    scorer = RougeScorer(["rougeL"], tokenizer=WordTokenizer(stem=True))
    return lambda true, other: float(scorer.score(true, other)["rougeL"].recall)


def _recall(rows: Sequence[Example], texts: Sequence[str], rouge: Rouge) -> float:
    return sum(rouge(answer_of(row), text) for row, text in zip(rows, texts, strict=True)) / max(1, len(rows))


def wise_ft(
    *,
    inner: Method,
    points: Annotated[int, Ge(1)] = 10,
    share: Annotated[float, Gt(0), Le(1)] | None = None,
    until: Until = "nll",
    slack: Annotated[float, Ge(1), Le(2)] = 1.0,
) -> Method:
    """Run the inner method, and keep the share of its change that comes nearest to the target with the floor held.

    theta_before + s (theta_after - theta_before), s = 1/points, ..., 1, or the share that is given. Target and floor
    are those of the budget: the forget NLL of the holdout or of gold where it stops there, else blind guessing; the
    share of utility on retain. If no share holds the floor, the model is as before. until: answers takes the least
    share at which the forget answers are in ROUGE-L recall no nearer to the true ones than those about examples that
    nobody learned (half of the holdout, before the change; else a retain example's answer in the place of each), or
    `slack` times as near.
    """
    if slack != 1 and (share is not None or until != "answers"):
        fix = "leave slack out, or look for the share by until: answers"
        raise BadInput.of("method.wise_ft.slack", slack, "has no effect without a search by answers", fix)
    return WiseFt(inner, points, share, until, slack)


def interpolate(before: Mapping[str, Tensor], after: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """The weights at a share of the way: 0 is before, 1 after; what is not a floating-point number is as after."""
    return {
        name: value.double().lerp(after[name].double(), share).to(value.dtype)
        if value.is_floating_point()
        else after[name]
        for name, value in before.items()
    }
