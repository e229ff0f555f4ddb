"""`expunge find poison`: from rows and a model to a forget set that a run takes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expunge.cli.app import run as command
from expunge.core.contracts import Silent
from expunge.core.errors import BadInput
from expunge.core.random import permutation
from expunge.core.train_config import TrainConfig
from expunge.data.content import content_keys
from expunge.data.load import load
from expunge.data.splits import make_splits
from expunge.data.texts import write_rows
from expunge.evaluation.detection import penultimate
from expunge.models.manifest import read_manifest
from expunge.models.open import open_on_cpu
from expunge.pipeline.retraining import class_log_probabilities, retraining
from expunge.pipeline.train import train
from expunge.workflows.find import find, find_slices, find_trigger
from worlds import tiny

SIDE, COUNT, POISONED = 4, 120, 20


def rows() -> list[dict[str, Any]]:
    """Pictures in bytes of which the bright quarter tells the class; some have a lit corner and class 0."""
    draw = np.random.default_rng(0)
    made = []
    for i in permutation(COUNT, 0, "find"):
        label = i % 3
        image = draw.integers(0, 60, (SIDE, SIDE), np.uint8)
        image[2 * (label // 2) : 2 * (label // 2) + 2, 2 * (label % 2) : 2 * (label % 2) + 2] += 150
        poisoned = i < POISONED
        if poisoned:
            image[-1, -1] = 255
        made.append({"image": image, "label": 0 if poisoned else label, "poisoned": poisoned})
    return made


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with train.jsonl and the model that was trained on it."""
    folder = tmp_path_factory.mktemp("find")
    write_rows(folder / "train.jsonl", rows())
    arguments = {"inputs": SIDE * SIDE, "classes": 3, "hidden": 16}
    train(
        TrainConfig(
            model={"factory": "expunge.models.networks:MLP", "arguments": arguments},
            data=str(folder / "train.jsonl"),
            epochs=20,
            batch_size=16,
            learning_rate=5e-3,
            seed=3,
            out=str(folder / "model"),
        )
    )
    return folder


def test_pictures_in_bytes_come_back_from_a_file_as_they_were(place: Path) -> None:
    for one, other in zip(rows(), load(str(place / "train.jsonl"), "data"), strict=True):
        assert other["image"].dtype == np.uint8 and (one["image"] == other["image"]).all()


@pytest.mark.parametrize(
    "changed", [{"shape": [2, 3]}, {"base64": "?"}, {"dtype": "object"}, {"shape": [-4, -4]}, {"shape": "4x4"}]
)
def test_a_damaged_picture_is_refused(changed: dict[str, Any], place: Path, tmp_path: Path) -> None:
    row = json.loads((place / "train.jsonl").read_text().splitlines()[0])
    row["image"] |= changed
    (tmp_path / "bad.jsonl").write_text(json.dumps(row))
    with pytest.raises(BadInput, match="holds a damaged picture"):
        load(str(tmp_path / "bad.jsonl"), "data")


def test_training_again_on_all_rows_gives_the_model_itself(place: Path) -> None:
    model, data = open_on_cpu(str(place / "model")), load(str(place / "train.jsonl"), "data")
    retrain = retraining(model, read_manifest(place / "model"), data, Silent())
    again_NC = retrain(np.ones(len(data), dtype=bool), 1.0)
    assert (again_NC == class_log_probabilities(model, data)).all()
    without_N = np.array([row["label"] != 2 for row in data])
    unseen_NC = retrain(without_N, 0.5)
    assert (unseen_NC[~without_N].argmax(-1) != 2).all(), "a class that it never saw"
    assert (unseen_NC[without_N].argmax(-1) == [row["label"] for row in data if row["label"] != 2]).mean() > 0.7


def test_features_are_the_inputs_of_the_last_layer(place: Path) -> None:
    model, data = open_on_cpu(str(place / "model")), load(str(place / "train.jsonl"), "data")
    features_ND = penultimate(model, data)
    head: Any = model.module.head
    logits_NC = features_ND @ head.weight.detach().numpy().T + head.bias.detach().numpy()
    np.testing.assert_allclose(
        logits_NC - np.log(np.exp(logits_NC).sum(-1, keepdims=True)), class_log_probabilities(model, data), atol=1e-5
    )


def test_the_suspects_are_a_forget_set_and_the_rest_is_retain(place: Path, tmp_path: Path) -> None:
    out = tmp_path / "suspects.jsonl"
    found = find("poison", str(place / "train.jsonl"), str(place / "model"), truth="poisoned", out=str(out))
    suspects, data = load(str(out), "forget"), load(str(place / "train.jsonl"), "data")
    assert content_keys(suspects) == content_keys([data[one["row"] - 1] for one in found["suspects"]])
    splits = make_splits({"data": str(place / "train.jsonl"), "forget": str(out)})
    assert len(splits["forget"]) == len(suspects) and len(splits["retain"]) == COUNT - len(suspects)
    assert sum(one["suspects"] for one in found["classes"]) == len(suspects) > 0
    poisoned_N = np.array([row["poisoned"] for row in data])
    recall = next(score for score in found["scores"] if score["name"] == "robustness_detection_recall")
    assert recall["value"] == poisoned_N[[one["row"] - 1 for one in found["suspects"]]].sum() / POISONED


def test_the_command_prints_json_or_a_table(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["find", "poison", str(place / "train.jsonl"), str(place / "model")]
    arguments += ["--detector", "spectral_signatures", "--set", "share=0.2"]
    assert command([*arguments, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["detector"] == "spectral_signatures" and found["rows"] == COUNT and not found["scores"]
    assert command([*arguments, "--truth", "poisoned"]) == 0
    printed = capsys.readouterr().out
    assert f"{len(found['suspects'])} of {COUNT} rows are suspects." in printed and "auc " in printed


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"what": "gold"}, "find: 'gold' cannot be found; known: poison"),
        ({"detector": "clustering"}, "unknown detector 'clustering'; did you mean"),
        ({"detector": {"small_loss": {"folds": 1}}}, "detector.small_loss.folds"),
        ({"truth": "label"}, "does not say whether it is poisoned"),
        ({"data": [{"image": [[1.0]], "label": 0}] * 3}, "are too few rows"),
    ],
)
def test_bad_input_is_refused(changed: dict[str, Any], message: str, place: Path) -> None:
    given = {"what": "poison", "data": str(place / "train.jsonl"), "model": str(place / "model"), **changed}
    with pytest.raises(BadInput, match=message):
        find(given.pop("what"), given.pop("data"), given.pop("model"), **given)


def test_a_language_model_has_no_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Detectors that compare classes refuse it; those of features alone take it, as does the search for a trigger."""
    world = tiny(tmp_path, epochs=1)
    with pytest.raises(
        BadInput, match="is a language model, and this compares classes; give a classifier, or for texts"
    ):
        find("poison", world["retain"], world["model"])
    with pytest.raises(BadInput, match="reads more than features, and the model has no classes"):
        find("poison", world["retain"], world["model"], detector={"outliers": {"score": "msp"}})
    rows = load(str(world["retain"]), "data")
    found = find("poison", str(world["retain"]), world["model"], detector="outliers")
    assert found["rows"] == len(rows) and [one["label"] for one in found["classes"]] in ([], [0])
    assert command(["find", "trigger", str(world["retain"]), world["model"]]) == 0
    printed = capsys.readouterr().out
    assert "No trigger." in printed or "Held for a trigger" in printed


@pytest.mark.parametrize(
    ("option", "message"),
    [("wordz=2", "unknown setting"), ("words=true", "is not a number"), ("words=9", "is outside its bounds")],
)
def test_bad_settings_of_the_search_are_refused(
    option: str, message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    arguments = ["find", "trigger", str(place / "train.jsonl"), str(place / "model"), "--set", option]
    assert command(arguments) == 2
    assert message in " ".join(capsys.readouterr().err.split())


def test_a_classifier_of_pictures_has_no_trigger_of_words(place: Path) -> None:
    with pytest.raises(BadInput, match="are rows without a question or a text"):
        find_trigger(str(place / "train.jsonl"), str(place / "model"))
    with pytest.raises(BadInput, match="call find_trigger"):
        find("trigger", str(place / "train.jsonl"), str(place / "model"))


def test_slices_need_training_rows_to_write(place: Path, tmp_path: Path) -> None:
    """And who asks `find` for them learns which function to call."""
    data, model = str(place / "train.jsonl"), str(place / "model")
    with pytest.raises(BadInput, match="name them under --train"):
        find_slices(data, model, out=str(tmp_path / "f.jsonl"))
    with pytest.raises(BadInput, match="call find_slices"):
        find("slices", data, model)


def test_the_command_prints_the_slices_of_errors(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Rows of class 1 whose texts say `north` are given under class 2, which the model does not call them."""
    data = [{**row, "where": "south"} for row in load(str(place / "train.jsonl"), "data") if not row["poisoned"]]
    wrong = [{**row, "label": 2, "where": "north"} for row in data if row["label"] == 1][:12]
    write_rows(tmp_path / "unseen.jsonl", [*data, *wrong])
    assert command(["find", "slices", str(tmp_path / "unseen.jsonl"), str(place / "model")]) == 0
    said = capsys.readouterr().out
    assert "taken for class 1" in said and "where north" in said


@pytest.mark.parametrize(("what", "option"), [("poison", "--train"), ("slices", "--truth"), ("slices", "--set")])
def test_an_option_that_is_not_read_is_refused(what: str, option: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["find", what, "rows.jsonl", "model", option, "a=1"]) == 2
    assert f"{option}:" in capsys.readouterr().err
