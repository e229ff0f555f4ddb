"""The reference model's values of batches, joined: each row in its place, right-aligned."""

from __future__ import annotations

import pytest
import torch

from expunge.core.contracts import Reference, Want
from expunge.training.references import join_outputs


@pytest.mark.parametrize("sizes", [[4, 1, 3], [8], [1] * 8])
def test_batches_are_joined_in_the_order_of_their_rows(sizes: list[int]) -> None:
    draw = torch.Generator().manual_seed(len(sizes))
    rows = (3 * torch.randperm(8, generator=draw)).tolist()  # numbers with gaps: their order counts
    nll_R, logp_RT = torch.randn(8, generator=draw), torch.randn(8, 5, generator=draw)
    hidden_RTD = torch.randn(8, 5, 2, generator=draw)
    widths, first, parts = [5, 2, 4, 5, 1, 3, 2, 5], 0, []
    for size, width in zip(sizes, widths, strict=False):
        at = slice(first, first + size)
        logp_RT[at, : 5 - width] = 0.0
        hidden_RTD[at, : 5 - width] = 0.0
        values = Reference(
            nll_B=nll_R[at], logp_BT=logp_RT[at, 5 - width :], hidden={"layer": hidden_RTD[at, 5 - width :]}
        )
        parts.append((rows[at], values))
        first += size
    back = torch.tensor(rows).argsort()
    found = join_outputs(iter(parts), Want(frozenset({"nll", "logp"}), hidden=("layer",)))
    assert torch.equal(found.nll_B, nll_R[back]) and torch.equal(found.logp_BT, logp_RT[back])
    assert torch.equal(found.hidden["layer"], hidden_RTD[back]) and found.top_BTK is None


def test_no_rows_have_no_values() -> None:
    assert join_outputs(iter([]), Want(frozenset({"nll"}))).nll_B is None
