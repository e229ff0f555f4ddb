"""The row and the plot of scripts/frontier, from an evidence by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from loading import load_script


def evidence() -> dict[str, Any]:
    """Of a run that kept three quarters of the probability and half of the ROUGE-L, at a quarter of the tokens."""
    values = {
        "retain_probability": {"before": 0.8, "after": 0.6},
        "retain_rouge_l": {"before": 1.0, "after": 0.5},
        "robustness_relearn_forget": {"after": 0.4, "gold": 0.1},
        "forget_nll": {"after": 2.5},
        "forget_rouge_l": {"after": 0.2, "gold": 0.3},
        "forget_truth_ratio": {"after": 0.6, "gold": 0.5},
        "privacy_worst": {"after": 0.15},
        "robustness_hidden": {"after": 0.05},
    }
    scores = [{"name": name, "subject": of, "value": v} for name, by in values.items() for of, v in by.items()]
    return {"scores": scores, "cost": {"tokens": 25, "gold_tokens": 100}}


def test_a_row_has_shares_of_before_and_what_comes_back_beyond_gold(tmp_path: Path) -> None:
    script = load_script("frontier")
    (tmp_path / "evidence.json").write_text(json.dumps(evidence()), encoding="utf-8")
    found = script.run("builtin:authors@1", script.method("undo", 0.3, 8), 0, tmp_path)
    row = script.figures(found, 0.3)
    assert found == evidence(), "a run that is there is not made again"
    assert row == pytest.approx([0.3, 0.25, 0.15, 0.05, 0.3, 2.5, -0.1, 0.1, 0.75, 0.5])
    assert len(row) == len(script.COLUMNS)
    page = script.page([row, [0.5, *row[1:]]], "two shares of noise")
    assert "two shares of noise" in page and "relearned, less gold" in page and "plotly" in page
