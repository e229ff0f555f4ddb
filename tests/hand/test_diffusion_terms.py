"""Terms, edits and figures of diffusion models, worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from expunge.core.contracts import Output, Reference, Step
from expunge.core.errors import BadInput
from expunge.data.examples import identity
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import NotMeasured
from expunge.methods.edits.uce import edit_weight, states_of
from expunge.methods.objectives.concept_ablation import concept_ablation
from expunge.methods.objectives.erase_diff import erase_diff
from expunge.methods.objectives.esd import esd
from expunge.methods.objectives.random_condition import random_condition
from expunge.methods.objectives.selective_amnesia import selective_amnesia
from expunge.methods.updates.adv_unlearn import BackToClass
from expunge.methods.updates.barrier import factor_of
from expunge.methods.updates.concept_preserving import projection
from expunge.metrics.concept_rate import concept_rate
from expunge.metrics.judge_agreement import judge_agreement
from expunge.metrics.picture_distance import frechet
from expunge.models.build import fresh
from expunge.pipeline.hidden_knowledge import gaps_to_gold

TEXTS = {"diffusion": "text2pixels", "side": 4, "widths": [4, 8], "times": 5, "text_width": 4}
PREDICTION = "conv_out"
"""The layer of the predicted noise."""


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


def test_an_unjudged_picture_counts_as_known_and_as_unknown_to_gold() -> None:
    """Two of four unknown: the gap is 1 for each of them, and as seen for the others; gold's unknown counts as 0."""
    half = replace(readout([0.0] * 4), known_N=np.array([np.nan, 0.0, np.nan, 0.5]))
    gold = replace(readout([0.0] * 4, role="gold"), known_N=np.array([0.0, 0.5, np.nan, 0.5]))
    (gap_N,) = gaps_to_gold({}, {}, half, gold).values()
    assert gap_N.tolist() == [1.0, -0.5, 1.0, 0.0]


def test_uniform_noise_is_what_erase_diff_adds() -> None:
    model = fresh({"diffusion": "unet2d", "widths": [4], "groups": 2, "times": 5}, [], 0)
    row = {"image": np.zeros((8, 8), np.float32), "label": 1, "draw": 3}
    (stream,) = erase_diff().streams.values()
    made = stream.make(row)
    usual, other = (model.collate([one]).inputs["noise"] for one in (row, made))
    assert usual.min() < 0 and 0 <= other.min() and other.max() <= 1 and 0.3 < float(other.mean()) < 0.7
    assert float(erase_diff()(step(uniform=output([[0.0], [0.0]], nll=[3.0, 5.0])))) == pytest.approx(2.0)


def test_a_step_under_the_barrier_lowers_the_forget_loss() -> None:
    """Forget (2, 0), retain (-1, 1): the inner product is -2, |forget|^2 4, so the factor is 1 + .5, and the step
    (2, 1) has the product 4 with forget: eta 4 exactly. Where retain pulls with forget by more, nothing is added."""
    forget, retain = torch.tensor([2.0, 0.0]), torch.tensor([-1.0, 1.0])
    factor = factor_of([forget], [retain], 1.0)
    assert factor == pytest.approx(1.5) and float((retain + factor * forget) @ forget) == pytest.approx(4.0)
    assert factor_of([forget], [torch.tensor([4.0, 0.0])], 1.0) == 0.0
    assert factor_of([None], [retain], 1.0) == 0.0 and factor_of([0 * forget], [retain], 1.0) == 0.0


def test_what_opposes_retain_is_taken_off() -> None:
    """Forget (-1, 1) against retain (2, 0): -2 / 4 of retain goes, which leaves (0, 1). Orthogonal or equal gradients
    stay as they are."""
    forget, retain = torch.tensor([-1.0, 1.0]), torch.tensor([2.0, 0.0])
    factor = projection([forget], [retain])
    assert factor == pytest.approx(-0.5) and (forget - factor * retain).tolist() == pytest.approx([0.0, 1.0])
    assert projection([torch.tensor([0.0, 3.0])], [retain]) == projection([retain], [retain]) == 0.0
    assert projection([None], [retain]) == projection([forget], [None]) == projection([forget], [0 * retain]) == 0.0


def test_an_ablated_concept_is_predicted_as_the_other_picture_was() -> None:
    """Now (2, 2), the anchor then (1, 0): (1 + 4) / 2. The asked picture is the anchor's, under the concept's label."""
    term = concept_ablation()
    made = step(asked=output([[2.0, 2.0]]), anchor=output([[9.0, 9.0]], [[1.0, 0.0]]))
    assert float(term(made)) == pytest.approx(2.5)
    mine = {"image": np.zeros((2, 2), np.float32), "label": 3}
    term.pictures = {identity(mine): {"image": np.ones((2, 2), np.float32), "label": 5}}  # type: ignore[attr-defined]
    asked, anchor = (stream.make(mine) for stream in term.streams.values())  # type: ignore[union-attr, misc]
    assert asked["label"] == 3 and anchor["label"] == 5 and asked["image"].min() == anchor["image"].min() == 1


def test_amnesia_pulls_by_what_the_others_need() -> None:
    """Noise costs 8 / 4 nats per pixel; one weight moved by .5 and needed by 4: .5 strength 4 .25."""
    term = selective_amnesia(strength=3.0)
    term.module = torch.nn.Linear(1, 1, bias=False)  # type: ignore[attr-defined]
    (weight,) = term.module.parameters()  # type: ignore[attr-defined]
    term.need, term.wanted = {"weight": torch.tensor([[4.0]])}, {"weight": weight.detach() - 0.5}  # type: ignore[attr-defined]
    made = step(noise=output([[0.0], [0.0]], nll=[3.0, 5.0]))
    assert float(term(made).detach()) == pytest.approx(2.0 + 0.5 * 3.0 * 4.0 * 0.25)


def test_the_adversary_goes_back_to_what_was_predicted() -> None:
    """Now (1, 3), then (0, 1): (1 + 4) / 2."""
    assert float(BackToClass()(step(forget=output([[1.0, 3.0]], [[0.0, 1.0]])))) == pytest.approx(2.5)


def test_uce_maps_a_concept_and_keeps_what_it_must() -> None:
    """W0 = 1 in two dimensions; c along the first, its target v along the second, p (0, 2). As the pull fades, W c is
    W0 v and W p stays; at strength 1 the first column is (1, 1) / (1 + 1) and the second unchanged."""
    c, v, p = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([[0.0, 2.0]])
    near = edit_weight(torch.eye(2), c, v, p, 1e-9)
    torch.testing.assert_close(near @ c[0], v[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(near @ p[0], p[0], atol=1e-6, rtol=0)
    torch.testing.assert_close(edit_weight(torch.eye(2), c, v, p, 1.0), torch.tensor([[0.5, 0.0], [0.5, 1.0]]))


def test_a_prompt_s_last_word_is_edited_and_kept() -> None:
    """ "a red disc" against "a red cross" and "one blue disc": the third word, after the token of the beginning."""
    model: Any = fresh(TEXTS, [{"class_prompt": "a red disc"}, {"class_prompt": "one blue cross"}], 0)
    asked, kept = [model.tokens("a red disc")], [model.tokens("a red cross"), model.tokens("one blue disc")]
    concept, target, others = states_of(model, asked, kept, model.tokens(""))
    assert concept.shape == target.shape == (1, 4) and others.shape == (2, 4)
    torch.testing.assert_close(concept[0], model.module.states(asked[0][None])[0, 3])
    torch.testing.assert_close(others[1], model.module.states(kept[1][None])[0, 3])
    nothing = model.tokens("")
    torch.testing.assert_close(target[0], model.module.states(nothing[None])[0, 3])
    guide = model.tokens("blue cross")  # shorter than the prompt: its own last word counts
    torch.testing.assert_close(states_of(model, asked, kept, guide)[1][0], model.module.states(guide[None])[0, 2])
    with pytest.raises(BadInput, match="nothing would change"):
        states_of(model, asked, [*kept, *asked], nothing)


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
