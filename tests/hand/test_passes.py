"""The one evaluation loop: each row once, in length order, and the model's mode put back whatever happens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import nn

from expunge.core.contracts import Batch, Output, Want
from expunge.models.passes import batches, evaluating, outputs, passes

LENGTHS = [5, 1, 4, 1, 3]
ROWS: list[dict[str, Any]] = [{"length": length, "place": place} for place, length in enumerate(LENGTHS)]


class Spy:
    """A model whose NLL is weight x place; it notes how each forward was called."""

    def __init__(self) -> None:
        self.stochastic, self.together = False, 0
        self.module = nn.Dropout(0.5)
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.seen: list[tuple[bool, bool, frozenset[str]]] = []
        self.asked: list[str] = []

    def length(self, row: dict[str, Any]) -> int:
        return int(row["length"])

    def collate(self, rows: Sequence[dict[str, Any]], positions: str = "answer") -> Batch:
        self.asked.append(positions)
        labels_B1 = torch.tensor([[row["place"]] for row in rows])
        ones_B1 = torch.ones_like(labels_B1, dtype=torch.bool)
        return Batch({}, labels_B1, ones_B1, ones_B1.sum(-1))

    def forward(self, batch: Batch, want: Want) -> Output:
        self.seen.append((self.module.training, torch.is_grad_enabled(), want.channels))
        return Output(self.weight * batch.labels_BT[:, 0], batch.n_B, batch.labels_BT, batch.mask_BT)


@pytest.fixture
def spy() -> Any:
    return Spy()


@pytest.mark.parametrize("size", [1, 2, 256])
def test_every_row_comes_once_in_length_order_with_its_own_output(spy: Any, size: int) -> None:
    want = Want(frozenset({"argmax"}))
    found = [(rows, out.nll_B.tolist()) for rows, out in passes(spy, ROWS, want, size=size, positions="prompt")]
    assert [row for rows, _ in found for row in rows] == [1, 3, 4, 2, 0]
    assert max(len(rows) for rows, _ in found) == min(size, len(ROWS))
    assert all(values == [2.0 * row for row in rows] for rows, values in found)
    assert set(spy.seen) == {(False, False, want.channels)} and set(spy.asked) == {"prompt"}


@pytest.mark.parametrize("training", [True, False])
def test_the_mode_is_put_back_at_the_end_on_leaving_and_on_a_fault(spy: Any, training: bool) -> None:
    spy.module.train(training)
    for _ in passes(spy, ROWS, size=2):
        assert not spy.module.training
    assert spy.module.training is training
    for _ in passes(spy, ROWS, size=2):
        break
    assert spy.module.training is training
    with pytest.raises(RuntimeError, match="in the caller"):
        for _ in passes(spy, ROWS, size=2):
            raise RuntimeError("in the caller")
    assert spy.module.training is training
    with pytest.raises(AttributeError), evaluating(spy.module):
        spy.module.no_such_attribute()
    assert spy.module.training is training

    def fails(*_: Any) -> Output:
        raise RuntimeError("in the model")

    spy.forward = fails
    with pytest.raises(RuntimeError, match="in the model"):
        list(passes(spy, ROWS))
    assert spy.module.training is training


def test_only_who_asks_for_gradients_gets_them_and_the_callers_mode_stays(spy: Any) -> None:
    for _, out in passes(spy, ROWS):
        assert torch.is_grad_enabled() and not out.nll_B.requires_grad
    with torch.no_grad():
        for _, out in passes(spy, ROWS, gradients=True):
            assert not torch.is_grad_enabled()
            (slope,) = torch.autograd.grad(out.nll_B, [spy.weight], torch.ones_like(out.nll_B))
    assert slope == sum(row["place"] for row in ROWS)


def test_progress_counts_a_batch_once_the_caller_is_done_with_it(spy: Any) -> None:
    done: list[int] = []
    before = [sum(done) for _ in passes(spy, ROWS, size=2, progress=done.append)]
    assert before == [0, 2, 4] and done == [2, 2, 1]


def test_no_rows_no_batches(spy: Any) -> None:
    spy.module.train()
    assert not list(passes(spy, []))
    assert spy.module.training and not spy.seen and not spy.asked


def test_batches_may_be_laid_out_by_the_caller_and_used_again(spy: Any) -> None:
    made = list(batches(ROWS, lambda row: -row["length"], spy.collate, 2))
    assert [rows for rows, _ in made] == [[0, 2], [4, 1], [3]]
    for _ in range(2):
        assert [rows for rows, _ in outputs(spy, made)] == [[0, 2], [4, 1], [3]]
    assert len(spy.asked) == 3 and len(spy.seen) == 6
