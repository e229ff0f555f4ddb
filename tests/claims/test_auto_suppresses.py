"""`method: auto` under suppress: its reason for NPO with KL, on worlds that set nothing of the method itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import expunge

pytestmark = pytest.mark.slow
ACCEPT = {
    "forget.rouge_l": "<= 1.2 * gold",
    "forget.nll": ">= 0.8 * gold",
    "retain.probability": ">= 0.9 * before",
}


@pytest.mark.parametrize("world", [1, 3])
def test_it_meets_its_bar_at_a_fifth_of_retraining_and_keeps_more_than_npo(
    world: int, tmp_path: Path, cache: Path
) -> None:
    """The first trial meets every line, and .01 more of what was held out is left than by NPO with its own recipe."""
    name = f"builtin:authors@{world}"
    request: dict[str, Any] = {
        "model": name,
        **{split: f"{name}/{split}" for split in ("forget", "retain", "holdout")},
        "gold": "one",
        "accept": ACCEPT,
    }
    auto = expunge.run({**request, "out": str(tmp_path / "auto")})
    npo = expunge.run({**request, "method": "npo", "out": str(tmp_path / "npo")})
    cost = auto.evidence["cost"]
    assert auto.passed and len(auto.evidence["trials"]) == 1 and cost["tokens"] <= 0.2 * cost["gold_tokens"]
    kept, theirs = (run.scores["retain_probability", "after"] for run in (auto, npo))
    assert kept is not None and theirs is not None and kept >= theirs + 0.01
