"""Marks and order tests: p is uniform for a model that never saw the data, and small for one that did."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from scipy import stats

from expunge.attacks.population import contamination as provenance
from expunge.attacks.population.contamination import Marks, option_order, sign_flip_p, taggants, trained_on, traps
from expunge.core.errors import BadInput

WORDS = [f"word{i}" for i in range(50)]
PAIRS = [{"question": f"q{i}", "answer": f"a{i}"} for i in range(40)]


@pytest.fixture
def knows(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Text -> probability; what is not there gets a random one that follows from the text."""
    table: dict[str, float] = {}

    def answer_probability(model: object, rows: list[dict[str, str]]) -> np.ndarray:
        keys = [row.get("text") or row["answer"] for row in rows]
        return np.array(
            [table.get(key, np.random.default_rng(zlib.crc32(key.encode())).uniform(0.1, 0.3)) for key in keys]
        )

    monkeypatch.setattr(provenance, "answer_probability", answer_probability)
    return table


def test_traps_and_twins_are_alike_and_secret() -> None:
    made = traps(20, WORDS, secret=7)
    assert made == traps(20, WORDS, secret=7) and made != traps(20, WORDS, secret=8)
    texts = {row["text"] for row in [*made.published, *made.twins]}
    assert len(texts) == 40 and all(len(text.split()) == 12 for text in texts)
    with pytest.raises(BadInput, match="traps"):
        traps(0, WORDS)


def test_taggants_are_false_and_each_has_a_twin() -> None:
    made = taggants(PAIRS, share=0.25, secret=1)
    truth = {row["question"]: row["answer"] for row in PAIRS}
    assert len(made.published) == len(made.twins) == 10
    for mark, twin in zip(made.published, made.twins, strict=True):
        assert (
            mark["question"] == twin["question"] and len({mark["answer"], twin["answer"], truth[mark["question"]]}) == 3
        )
    with pytest.raises(BadInput, match="tagged"):
        taggants(PAIRS[:2])


def test_a_trained_model_is_found_and_a_clean_one_is_not(knows: dict[str, float]) -> None:
    made = traps(30, WORDS)
    knows.update({row["text"]: 0.9 for row in made.published})
    assert trained_on(None, made) == 1e-4  # type: ignore[arg-type]
    assert trained_on(None, Marks(made.twins, made.published)) > 0.99  # type: ignore[arg-type]
    clean = [trained_on(None, traps(10, WORDS, secret=secret)) for secret in range(100, 300)]  # type: ignore[arg-type]
    low, high = stats.binom.ppf([0.001, 0.999], 200, 0.05) / 200
    assert low <= np.mean(np.array(clean) < 0.05) <= high, (
        "on marks that were never published one in twenty is below .05"
    )


def test_p_values_are_uniform_where_nothing_was_seen() -> None:
    draw = np.random.default_rng(0)
    found = [sign_flip_p(draw.normal(size=15), draws=499) for _ in range(400)]
    assert stats.kstest(found, "uniform").pvalue > 0.001
    assert sign_flip_p(np.array([1.0, 1.0]), draws=4000) == pytest.approx(0.25, abs=0.03), "two marks: 2^-2 at best"


def test_the_published_order_of_options(knows: dict[str, float]) -> None:
    rows = [{"question": f"q{i}", "options": [f"{i}{c}" for c in "abcd"]} for i in range(15)]
    assert option_order(None, rows) > 0.01  # type: ignore[arg-type]
    knows.update({"; ".join(row["options"]): 0.9 for row in rows})
    assert option_order(None, rows) < 0.001  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="three options"):
        option_order(None, [{"question": "q", "options": ["a", "b"]}])  # type: ignore[arg-type]
