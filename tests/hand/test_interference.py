"""What two concepts' likeness foretells of what one loses when the other is erased, on matrices made for it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from loading import load_script

SCRIPT: Any = load_script("interference")


def test_cosines_are_of_what_sets_a_concept_apart() -> None:
    """A part that all share makes no two alike: of three corners of a triangle each two are 120 degrees apart."""
    corners = np.array([[np.cos(angle), np.sin(angle), 5.0] for angle in 2 * np.pi * np.arange(3) / 3])
    np.testing.assert_allclose(SCRIPT.cosines(corners), 1.5 * np.eye(3) - 0.5, atol=1e-12)


def test_a_likeness_is_scored_by_ranks_and_beside_names_dealt_out_anew() -> None:
    """The losses' own order has a correlation of 1, that of others less; the erased concept's own loss counts for
    nothing."""
    draw = np.random.default_rng(3)
    lost = draw.random((7, 7))
    found, p = SCRIPT.foresight(np.exp(lost), lost - 9 * np.eye(7), deals=199)
    assert found == pytest.approx(1) and p == pytest.approx(1 / 200)
    against, p = SCRIPT.foresight(-lost, lost, deals=199)
    assert against == pytest.approx(-1) and p == pytest.approx(1, abs=0.01)
    none = [SCRIPT.foresight(np.random.default_rng(seed).random((7, 7)), lost, deals=99)[1] for seed in range(20)]
    assert 0.25 < np.mean(none) < 0.75
