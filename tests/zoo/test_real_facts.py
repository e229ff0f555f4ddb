"""examples/real_facts.yaml as a new user runs it: SmolLM2 learns twelve authors by heart, and forgets four."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import expunge
from expunge.core.request import read_config
from expunge.pipeline.train import read_training

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parents[2] / "examples"


def test_it_ends_nearer_to_gold_in_words_and_says_what_fails(
    data: Path, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Within half of retraining's tokens the forget ROUGE-L falls under .65 (from .95; gold's is .37), and .9 of what
    was held out stays in probability. It does not pass: relearning and membership tell it from gold."""
    monkeypatch.setenv("EXPUNGE_DATA", str(data.absolute()))
    base = tmp_path / "base"
    expunge.train(read_training(EXAMPLES / "real_facts_base.yaml", {"out": str(base)}))
    request: dict[str, Any] = read_config(EXAMPLES / "real_facts.yaml", "request")
    found = expunge.run({**request, "model": str(base), "out": str(tmp_path / "run")})
    of, cost = {key: value or 0.0 for key, value in found.scores.items()}, found.evidence["cost"]
    assert found.evidence["method"] == "proxy_gold" and cost["tokens"] <= 0.5 * cost["gold_tokens"]
    assert of["forget_probability", "before"] > 0.9 and of["forget_rouge_l", "before"] > 0.9
    assert of["forget_rouge_l", "after"] <= 0.65 and of["forget_probability", "after"] <= 0.5
    assert of["retain_probability", "after"] >= 0.9 * of["retain_probability", "before"]
    refuted = {
        line["rule"].partition(" ")[0] for line in found.evidence["verdict"]["lines"] if line["word"] == "refuted"
    }
    assert not found.passed and {"robustness.hidden", "privacy.worst"} <= refuted, refuted
