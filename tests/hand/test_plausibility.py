"""Comparisons with gold that can show nothing, on made-up figures."""

from __future__ import annotations

import pytest

from expunge.evaluation.acceptance import by_name
from expunge.evaluation.plausibility import plausibility_checks
from expunge.evaluation.scores import Score


def score(name: str, role: str, value: float, low: float, high: float) -> Score:
    return Score(name, "privacy", "forget", role, value, low, high, 100, "auc", "gold")


def words(*scores: Score) -> list[str | None]:
    return [check.word for check in plausibility_checks(by_name(scores), "erase")]


@pytest.mark.parametrize(
    ("ends", "word"),
    [((0.4, 0.3, 0.5), "shown"), ((0.04, 0.0, 0.08), "refuted"), ((0.2, 0.05, 0.3), "open")],
)
def test_something_was_there_to_forget(ends: tuple[float, float, float], word: str) -> None:
    """A model that knew nothing of the forget set agrees with gold before any change."""
    assert words(score("privacy_worst", "before", *ends)) == [word]
    assert words(score("privacy_worst", "after", *ends)) == [], "only the model before the change is asked"


@pytest.mark.parametrize(
    ("ends", "second", "word"),
    [
        ((0.50, 0.45, 0.55), None, "shown"),
        ((0.15, 0.10, 0.20), None, "refuted"),
        ((0.42, 0.36, 0.48), None, "open"),
        ((0.42, 0.36, 0.48), 0.42, "shown"),
        ((0.90, 0.85, 0.95), None, "shown"),
    ],
)
def test_an_nll_far_below_gold_s_is_unlike_gold(
    ends: tuple[float, float, float], second: float | None, word: str
) -> None:
    """Bound: 0.5 - 0.1; where two retrainings differ by 0.08, 0.5 - 0.16."""
    scores = [score("forget_nll_above_gold", "after", *ends)]
    if second is not None:
        scores.append(score("forget_nll_above_gold", "second_gold", second, second, second))
    assert words(*scores) == [word]


def test_a_holdout_that_gold_was_trained_on_is_named() -> None:
    assert words(score("privacy_loss_auc", "gold", 0.05, 0.02, 0.08)) == ["refuted"]
    assert words(score("privacy_loss_auc", "gold", 0.36, 0.30, 0.42)) == [], "it may be 0.4 or more"


def test_under_suppress_nothing_is_asked() -> None:
    assert not plausibility_checks(by_name([score("privacy_worst", "before", 0.04, 0.0, 0.08)]), "suppress")
