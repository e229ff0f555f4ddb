"""Forgetting a class and a random tenth of handwritten digits, by the requests in examples/."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import expunge
from expunge.core.request import Request

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture(scope="module")
def class_run(tmp_path_factory: pytest.TempPathFactory) -> Any:
    request = Request.read(
        EXAMPLES / "digits_class.yaml", {"out": str(tmp_path_factory.mktemp("c") / "run"), "seed": 5}
    )
    return expunge.run(request)


def test_a_class_is_forgotten_and_the_others_stay(class_run: Any) -> None:
    """0-5 % accuracy on the class, at most 2 points lost on the others; gold never knew it either."""
    scores = class_run.scores
    assert scores["forget_accuracy", "before"] > 0.95
    assert scores["forget_accuracy", "after"] <= 0.05
    assert scores["test_forget_accuracy", "after"] <= 0.05, "unseen images of the class too"
    assert scores["test_accuracy", "after"] >= scores["test_accuracy", "before"] - 0.02
    assert scores["forget_accuracy", "gold"] == 0
    assert class_run.passed is True


def test_a_random_tenth_looks_unseen(tmp_path: Path) -> None:
    """Forget accuracy comes within 5 points of gold's, and the test accuracy stays within 2 points."""
    request = Request.read(EXAMPLES / "digits_random.yaml", {"out": str(tmp_path / "run"), "seed": 0})
    done = expunge.run(request)
    scores = done.scores
    assert abs(scores["forget_accuracy", "after"] - scores["forget_accuracy", "gold"]) <= 0.05
    assert scores["forget_nll", "after"] > 3 * scores["forget_nll", "before"]
    assert scores["test_accuracy", "after"] >= scores["test_accuracy", "before"] - 0.02
