"""Attributions to blocks of rows by hand, and what datamodel matching makes of them."""

from __future__ import annotations

import pytest
import torch

from expunge.core.contracts import Output, Step
from expunge.methods.objectives.dmm import RIDGE, DatamodelMatching, attribute, centre, cut, dmm, draw_halves


def test_a_linear_output_is_attributed_to_the_part_that_adds_to_it() -> None:
    """Outputs 5 + 3 where part 0 is in - 1 where part 1 is in; indicators are orthogonal over four models, so that each
    attribution is shrunk by 1 + the ridge's share alone."""
    half_KG = torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
    is_in = half_KG > 0
    output_KNV = (5 + 3.0 * is_in[:, 0] - 1.0 * is_in[:, 1])[:, None, None]
    added = attribute(half_KG, output_KNV).flatten().tolist()
    assert added == pytest.approx([3 / (1 + RIDGE), -1 / (1 + RIDGE)])


def test_parts_are_near_equal_and_each_is_in_half_of_the_models() -> None:
    draws = torch.Generator().manual_seed(0)
    rows = [{"label": i} for i in range(7)]
    parts = cut(rows, 3, draws)
    assert sorted(map(len, parts)) == [2, 2, 3]
    assert sorted(row["label"] for part in parts for row in part) == list(range(7))
    assert len(cut(rows[:2], 3, draws)) == 2
    half_KG = draw_halves(8, 5, draws)
    assert half_KG.sum(0).tolist() == [0.0] * 5
    assert bool((half_KG > 0).any(1).all())


def test_outputs_are_logits_up_to_a_shift() -> None:
    logits = torch.tensor([[1.0, 2.0, 6.0]])
    assert centre(logits).tolist() == [[-2.0, -1.0, 3.0]]
    assert centre(logits + 5).tolist() == centre(logits).tolist()


def test_the_loss_is_the_squared_distance_from_the_targets() -> None:
    """Logits (2, 0) are (1, -1) less their mean: from targets of (0, 0) a mean square of 1, from (3, -1)
    one of 2; forget's mean over its rows, (1 + 2) / 2, and retain's, 1, add up to 2.5."""
    loss = dmm()
    assert isinstance(loss, DatamodelMatching)
    loss.targets = {"forget": torch.tensor([[0.0, 0.0], [3.0, -1.0]]), "retain": torch.zeros(1, 2)}
    loss.places = {"forget": {4: 0, 9: 1}, "retain": {0: 0}}

    def output(indices: tuple[int, ...]) -> Output:
        ones_B1 = torch.ones(len(indices), 1, dtype=torch.long)
        logits_BTV = torch.tensor([[[2.0, 0.0]]]).repeat(len(indices), 1, 1)
        return Output(None, ones_B1[:, 0], ones_B1, ones_B1.bool(), logits_BTV=logits_BTV, indices=indices)  # type: ignore[arg-type]

    outputs = {"forget": output((4, 9)), "retain": output((0,))}
    step = Step(outputs, index=0, epoch=0, generator=torch.Generator().manual_seed(0))
    assert float(loss(step)) == pytest.approx(2.5)
