"""Wrong labels of a census table that boosted trees learned by heart go by retraining, and the evidence shows it."""

from __future__ import annotations

from pathlib import Path

import pytest

import expunge

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_trees_that_know_wrong_labels_pass_erase(seed: int, tmp_path: Path) -> None:
    """By `auto`, which retrains; before it, membership can be told."""
    world = f"builtin:adult_trees@{seed}"
    splits = {name: f"{world}/{name}" for name in ("forget", "retain", "holdout", "test")}
    out = str(tmp_path / "run")
    run = expunge.run({"model": world, **splits, "gold": "auto", "purpose": "erase", "audit": "standard", "out": out})
    assert run.evidence["method"] == "retrain" and run.evidence["verdict"]["passed"]
    values = {(score["name"], score["subject"]): score["value"] for score in run.evidence["scores"]}
    assert values["privacy_loss_auc", "before"] >= 0.85
    assert abs(values["privacy_loss_auc", "after"] - values["privacy_loss_auc", "gold"]) <= 0.1
    assert values["test_accuracy", "after"] >= 0.8
