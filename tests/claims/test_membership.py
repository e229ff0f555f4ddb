"""Membership attacks on known truth: a classifier that memorised noisy digits, its retrained twin, unseen digits."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from expunge.core.registry import load
from expunge.core.train_config import TrainConfig
from expunge.data.load import load as load_data
from expunge.evaluation.attack import Target, knowledge
from expunge.evaluation.reading import read
from expunge.evaluation.scores import measure, requirements
from expunge.models.manifest import read_manifest
from expunge.models.open import open_model
from expunge.pipeline.gold import gold
from expunge.pipeline.train import train

MODELS = ("gradient_norm_auc", "lira_auc", "rmia_auc")


@pytest.mark.slow
def test_attacks_see_what_was_memorised_and_nothing_where_nothing_was(tmp_path: Path) -> None:
    """AUC high on the memorised, .5 within its interval on gold, at the level of all attacks together.

    A third of the labels are noise, so that they can only be memorised. LiRA finds more at low
    false-positive rates than the loss attack does.
    """
    draw = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for row in load_data("builtin:digits/train", "data")[:900]:
        label = int(draw.integers(10)) if draw.random() < 1 / 3 else int(row["label"])
        rows.append({"features": np.asarray(row["image"], dtype=float).ravel().tolist(), "label": label})
    forget, holdout, rest = rows[:150], rows[150:300], rows[300:]
    made = train(
        TrainConfig(
            model={"factory": "expunge.models.networks:MLP", "arguments": {"inputs": 64, "classes": 10, "hidden": 128}},
            data=[*forget, *rest],
            epochs=60,
            batch_size=50,
            learning_rate=3e-3,
            weight_decay=0.0,
            out=str(tmp_path / "base"),
        )
    )
    manifest = read_manifest(made)
    models = {"before": open_model(str(made))}
    models["gold"] = open_model(str(gold(manifest, forget, models["before"])))
    splits = {"forget": forget, "holdout": holdout}
    figures: dict[str, dict[str, Any]] = {}
    lowest: dict[str, Any] = {}
    for role, model in models.items():
        wanted = requirements(model.capabilities, splits)
        readouts = {name: read(model, name, splits[name], wanted[name]) for name in splits}
        target = Target(model, role, splits, readouts, {role: knowledge(readouts["forget"])}, manifest=manifest)
        found = {name: load("attacks", name).factory()(target) for name in MODELS}
        lowest[role] = found["lira_auc"].more["tpr_1"][2]
        figures[role] = {name: result.figure for name, result in found.items()}
        scores = measure({"after": readouts}, model.capabilities)
        figures[role] |= {s.name: s for s in scores if s.unit == "auc" and s.measured}
        if role == "before":
            (loss,) = [s for s in scores if s.name == "privacy_tpr_at_1"]
    wider = stats.norm.ppf(1 - 0.025 / len(figures["gold"])) / stats.norm.ppf(0.975)
    for name, figure in figures["gold"].items():
        half = (figure.high - figure.low) / 2 * wider
        assert abs(figure.value - 0.5) <= half, (name, figure)
    for name in ("privacy_loss_auc", "gradient_norm_auc", "lira_auc", "rmia_auc"):
        assert figures["before"][name].low > 0.55, (name, figures["before"][name])
    assert figures["before"]["lira_auc"].value > figures["before"]["privacy_loss_auc"].value
    assert lowest["before"].value > loss.value, "LiRA against the loss attack at 1 % false positives"
