"""Scores from the clients' sums are those of all examples in one place; nothing of a single example leaves a client."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from expunge.evaluation import intervals
from expunge.evaluation.scores import Score
from expunge.evaluation.sums import pool, sums_of

Rule = Callable[[np.ndarray], intervals.Interval]
RULES: dict[str, tuple[str, Rule]] = {
    "share": ("share", intervals.proportion),
    "mean of shares": ("share", lambda x: intervals.mean(x, 0.0, 1.0)),
    "nats": ("nats", lambda x: intervals.mean(x, 0.0)),
    "difference": ("ratio", intervals.mean),
}


def score(values: np.ndarray, unit: str, rule: Rule, name: str = "forget_nll") -> Score:
    label = (name, "forgetting", "forget", "after")
    return Score(*label, *rule(values), len(values), unit, "gold", values=values)


def parts(values: np.ndarray, sizes: Sequence[int]) -> list[np.ndarray]:
    return np.split(values, np.cumsum(sizes)[:-1])


@pytest.mark.parametrize("kind", RULES)
@pytest.mark.parametrize("spread", [0.0, 1.0])
def test_pooled_sums_are_the_figure_of_all_examples(kind: str, spread: float) -> None:
    """Of three clients with 1, 7 and 22 examples, value and both ends, also where no value differs from another."""
    unit, rule = RULES[kind]
    drawn = 0.5 + spread * np.random.default_rng(3).uniform(-0.5, 0.5, 30)
    values = (drawn > 0.4).astype(float) if kind == "share" else drawn
    sent = [[sums_of(score(some, unit, rule))] for some in parts(values, (1, 7, 22))]
    assert all(one.score.values is None and one.score.others is None for some in sent for one in some)
    (found,) = pool(sent)
    assert (found.value, found.low, found.high) == pytest.approx(rule(values), abs=1e-12)
    assert found.n == 30 and found.why == ""


def test_a_share_of_hits_at_one_client_and_misses_at_another_is_a_share() -> None:
    (found,) = pool([[sums_of(score(np.full(4, hit), "share", intervals.proportion))] for hit in (1.0, 0.0)])
    assert (found.value, found.low, found.high) == pytest.approx(intervals.share(4, 8))


def test_an_auc_is_the_mean_over_the_clients_by_their_examples() -> None:
    """Of .6 [.5, .7] over 10 and .9 [.8, .95] over 30: .825, ends by sqrt((.25 x .1)^2 + (.75 x .1)^2) and so on."""
    label = ("privacy_x_auc", "privacy", "forget", "after")
    one = Score(*label, 0.6, 0.5, 0.7, 10, "auc", "gold", values=np.full(10, 0.6), others=np.full(5, 0.6))
    two = Score(*label, 0.9, 0.8, 0.95, 30, "auc", "gold")
    (found,) = pool([[sums_of(one)], [sums_of(two)]])
    assert found.value == pytest.approx(0.825) and found.n == 40
    assert found.low == pytest.approx(0.825 - (0.025**2 + 0.075**2) ** 0.5)
    assert found.high == pytest.approx(0.825 + (0.025**2 + 0.0375**2) ** 0.5)
    assert found.why == "the mean over 2 clients, by their examples, of each one's own figure"


def test_one_client_alone_keeps_its_figure_and_a_count_of_two_is_not_measured() -> None:
    label = ("cost_x", "cost", "forget", "after")
    counts = [Score(*label, 3.0, None, None, 5, "count", "lower") for _ in range(2)]
    assert pool([[sums_of(counts[0])]]) == [counts[0]]
    missing = Score(*label, None, None, None, 0, "count", "lower", "not measured", "no forget was given")
    (alone,) = pool([[sums_of(missing)], [sums_of(counts[0])]])
    assert alone.value == 3.0 and alone.why == "one client's own figure, of its rows alone"
    (found,) = pool([[sums_of(one)] for one in counts])
    assert not found.measured and found.why == "no client holds all examples that it takes"
