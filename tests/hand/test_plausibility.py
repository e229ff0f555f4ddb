"""Comparisons with gold that can show nothing, on made-up figures."""

from __future__ import annotations

import pytest

from expunge.evaluation.acceptance import by_name
from expunge.evaluation.plausibility import plausibility_checks
from expunge.evaluation.scores import Label, Score


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
    assert words() == [], "without a holdout"


def test_where_the_model_before_was_not_read_nothing_shows_that_there_was_something_to_forget() -> None:
    (check,) = plausibility_checks(by_name([score("privacy_worst", "after", 0.02, 0.0, 0.05)]), "erase")
    assert (check.word, check.passed) == ("open", False) and "was not read" in check.why


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


@pytest.mark.parametrize(
    ("ends", "second", "word"),
    [
        ((0.88, 0.82, 0.93), None, "shown"),
        ((0.10, 0.06, 0.17), None, "refuted"),
        ((0.82, 0.75, 0.88), None, "open"),
        ((0.82, 0.75, 0.88), 0.82, "shown"),
    ],
)
def test_noise_is_no_forgetting(ends: tuple[float, float, float], second: float | None, word: str) -> None:
    """Gold's .9 less .1; where two retrainings differ by .08, less .16. Without pictures there is no such line."""
    name = "retain_concept_rate"
    scores = [score(name, "after", *ends), score(name, "gold", 0.9, 0.85, 0.94)]
    if second is not None:
        scores.append(score(name, "second_gold", second, second, second))
    assert words(*scores) == [word]
    unknown = Score.not_measured("unjudged", **label(name))
    (check,) = plausibility_checks(by_name([unknown, scores[1]]), "erase")
    assert (check.word, check.passed, check.why) == ("open", False, "unjudged")


def label(name: str) -> Label:
    return {"name": name, "side": "utility", "split": "retain", "role": "after", "unit": "share", "better": "higher"}


def test_a_holdout_that_gold_was_trained_on_is_named() -> None:
    assert words(score("privacy_loss_auc", "gold", 0.05, 0.02, 0.08)) == ["refuted"]
    assert words(score("privacy_loss_auc", "gold", 0.36, 0.30, 0.42)) == [], "it may be 0.4 or more"


def test_a_forget_set_that_gold_knows_is_named() -> None:
    """The facts are in the training data in another form, too: a retraining without the rows still has them."""
    (check,) = plausibility_checks(by_name([score("privacy_loss_auc", "gold", 0.8, 0.72, 0.88)]), "erase")
    assert (check.word, check.passed) == ("refuted", False) and "other training data hold it too" in check.why
    assert words(score("privacy_loss_auc", "gold", 0.66, 0.58, 0.74)) == [], "it may be 0.6 or less"


def test_under_suppress_nothing_is_asked() -> None:
    assert not plausibility_checks(by_name([score("privacy_worst", "before", 0.04, 0.0, 0.08)]), "suppress")


@pytest.mark.parametrize(
    ("ends", "word"), [((3.0, 2.7, 3.3), "shown"), ((9.0, 8.0, 10.0), "refuted"), ((4.3, 3.9, 4.7), "open")]
)
def test_answers_that_gold_finds_stranger_than_the_true_ones_are_gibberish(
    ends: tuple[float, float, float], word: str
) -> None:
    """Gold has 2.6 [2.4, 2.8] nats for the true answers: the bound is 1.5 * 2.8."""
    nll = Score("forget_nll", "forgetting", "forget", "gold", 2.6, 2.4, 2.8, 48, "nats", "gold")
    own = Score("forget_log_perplexity", "forgetting", "forget", "after", *ends, 48, "nats", "gold")
    (check,) = plausibility_checks(by_name([nll, own]), "erase")
    assert (check.word, check.passed, check.bound) == (word, word == "shown", pytest.approx(4.2))
    assert check.needed is None or (word == "open" and check.needed is not None)
    assert not plausibility_checks(by_name([own]), "erase"), "no yardstick"


def test_answers_without_a_token_show_nothing() -> None:
    nll = Score("forget_nll", "forgetting", "forget", "gold", 2.6, 2.4, 2.8, 48, "nats", "gold")
    label: Label = {
        "name": "forget_log_perplexity",
        "side": "forgetting",
        "split": "forget",
        "role": "after",
        "unit": "nats",
        "better": "gold",
    }
    (check,) = plausibility_checks(by_name([nll, Score.not_measured("no answer has a token", **label)]), "erase")
    assert (check.word, check.passed) == ("open", False) and "no answer has a token" in check.why
