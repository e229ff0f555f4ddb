"""`expunge exposure`: what it measures of many models, with known truth, and what it refuses.

Models are a tiny one and its gold with a little noise on the weights, a seed each: a stand-in for
trainings of other seeds, whose distributions are known to be alike, or not.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from expunge.attacks.population import scores as exposing
from expunge.attacks.shared.recovery import teach
from expunge.cli.app import run as command
from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.core.train_config import TrainConfig
from expunge.data.load import load
from expunge.models.manifest import read_manifest
from expunge.models.open import open_model
from expunge.pipeline.gold import gold
from expunge.pipeline.train import train
from expunge.workflows.exposure import exposure
from worlds import tiny


def noisy(source: str, folder: Path, count: int, seed: int) -> list[str]:
    """`count` copies of a model, each weight moved by a twentieth of its tensor's spread."""
    model: Model = open_model(source)
    reference = {name: tensor.clone() for name, tensor in model.module.state_dict().items()}
    for m in range(count):
        draw = torch.Generator().manual_seed(1000 * seed + m)
        with torch.no_grad():
            for name, tensor in model.module.named_parameters():
                tensor.copy_(reference[name] + 0.05 * reference[name].std() * torch.randn(tensor.shape, generator=draw))
        (folder / str(m)).mkdir(parents=True)
        model.save(folder / str(m))
    return [str(folder / str(m)) for m in range(count)]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """gold: retrained models. like: of the same distribution. hidden: these were taught the forget set."""
    folder = tmp_path_factory.mktemp("many")
    world = tiny(folder, epochs=2)
    forget = load(world["forget"], "forget")
    retrained = str(gold(read_manifest(Path(world["model"])), forget, open_model(world["model"])))
    model: Model = open_model(retrained)
    for _ in teach(model, forget, steps=120, rate=5e-3, seed=0, every=120):
        model.save(folder / "taught")
    sources = (("gold", retrained, 12), ("like", retrained, 6), ("hidden", str(folder / "taught"), 6))
    for seed, (name, source, count) in enumerate(sources):
        noisy(source, folder / name, count, seed)
    return folder


def given(place: Path, which: str, **more: Any) -> dict[str, Any]:
    return {
        "unlearned": [str(place / which / "*")],
        "gold": [str(place / "gold" / "*")],
        "forget": str(place / "forget.jsonl"),
        "holdout": str(place / "holdout.jsonl"),
        **more,
    }


def table(evidence: dict[str, Any]) -> dict[tuple[str, str, str], dict[str, Any]]:
    return {(s["name"].removeprefix("privacy_"), s["split"], s["subject"]): s for s in evidence["scores"]}


def test_models_like_retrained_ones_lie_at_the_floor_and_others_above_it(place: Path, tmp_path: Path) -> None:
    """The same distribution: every interval meets the floor's. What still knows the data: each figure lies above it."""
    alike = table(exposure(**given(place, "like")))
    known = exposure(**given(place, "hidden", out=str(tmp_path / "out")))
    found = table(known)
    for name in ("epsilon", "u_lira_auc"):
        ours, floor = (alike[name, "forget", role] for role in ("after", "gold"))
        assert ours["low"] <= floor["high"] and floor["low"] <= ours["high"], name
        ours, floor = (found[name, "forget", role] for role in ("after", "gold"))
        assert ours["low"] > floor["high"], name
    assert alike["u_lira_auc", "forget", "after"]["low"] < 0.5 < alike["u_lira_auc", "forget", "after"]["high"]
    assert found["u_lira_auc", "forget", "after"]["value"] > 0.9
    assert found["forgetting_quality", "forget", "after"]["high"] < found["forgetting_quality", "forget", "gold"]["low"]
    assert found["coverage", "forget", "after"]["low"] > found["coverage", "forget", "gold"]["high"]
    too_few = [score for (name, split, _), score in found.items() if name == "klom"]
    assert {score["split"] for score in too_few} == {"forget", "holdout"}
    assert all("fewer than 100 models per side" in score["why"] for score in too_few)
    assert "1,000 scores" in found["u_lira_tpr_01", "forget", "after"]["why"], "too few for 0.1 %"
    assert any("halved" in note for note in known["notes"])
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "above the floor: distinguishable" in page and "default-src 'none'" in page
    assert json.loads((tmp_path / "out" / "evidence.json").read_text(encoding="utf-8"))["over_models"]["models"] == {
        "after": 6,
        "gold": 6,
        "reference": 6,
    }


def test_the_verb_prints_words_and_json(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    paths = [
        "--forget",
        str(place / "forget.jsonl"),
        "--unlearned",
        str(place / "like" / "*"),
        "--gold",
        str(place / "gold" / "*"),
    ]
    assert command(["exposure", *paths, "--redact", "--json"]) == 0
    evidence = json.loads(capsys.readouterr().out)
    assert all("question" not in example for example in evidence["over_models"]["examples"])
    assert all(s["why"] == "no holdout was given" for s in evidence["scores"] if "coverage" in s["name"])
    assert command(["exposure", *paths]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "U-LiRA" in said and "not measured: no holdout was given" in said
    assert "epsilon short of perfect separation" in said


def test_a_course_needs_an_order_and_a_holdout(place: Path) -> None:
    """From the model that never saw the data to the one that did: at first hardly anyone is found, at the end nearly
    all."""
    steps = [str(place / "gold" / "0"), str(place / "hidden" / "0"), str(place / "hidden" / "1")]
    evidence = exposure(**given(place, "like", course=steps))
    found = table(evidence)["course", "forget", "after"]
    points = [point["value"] for point in evidence["over_models"]["course"]]
    assert found["value"] == points[-1] > 0.8 and points[0] < 0.3 and points == sorted(points)
    without = {k: v for k, v in given(place, "like", course=steps).items() if k != "holdout"}
    with pytest.raises(BadInput, match="course: needs examples that were never trained on"):
        exposure(**without)


def test_what_is_refused_before_anything_is_read(place: Path, tmp_path: Path) -> None:
    one = str(place / "like" / "0")
    (tmp_path / "none").mkdir()
    cases = [
        (
            {"unlearned": [one]},
            r"unlearned: '1 model' is too few; give 4 at least: a distribution of models is compared with another",
        ),
        (
            {"gold": [str(place / "gold" / "[0-4]")]},
            r"gold: '5 models' is too few; give 8 at least: .*without --floor half of them",
        ),
        ({"floor": [str(place / "gold" / "[0-3]")]}, r"is given twice"),
        ({"unlearned": [str(place / "nothing" / "*")]}, r"matches no folder"),
        (
            {"unlearned": [*(str(place / "like" / str(i)) for i in range(3)), str(tmp_path / "none")]},
            r"holds no config.json",
        ),
        ({"forget": str(place / "no.jsonl")}, r"forget: .* does not exist"),
    ]
    for changes, sentence in cases:
        with pytest.raises(BadInput, match=sentence):
            exposure(**{**given(place, "like"), **changes})


def test_copies_and_strangers_are_refused(place: Path, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(place / "like" / "0", tmp_path / "copy")
    four = [str(place / "like" / str(i)) for i in range(3)]
    with pytest.raises(BadInput, match="holds the same weights as"):
        exposure(**given(place, "like", unlearned=[*four, str(tmp_path / "copy")]))
    stranger = tmp_path / "stranger"
    shutil.copytree(place / "like" / "5", stranger)
    manifest = json.loads((stranger / "tokenizer.json").read_text(encoding="utf-8"))
    vocabulary = manifest["model"]["vocab"]
    first, second = list(vocabulary)[-2:]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    (stranger / "tokenizer.json").write_text(json.dumps(manifest), encoding="utf-8")
    with pytest.raises(BadInput, match="has another tokenizer"):
        exposure(**given(place, "like", unlearned=[*four, str(stranger)]))


def test_figures_by_hand() -> None:
    """Alike: AUC 0.5 within its interval; apart: 1. The rate at 1 % needs 100 scores of retrained models."""
    draw = np.random.default_rng(0)
    hard = draw.normal(0, 2, 40)
    models = {role: {"forget": hard + draw.normal(size=(8, 40))} for role in ("after", "gold", "reference")}
    models["after"]["forget"] += 4
    found = {(s.name, s.role): s for s in exposing.population_scores(models).scores}
    assert found["privacy_u_lira_auc", "after"].value > 0.95
    floor = found["privacy_u_lira_auc", "gold"]
    assert floor.low is not None and floor.high is not None and floor.low < 0.5 < floor.high
    assert found["privacy_u_lira_tpr_1", "after"].measured and not found["privacy_u_lira_tpr_01", "after"].measured
    few = {role: {"forget": phi["forget"][:4, :20]} for role, phi in models.items()}
    assert not {(s.name, s.role): s for s in exposing.population_scores(few).scores}[
        "privacy_u_lira_tpr_1", "after"
    ].measured


@pytest.mark.slow
def test_real_trainings_of_many_seeds(tmp_path: Path) -> None:
    """Classifiers on digits with noisy labels: retrained with other seeds, and trained with the forget set (nothing was
    unlearned)."""
    draw = np.random.default_rng(0)
    rows = [
        {
            "features": np.asarray(row["image"], dtype=float).ravel().tolist(),
            "label": int(draw.integers(10)) if draw.random() < 1 / 3 else int(row["label"]),
        }
        for row in load("builtin:digits/train", "data")[:400]
    ]
    forget, holdout, rest = rows[:80], rows[80:160], rows[160:]

    def trained(name: str, data: list[dict[str, Any]], seeds: range) -> None:
        for seed in seeds:
            train(
                TrainConfig(
                    model={
                        "factory": "expunge.models.networks:MLP",
                        "arguments": {"inputs": 64, "classes": 10, "hidden": 64},
                    },
                    data=data,
                    epochs=20,
                    batch_size=40,
                    learning_rate=5e-3,
                    weight_decay=0.0,
                    seed=seed,
                    out=str(tmp_path / name / str(seed)),
                )
            )

    trained("gold", rest, range(16))
    trained("like", rest, range(100, 108))
    trained("kept", [*forget, *rest], range(200, 208))
    evidence = exposure(
        unlearned=[str(tmp_path / "like" / "*")],
        before=[str(tmp_path / "kept" / "*")],
        gold=[str(tmp_path / "gold" / "*")],
        forget=forget,
        holdout=holdout,
    )
    found = table(evidence)
    for name in ("epsilon", "u_lira_auc"):
        floor, like, kept = (found[name, "forget", role] for role in ("gold", "after", "before"))
        assert like["low"] <= floor["high"] and floor["low"] <= like["high"], name
        assert kept["low"] > max(floor["high"], like["high"]), name
    assert abs(found["u_lira_auc", "forget", "after"]["value"] - 0.5) < 0.1
    one = [found["coverage_one", "forget", role]["value"] for role in ("before", "after")]
    assert one[0] > 1.5 * one[1], "by chance 5 % are found"
