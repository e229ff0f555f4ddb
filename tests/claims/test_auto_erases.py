"""`method: auto` under erase, on an authors world that set nothing: what it meets, and what limits it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import expunge

pytestmark = pytest.mark.slow
WORLD = "builtin:authors@4"
REQUEST: dict[str, Any] = {
    "model": WORLD,
    **{split: f"{WORLD}/{split}" for split in ("forget", "retain", "holdout")},
    "purpose": "erase",
    "audit": "standard",
    "accept": {
        "forget.rouge_l": "within 0.1 of gold",
        "retain.probability": ">= 0.95 * before",
        "retain.rouge_l": ">= 0.95 * before",
    },
}


@pytest.mark.claims("proxy_gold", "distillation")
def test_at_half_of_retraining_it_is_like_gold_in_words_and_keeps_what_npo_loses(tmp_path: Path, cache: Path) -> None:
    """Each seed: answers and truth ratio within .1 of gold's, .94 of what was held out is left in probability and in
    ROUGE-L (NPO with its own recipe leaves a tenth less of ROUGE-L), and no line is refuted. Attacker and relearning
    end nearer to gold than after NPO on average, and do not pass: within .25 of gold each, where about .1 is asked."""
    npo = figures(expunge.run({**REQUEST, "method": "npo", "out": str(tmp_path / "npo")}))
    off: dict[str, list[float]] = {"privacy_worst": [], "robustness_hidden": []}
    for seed in (0, 1, 2):
        auto = expunge.run({**REQUEST, "seed": seed, "out": str(tmp_path / f"{seed}")})
        cost, of = auto.evidence["cost"], figures(auto)
        assert auto.evidence["method"] == "proxy_gold" and cost["tokens"] <= 0.5 * cost["gold_tokens"], cost
        assert all(line["word"] != "refuted" for line in auto.evidence["verdict"]["lines"]), (seed, of)
        for name in ("forget_rouge_l", "forget_truth_ratio"):
            assert abs(of[name, "after"] - of[name, "gold"]) <= 0.1, (seed, name, of)
        for name in ("retain_probability", "retain_rouge_l"):
            assert of[name, "after"] >= 0.94 * of[name, "before"], (seed, name, of)
        assert of["retain_rouge_l", "after"] >= npo["retain_rouge_l", "after"] + 0.1, (seed, of, npo)
        for name, found in off.items():
            found.append(of[name, "after"])
            assert found[-1] <= 0.25, (seed, name, of)
    for name, found in off.items():
        assert np.mean(found) < npo[name, "after"], (name, found, npo)


def figures(run: Any) -> dict[tuple[str, str], float]:
    """(score, model) -> value, of all that were measured."""
    return {key: value for key, value in run.scores.items() if value is not None}
