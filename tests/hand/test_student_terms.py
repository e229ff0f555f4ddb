"""Score forgetting distillation and FreezeAsGuard, worked out by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.contracts import Batch, Output, Want
from expunge.core.errors import BadInput
from expunge.methods.edits.score_distillation import (
    NOISE,
    Distillation,
    distance,
    score_distillation,
    time_of,
    wanted_classes,
)
from expunge.methods.weights.freeze_guard import User, freeze_guard, learn_masks
from expunge.models.build import fresh

SPEC = {"diffusion": "unet2d", "widths": [4], "groups": 2, "times": 10}


def test_the_distance_of_scores() -> None:
    """Real 3, fake 1, drawn 2: (3 - 1) ((3 - 2) - 1.2 (3 - 1)) / |3 - 2| = 2 (-1.4) = -2.8; of equal scores 0."""
    real, fake, drawn = (torch.full((2, 1, 2, 2), value) for value in (3.0, 1.0, 2.0))
    assert float(distance(real, fake, drawn, 1.2)) == pytest.approx(-2.8)
    assert float(distance(real, real, drawn, 1.2)) == 0.0


def test_no_gradient_passes_the_weight_of_the_distance() -> None:
    """With real - fake held at 2 and alpha 1, d/dx of 2 ((3 - x) - 2) / w is -2 / w: at x = 2, w = 1, -2."""
    drawn = torch.full((1, 1, 1, 1), 2.0, requires_grad=True)
    distance(torch.full((1, 1, 1, 1), 3.0), torch.ones(1, 1, 1, 1), drawn, 1.0).backward()
    assert float(drawn.grad) == pytest.approx(-2.0)  # type: ignore[arg-type]


def test_noise_has_another_time_under_another_schedule() -> None:
    """The paper's times 38, 440 and 712 of a linear schedule of 1,000; under a squared cosine, where noise s against
    the picture stands at the share (2 / pi) atan(s), 86, 757 and 950."""
    from diffusers import DDPMScheduler

    levels = (NOISE[0], 2.5, NOISE[1])
    linear: Any = DDPMScheduler(beta_start=1e-4, beta_end=0.02)
    cosine: Any = DDPMScheduler(beta_schedule="squaredcos_cap_v2")
    assert [time_of(linear, level) for level in levels] == pytest.approx([38, 440, 712], abs=2)
    assert [time_of(cosine, level) for level in levels] == pytest.approx([86, 757, 950], abs=12)


def test_the_mean_keeps_a_share_of_itself() -> None:
    """At 2, with the student at 10, half kept: 6."""
    own, mean = nn.Linear(1, 1, bias=False), nn.Linear(1, 1, bias=False)
    nn.init.constant_(own.weight, 10.0)
    nn.init.constant_(mean.weight, 2.0)
    Distillation(None, own, own, own, mean, torch.Generator(), 1.2).average(0.5)
    assert mean.weight.item() == pytest.approx(6.0)


def test_a_forgotten_class_is_asked_for_as_the_next_that_stays() -> None:
    model: Any = fresh(SPEC, [], 0)
    assert wanted_classes(model, [3, 4], None).tolist() == [0, 1, 2, 5, 5, 5, 6, 7, 8, 9]
    assert wanted_classes(model, [9], None).tolist()[9] == 0 and wanted_classes(model, [1], 7).tolist()[1] == 7
    with pytest.raises(BadInput, match="is no class that stays"):
        wanted_classes(model, [3], 3)
    with pytest.raises(BadInput, match="all are forgotten"):
        wanted_classes(model, list(range(10)), None)


def test_a_student_draws_in_one_step_and_keeps_it_in_its_folder(tmp_path: Path) -> None:
    """Of no steps it is the teacher, who draws in many."""
    model: Any = fresh(SPEC, [], 0)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    for steps in (0, 1):
        context = Context(Budget(steps=steps, batch_size=4, learning_rate=1e-3), tmp_path / str(steps))
        score_distillation()(model, {"forget": [{"label": 3}]}, context)  # type: ignore[operator]
        same = all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())
        assert same == (steps == 0) and model.conditions.get("one_step") == (7 if steps else None)
    assert all(p.requires_grad and p.grad is None for p in model.module.parameters())


def test_a_user_s_steps_count_by_what_the_masks_leave(tmp_path: Path) -> None:
    """A first step of Adam goes as far as its rate, .1, whatever the slope; of a tensor of m 1 nothing is left, and m 0
    leaves all. The next step goes on from there."""
    rows = {"forget": [{"name": "own"}], "retain": [{"name": "other"}]}
    user = User(Two(), rows, Context(Budget(), tmp_path), 0.1)  # type: ignore[arg-type]
    masks = {"own": torch.tensor(0.0), "other": torch.tensor(0.5)}
    user.move(masks, 1)
    assert user.model.module["own"].item() == pytest.approx(0.1)  # type: ignore[operator]
    assert user.model.module["other"].item() == pytest.approx(0.05)  # type: ignore[operator]
    user.move(masks, 1)
    assert user.moved["own"].item() > 0.19
    user.put({"own": torch.tensor(1.0), "other": torch.tensor(0.0)})
    assert user.model.module["own"].item() == 0.0  # type: ignore[operator]


class Two:
    """Two weights, of which the forget rows need the first alone and the retain rows the second."""

    stochastic = False

    def __init__(self) -> None:
        self.module = nn.ParameterDict({"own": torch.zeros(1), "other": torch.zeros(1)})

    def collate(self, rows: Any) -> Any:
        return [row["name"] for row in rows]

    def forward(self, names: Any, want: Want | None = None) -> Output:
        """Squared distance from 1."""
        nll_B = torch.stack([(self.module[name] - 1).square().sum() for name in names])
        one = torch.ones(len(names), 1)
        batch = Batch.of_examples({}, torch.zeros(len(names)).long())
        return Output(nll_B, batch.n_B, one.long(), one.bool())


def test_what_the_forget_set_alone_needs_is_frozen(tmp_path: Path) -> None:
    """Its mask goes up, the other's down, and the weights come back; one tensor is always left free."""
    model: Any = Two()
    splits = {"forget": [{"name": "own"}] * 3, "retain": [{"name": "other"}] * 3}
    first, last = (
        learn_masks(
            User(model, splits, Context(Budget(), tmp_path / "a"), 0.1), 2, rounds, 2, mask_rate=0.5, temperature=0.2
        )
        for rounds in (1, 8)
    )
    assert float(last["own"]) > float(first["own"]) and float(last["other"]) < float(first["other"])
    assert all(float(p) == 0.0 for p in model.module.values())
    context = Context(Budget(), tmp_path / "b")
    chosen = freeze_guard(share=0.5, adapted=2, rounds=8, moves=2, rate=0.1)(model, splits, context)
    assert list(chosen.parameters) == ["other"] and context.notes["frozen"] == ["own"]
    assert list(freeze_guard(share=0.9, rounds=1)(model, splits, Context(Budget(), tmp_path / "c")).parameters)
