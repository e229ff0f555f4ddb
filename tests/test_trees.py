"""Boosted trees: opened from XGBoost's own files, retrained by themselves, and refused by whatever changes weights."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import xgboost
from sklearn.datasets import load_breast_cancer, load_wine

import expunge
from expunge.attacks.shared.recovery import teach
from expunge.core.errors import BadInput
from expunge.core.request import Request
from expunge.evaluation.attack import Target
from expunge.models.build import fresh
from expunge.models.open import open_on_cpu
from expunge.pipeline.plan import plan
from expunge.pipeline.train import train
from worlds import write

Rows = list[dict[str, Any]]
CRITERIA = {"forget.nll": ">= 0.9 * gold", "retain.accuracy": ">= 0.98 * before", "robustness.hidden": "<= 0.1"}


def table(load: Any, count: int) -> Rows:
    x_NF, y_N = load(return_X_y=True)
    order = np.random.default_rng(0).permutation(len(y_N))[:count]
    return [{"features": [float(v) for v in x_NF[i]], "label": int(y_N[i])} for i in order]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a trained model of two classes, of whose rows twenty bear the wrong label."""
    folder = tmp_path_factory.mktemp("trees")
    rows = table(load_breast_cancer, 400)
    wrong = [{**row, "label": 1 - row["label"]} for row in rows[:40]]
    parts = {"forget": wrong[:20], "holdout": wrong[20:], "retain": rows[40:300], "test": rows[300:]}
    files = {name: write(folder / f"{name}.jsonl", part) for name, part in parts.items()}
    train(
        {
            "model": {"trees": "xgboost"},
            "trainer": {"boosting": {"least_weight": 0.0}},
            "data": [files["retain"], files["forget"]],
            "epochs": 25,
            "out": str(folder / "base"),
        }
    )
    return folder


def request(place: Path, out: Path, **more: Any) -> dict[str, Any]:
    splits = {name: str(place / f"{name}.jsonl") for name in ("forget", "retain", "holdout", "test")}
    return {"model": str(place / "base"), **splits, "gold": "auto", "out": str(out), **more}


def test_it_is_retrained_bit_for_bit_and_passes(place: Path, tmp_path: Path) -> None:
    """By itself: no other method was named."""
    run = expunge.run(request(place, tmp_path / "run", purpose="suppress", audit="standard", accept=CRITERIA))
    assert run.evidence["method"] == "retrain" and run.evidence["verdict"]["passed"]
    alone = train(
        {
            "model": {"trees": "xgboost"},
            "trainer": {"boosting": {"least_weight": 0.0}},
            "data": [str(place / "retain.jsonl")],
            "epochs": 25,
            "out": str(tmp_path / "alone"),
        }
    )
    assert (tmp_path / "run/model/model.ubj").read_bytes() == (alone / "model.ubj").read_bytes()
    assert (place / "base/model.ubj").read_bytes() != (alone / "model.ubj").read_bytes()
    assert expunge.verify(tmp_path / "run").passed


def test_what_is_saved_is_xgboost_s_own_and_reads_the_same(place: Path) -> None:
    model, theirs = open_on_cpu(str(place / "base")), xgboost.Booster(model_file=str(place / "base/model.ubj"))
    rows = [json.loads(line) for line in (place / "test.jsonl").read_text().splitlines()]
    out = model.forward(model.collate(rows))
    second_N = theirs.predict(xgboost.DMatrix(np.array([row["features"] for row in rows], np.float32)))
    said_N = np.where([row["label"] for row in rows], second_N, 1 - second_N)
    assert np.allclose(np.exp(-out.nll_B.numpy()), said_N, atol=1e-6)


def test_a_file_of_xgboost_s_opens_where_it_lies(tmp_path: Path) -> None:
    rows = table(load_wine, 150)
    matrix = xgboost.DMatrix(np.array([row["features"] for row in rows], np.float32), [row["label"] for row in rows])
    booster = xgboost.train({"objective": "multi:softprob", "num_class": 3}, matrix, 5)
    booster.save_model(tmp_path / "model.json")
    model = open_on_cpu({"trees": "xgboost", "weights": str(tmp_path / "model.json")})
    logits = model.module(torch.tensor([row["features"] for row in rows]))
    assert np.allclose(torch.softmax(logits, 1).numpy(), booster.predict(matrix), atol=1e-6)
    assert open_on_cpu({"trees": "xgboost", "weights": str(tmp_path / "model.json")}, meta=True).module.classes == 3


@pytest.mark.parametrize("method", ["npo", "finetune", "ssd", "salun", {"soup": {"inner": "npo"}}])
def test_what_changes_weights_is_refused(place: Path, tmp_path: Path, method: Any) -> None:
    with pytest.raises(BadInput, match="a model of boosted trees has none; these would work: retrain"):
        plan(Request.parse(request(place, tmp_path / "run", method=method)))


@pytest.mark.parametrize(
    ("spec", "sentence"),
    [
        ({"trees": "lightgbm"}, "model.trees"),
        ({"trees": "xgboost", "depth": 3}, "model.depth"),
        ({"trees": "xgboost", "weights": "model.pkl"}, "we load no pickle"),
        ({"trees": "xgboost", "weights": "absent.json"}, "does not exist"),
        ({"trees": "xgboost", "classes": 1}, "model.classes"),
    ],
)
def test_what_names_no_trees_is_refused(spec: dict[str, Any], sentence: str) -> None:
    with pytest.raises(BadInput, match=sentence):
        open_on_cpu(spec)


def test_a_file_that_holds_no_classifier_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{]")
    with pytest.raises(BadInput, match="is no file of XGBoost's"):
        open_on_cpu({"trees": "xgboost", "weights": str(tmp_path / "bad.json")})
    matrix = xgboost.DMatrix(np.arange(8.0)[:, None], np.arange(8.0))
    xgboost.train({"objective": "reg:squarederror"}, matrix, 1).save_model(tmp_path / "regression.json")
    with pytest.raises(BadInput, match="reg:squarederror"):
        open_on_cpu({"trees": "xgboost", "weights": str(tmp_path / "regression.json")})


def test_rows_of_another_width_are_refused(place: Path) -> None:
    with pytest.raises(BadInput, match="rows of 30 columns are expected"):
        open_on_cpu(str(place / "base")).accepts("forget", [{"features": [1.0, 2.0], "label": 0}])


def test_networks_are_not_boosted(place: Path, tmp_path: Path) -> None:
    network = {"factory": "expunge.models.networks:MLP", "arguments": {"inputs": 30, "classes": 2}}
    with pytest.raises(BadInput, match="grows trees, and this model has weights"):
        train(
            {"model": network, "trainer": "boosting", "data": str(place / "retain.jsonl"), "out": str(tmp_path / "x")}
        )


def test_classes_are_those_of_the_labels() -> None:
    rows = [{"features": [0.0], "label": label} for label in (0, 4)]
    begun = fresh({"trees": "xgboost"}, rows, 0)
    assert begun.module.classes == 5
    assert torch.equal(begun.forward(begun.collate(rows)).nll_B, torch.full((2,), 5.0).log())


def test_relearning_adds_trees_and_takes_them_back(place: Path) -> None:
    model = open_on_cpu(str(place / "base"))
    rows = [json.loads(line) for line in (place / "holdout.jsonl").read_text().splitlines()]
    before, first = model.module.raw, float(model.forward(model.collate(rows)).nll_B.mean())
    target = Target(model, "after", {"forget": rows, "retain": rows}, {}, 0, 1e-3)
    with target.disposable() as lent:
        assert list(teach(lent, rows, steps=10, rate=1e-3, seed=0, every=4)) == [4, 8, 10]
        assert float(lent.forward(lent.collate(rows)).nll_B.mean()) < 0.5 * first
    assert model.module.raw == before and float(model.forward(model.collate(rows)).nll_B.mean()) == first


def test_a_deep_audit_says_what_trees_have_not(place: Path, tmp_path: Path) -> None:
    splits = {name: str(place / f"{name}.jsonl") for name in ("forget", "retain", "holdout", "test")}
    found = expunge.audit(str(place / "base"), **splits, level="deep", out=str(tmp_path / "audit"))
    why = {score["name"]: score["why"] for score in found["scores"] if score["status"] != "measured"}
    assert all("no weight" in why[f"privacy_{name}"] for name in ("gradient_norm_auc", "white_box_auc"))
    assert all("no weight matrices" in why[f"robustness_{name}"] for name in ("pruned", "quantised_4"))
