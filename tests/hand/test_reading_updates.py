"""What is read off a client's update, worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from expunge.attacks.inverted import first_layer, likeness, rows_in
from expunge.evaluation.scores import NotMeasured
from expunge.methods._history import Kept
from expunge.training.updates import ClientUpdate

ROW = torch.tensor([0.2, 0.9, -0.4])


def update(name: str, rows: torch.Tensor, before: dict[str, torch.Tensor]) -> ClientUpdate:
    """A client that took one step of SGD on rows of one class."""
    net = nn.Linear(3, 2)
    net.load_state_dict(before)
    nn.functional.cross_entropy(net(rows), torch.zeros(len(rows), dtype=torch.long)).backward()
    moved = {key: p.detach() - 0.1 * p.grad for key, p in net.named_parameters()}  # type: ignore[operator]
    return ClientUpdate(name, moved, len(rows))


def test_one_step_on_one_row_gives_that_row() -> None:
    """The gradient of a unit's weights is the row times that of its bias: each unit gives the row itself; other
    clients' updates are not read."""
    before = {"weight": torch.zeros(2, 3), "bias": torch.zeros(2)}
    kept = [Kept(1, before, [update("a", ROW[None], before), update("b", torch.ones(1, 3), before)])]
    read = rows_in(kept, {"a"}, "")
    assert read == pytest.approx(np.stack([ROW, ROW]), abs=1e-5)
    assert rows_in(kept, {"c"}, "").shape == (0, 0)
    both = torch.stack([ROW, torch.tensor([1.0, 0.1, 0.0])])
    mean = rows_in([Kept(1, before, [update("a", both, before)])], {"a"}, "")
    assert mean == pytest.approx(np.stack([both.mean(0)] * 2), abs=1e-5), "of alike errors the plain mean"


def test_likeness_is_the_best_correlation() -> None:
    """A row against itself, against minus itself, and against one without a correlation: 1, 1, and 0."""
    row = np.array([[1.0, 2.0, 3.0]])
    assert likeness(row, np.array([[2.0, 4.0, 6.0]])) == pytest.approx([1.0])
    assert likeness(row, np.array([[3.0, 2.0, 1.0]])) == pytest.approx([1.0])
    assert likeness(row, np.array([[1.0, 0.0, 1.0]])) == pytest.approx([0.0], abs=1e-12)
    with pytest.raises(NotMeasured, match="as they are"):
        likeness(row, np.ones((1, 4)))


def test_the_first_layer_must_be_linear() -> None:
    assert first_layer(nn.Sequential(nn.Flatten(), nn.Linear(3, 2))) == "1"
    for net in (nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(3, 2)), nn.Linear(3, 2, bias=False)):
        with pytest.raises(NotMeasured, match="not linear with a bias"):
            first_layer(net)
