"""Training over parties with different columns: masks, sums, and the steps of central training."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.errors import BadInput
from expunge.core.random import permutation
from expunge.methods.trainers.vertical import Party, cut, residuals_of, train, unmask
from expunge.models.build import fresh

LINEAR = {"factory": "expunge.models.networks:Linear", "arguments": {"inputs": 7, "classes": 3}}
TABLE = np.random.default_rng(0).normal(size=(50, 7)).astype(np.float32)
ROWS = [{"features": x.tolist(), "label": i % 3} for i, x in enumerate(TABLE)]


def test_masks_hide_a_part_and_vanish_in_the_sum() -> None:
    """Each message is far from its part, another at each step; the three together are the sum to 2**-32."""
    columns, weights = np.array([[1.0, -2.0]]), np.array([[0.5, 0.25], [3.0, 1.0]])
    keys = [{1: 11, 2: 12}, {0: 11, 2: 13}, {0: 12, 1: 13}]
    members = [Party(i, columns, weights, keys[i]) for i in range(3)]
    first, second = ([party.send([0], step) for party in members] for step in (0, 1))
    assert np.abs(unmask(first) - 3 * np.array([[0.0, 1.0]])).max() < 2**-30
    assert all((one != other).all() for one, other in zip(first, second, strict=True))
    assert all(np.abs(message.view(np.int64) / 2.0**32 - [[0.0, 1.0]]).min() > 100 for message in first)


def test_residuals_are_softmax_less_one_hot() -> None:
    found = residuals_of(np.array([[0.0, 0.0], [np.log(3.0), 0.0]]), np.array([0, 1]))
    assert found == pytest.approx(np.array([[-0.25, 0.25], [0.375, -0.375]]))


@pytest.mark.parametrize("parties", [2, [1, 2, 4]])
def test_the_parties_make_the_model_of_central_training(parties: int | list[int], tmp_path: Path) -> None:
    """Three passes in batches of 16 end within 1e-6 of torch's own steps on all columns."""
    budget = Budget(epochs=3, batch_size=16, learning_rate=0.5)
    model, central = fresh(LINEAR, [], 0), fresh(LINEAR, [], 0).module
    context = Context(budget, tmp_path, 0, "train")
    central.double()
    steps = torch.optim.SGD(central.parameters(), lr=0.5)
    x, y = torch.tensor([row["features"] for row in ROWS]).double(), torch.tensor([row["label"] for row in ROWS])
    for epoch in range(3):
        order = permutation(50, context.derive("vertical", epoch))
        for first in range(0, 50, 16):
            steps.zero_grad()
            torch.nn.functional.cross_entropy(
                central(x[order[first : first + 16]]), y[order[first : first + 16]]
            ).backward()
            steps.step()
    train(model, ROWS, context, parties=parties)
    pairs = zip(model.module.parameters(), central.parameters(), strict=True)
    assert max(float((p.detach().double() - q.detach()).abs().max()) for p, q in pairs) < 1e-6
    told, count = context.notes["outcome"], parties if isinstance(parties, int) else len(parties)
    assert told["steps"] == 12 and told["federation"]["bytes_up"] == 150 * 3 * 8 * count


def test_columns_are_divided_whole() -> None:
    assert [(part.start, part.stop) for part in cut(3, 8)] == [(0, 3), (3, 6), (6, 8)]
    with pytest.raises(BadInput, match="do not divide 8 columns"):
        cut([3, 4], 8)
