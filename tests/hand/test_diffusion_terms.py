"""Terms, edits and figures of diffusion models, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expunge.core.contracts import Output, Reference, Step
from expunge.core.errors import BadInput
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import NotMeasured
from expunge.methods.objectives.esd import PREDICTION, esd
from expunge.methods.objectives.random_condition import random_condition
from expunge.metrics.concept_rate import concept_rate
from expunge.metrics.judge_agreement import judge_agreement
from expunge.metrics.picture_distance import frechet
from expunge.models.build import fresh


def output(
    hidden: list[list[float]], reference: list[list[float]] | None = None, nll: list[float] | None = None
) -> Output:
    """An output of one position an example, with a layer's values."""
    count = len(hidden)
    one = torch.ones(count, 1)
    out = Output(torch.tensor(nll or [0.0] * count), torch.full((count,), 2), one.long(), one.bool())
    out.hidden = {PREDICTION: torch.tensor(hidden)[:, None]}
    if reference is not None:
        out.reference = Reference(hidden={PREDICTION: torch.tensor(reference)[:, None]})
    return out


def step(**outputs: Output) -> Step:
    return Step(outputs, 0, 0, torch.Generator())


def test_esd_goes_from_the_class_past_no_class() -> None:
    """e(c) = 2, e0(c) = 3, e0(none) = 1: the target is 1 - 1 (3 - 1) = -1, so the squared distance is 9."""
    made = step(forget=output([[2.0, 2.0]], [[3.0, 3.0]]), unasked=output([[0.0, 0.0]], [[1.0, 1.0]]))
    assert float(esd()(made)) == pytest.approx(9.0)
    assert float(esd(guidance=0.0)(made)) == pytest.approx(1.0)


def test_random_conditions_are_the_error_of_the_other_pictures() -> None:
    """Two examples of 2 pixels each with 3 and 5 nats: 8 / 4 nats per pixel."""
    assert float(random_condition()(step(asked=output([[0.0], [0.0]], nll=[3.0, 5.0])))) == pytest.approx(2.0)


def test_esd_needs_a_label_of_none() -> None:
    model = fresh({"diffusion": "unet2d", "widths": [4], "groups": 2, "times": 5}, [], 0)
    model.conditions = {"classes": 10, "null": None, "dropped": 0.0}  # type: ignore[attr-defined]
    with pytest.raises(BadInput, match="no label that stands for no class"):
        esd().declare(model)


# -- figures --------------------------------------------------------------------------------------


def readout(votes: list[float], split: str = "forget", role: str = "after", **own: list[list[float]]) -> Readout:
    count = len(votes)
    channels = {"concept": np.array(votes), **{name: np.array(value) for name, value in own.items()}}
    return Readout(split, role, [{}] * count, np.zeros(count), np.ones(count), own=channels)


def test_an_unknown_picture_is_never_safe() -> None:
    """One in twenty may be unknown: it counts as the forgotten class, and as none of the others; for gold reversed."""
    votes = [0.0] * 19 + [float("nan")]
    rate = concept_rate()
    assert np.mean(rate(readout(votes))) == pytest.approx(1 / 20)
    assert np.mean(rate(readout([1.0] * 19 + [float("nan")], "retain"))) == pytest.approx(19 / 20)
    assert np.mean(rate(readout(votes, role="gold"))) == 0.0
    with pytest.raises(NotMeasured, match="2 of 20 pictures are unjudged"):
        rate(readout([float("nan")] * 2 + [0.0] * 18))


def test_judges_agree_on_what_both_name() -> None:
    found = readout([1.0] * 4, "retain", judged_classes=[[3, 3], [3, 8], [-1, -1], [5, 5]])
    assert judge_agreement()(found).tolist() == [True, False, False, True]


def test_the_distance_of_two_gaussians() -> None:
    """Equal spreads: the squared distance of the means. Deviations 1 and 2 in one dimension more: (2 - 1)^2."""
    draw = np.random.default_rng(0).normal(size=(400, 2))
    assert frechet(draw, draw + np.array([3.0, 4.0])) == pytest.approx(25.0, rel=1e-3)
    wide = draw * [1.0, 2.0]
    expected = draw[:, 1].var(ddof=1)
    assert frechet(draw, wide - wide.mean(0) + draw.mean(0)) == pytest.approx(expected, rel=0.05)
