"""Methods that only hide are caught, and a model that was retrained is not: authors and digits.

A claim of the audit itself: IDK tuning and edits (STAMP, UniErase) change what the model says, and the relearning
attack and the choice among answers find what it still knows, with gold as the control.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import expunge
from expunge.core.budget import DEFAULTS, Budget
from expunge.core.context import Context
from expunge.core.contracts import Model
from expunge.core.registry import load
from expunge.core.train_config import TrainConfig
from expunge.data.load import load as load_data
from expunge.data.splits import Splits, make_splits
from expunge.evaluation import attack as attacking
from expunge.evaluation.attack import Found, Target, knowledge
from expunge.evaluation.margins import LEAST as MARGIN
from expunge.evaluation.reading import read
from expunge.methods.compose import compose
from expunge.models.manifest import read_manifest
from expunge.models.open import open_model
from expunge.pipeline.gold import gold
from expunge.pipeline.hidden_knowledge import hidden_score
from expunge.pipeline.train import train
from expunge.pipeline.worlds import build

ATTACKS = ("relearn_forget", "multiple_choice")


@pytest.fixture(scope="module")
def splits() -> Splits:
    return make_splits({name: f"builtin:authors/{name}" for name in ("forget", "retain", "holdout")})


@pytest.fixture(scope="module")
def base() -> Path:
    return build("builtin:authors")


@pytest.fixture(scope="module")
def attacked(base: Path, splits: Splits) -> Callable[[Model], tuple[dict[str, Any], Any]]:
    """Model -> what the attacks found on it, and its forget readout."""

    def of(model: Model) -> tuple[dict[str, Any], Any]:
        found = read(model, "forget", splits["forget"], {"nll", "variants"})
        target = Target(
            model,
            "after",
            splits,
            {"forget": found},
            {"after": knowledge(found)},
            read_manifest(base)["learning_rate"],
        )
        return {name: load("attacks", name).factory()(target) for name in ATTACKS}, found

    return of


@pytest.fixture(scope="module")
def control(base: Path, splits: Splits, attacked: Callable[..., Any]) -> tuple[dict[str, Any], Any]:
    """Gold, attacked."""
    return attacked(open_model(str(gold(read_manifest(base), splits["forget"], open_model(str(base))))))


def changed(method: Any, base: Path, splits: Splits, folder: Path) -> Model:
    composed = compose(method)
    budget = Budget(epochs=4, stop="none").over(composed.budget, DEFAULTS)
    context = Context(budget, folder, 0, "apply", manifest=read_manifest(base), notes={})
    return composed.method(open_model(str(base)), splits, context)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["idk", "stamp", pytest.param("unierase", marks=pytest.mark.slow)])
def test_what_only_hides_is_caught(
    method: str, base: Path, splits: Splits, attacked: Callable[..., Any], control: Any, tmp_path: Path
) -> None:
    """It says little of the forget set, and the attacks bring most of it back; gold withstands them."""
    model = changed(method, base, splits, tmp_path)
    found, readout = attacked(model)
    score = hidden_score(found, control[0], readout, control[1])
    assert score.low is not None and score.low > MARGIN, "the whole interval lies above the margin"
    assert score.value is not None and score.value > 0.4
    ours, golds = found["relearn_forget"], control[0]["relearn_forget"]
    assert ours.figure.value > knowledge(readout).mean() + 0.05, "relearning brings back more than asking"
    assert golds.figure.value < 0.3 < ours.figure.value


@pytest.mark.slow
def test_a_model_retrained_with_another_seed_is_not_called_hidden(
    base: Path, splits: Splits, attacked: Callable[..., Any], control: Any
) -> None:
    other = gold({**read_manifest(base), "seed": 1}, splits["forget"], open_model(str(base)))
    found, readout = attacked(open_model(str(other)))
    score = hidden_score(found, control[0], readout, control[1])
    assert score.low is not None and score.low <= MARGIN
    assert score.value is not None and score.value < MARGIN


@pytest.mark.slow
def test_a_retrained_classifier_is_not_refuted_under_erase_and_an_unchanged_one_is(tmp_path: Path) -> None:
    """Digits as a table: retraining is held against two golds of other seeds, under every attack on models.

    112 forget examples show that nothing is hidden; they leave the interval of the membership line too wide. A tenth of
    the training rate does not teach a class that was never seen, so that relearning goes on to a higher one.
    """
    data, rows = _table("train", tmp_path)
    unseen, _ = _table("test", tmp_path, label=3)
    forget = [row for row in rows if row["label"] == 3]
    network = {"factory": "expunge.models.networks:MLP", "arguments": {"inputs": 64, "classes": 10}}
    made = train(
        TrainConfig(model=network, data=data, epochs=8, batch_size=32, learning_rate=3e-3, out=str(tmp_path / "base"))
    )
    golds = [str(gold({**read_manifest(made), "seed": seed}, forget, open_model(str(made)))) for seed in (9, 5)]
    request = {
        "model": str(made),
        "data": data,
        "holdout": unseen,
        "forget": {"class": 3},
        "gold": golds,
        "audit": "standard",
        "purpose": "erase",
        "accept": {"robustness.hidden": "<= 0.1"},
    }
    run = expunge.run({**request, "method": "retrain", "out": str(tmp_path / "retrained")})
    scores = {(score["name"], score["subject"]): score for score in run.evidence["scores"]}
    assert scores["robustness_hidden", "after"]["value"] < MARGIN
    assert scores["robustness_relearn_forget", "gold"]["status"] == "measured"
    lines = run.evidence["verdict"]["lines"]
    assert not [line for line in lines if line["word"] == "refuted"]
    shown = {line["rule"].split()[0] for line in lines if line["word"] == "shown"}
    assert {"robustness.hidden", "robustness.hidden_share", "robustness.hidden_worst"} <= shown
    kept = expunge.run({**request, "method": "ga", "budget": {"steps": 0}, "out": str(tmp_path / "kept")})
    words = {line["rule"].split()[0]: line["word"] for line in kept.evidence["verdict"]["lines"] if line["implied"]}
    hidden = ("robustness.hidden", "robustness.hidden_share", "robustness.hidden_worst")
    assert {words[name] for name in hidden} == {"refuted"} and kept.passed is False
    unasked = expunge.run(
        {**request, "method": "retrain", "audit": "none", "accept": {}, "out": str(tmp_path / "bare")}
    )
    assert unasked.passed is False, "under erase nothing passes without the check against gold"


def _table(split: str, folder: Path, label: int | None = None) -> tuple[str, list[dict[str, Any]]]:
    """(file, rows) of a split of digits, as a table. label: of this class alone."""
    rows = [
        {"features": np.asarray(row["image"], dtype=float).ravel().tolist(), "label": int(row["label"])}
        for row in load_data(f"builtin:digits/{split}", "data")
        if label is None or row["label"] == label
    ]
    file = folder / f"{split}.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(file), rows


def test_found_is_what_the_registry_gives(splits: Splits) -> None:
    """Every attack with a level says what it takes, what it means, and comes with a side of its own."""
    for plugin in attacking.plugins("deep", frozenset({"tokens", "nll", "generate", "mlp", "labels"})):
        card = plugin.card
        assert (
            card.means and card.side in ("robustness", "privacy", "utility") and card.level in ("standard", "deep")
        ), plugin.name
        assert {"forget", "probes"} & set(card.needs) and card.passes >= 0 and card.unit
    assert Found.__doc__
