"""The worlds of fetched pictures, on drawn ones: splits that share nothing, wrong labels, and their absence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from expunge.core.errors import BadInput
from expunge.data.content import content_keys
from expunge.data.load import load
from expunge.data.worlds import splits
from expunge.data.worlds._pictures import divide, mislabel
from expunge.models.build import outline
from expunge.pipeline.worlds import config
from loading import load_script


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    draws = np.random.default_rng(0)
    images, labels = draws.integers(0, 256, (10_000, 28, 28), np.uint8), draws.integers(0, 10, 10_000, np.uint8)
    for name in ("mnist", "fashion"):
        save_file({"images": images, "labels": labels}, tmp_path / f"{name}.safetensors")
    features = np.zeros((10_000, 1280), np.float16)
    save_file({"features": features, "labels": labels}, tmp_path / "efficientnet.safetensors")
    monkeypatch.setenv("EXPUNGE_PICTURES", str(tmp_path))
    splits.cache_clear()
    yield
    splits.cache_clear()


def test_splits_share_no_picture_and_follow_the_seed(drawn: None) -> None:
    found = divide("mnist", 0)
    assert {name: len(rows) for name, rows in found.items()} == {"train": 6000, "holdout": 2000, "test": 2000}
    pictures = {row["image"].tobytes() for rows in found.values() for row in rows}
    assert len(pictures) == 10_000 and all(0 <= float(row["image"].max()) <= 1 for row in found["test"])
    other = divide("mnist", 1)["test"]
    assert content_keys(other) != content_keys(found["test"])


def test_a_wrong_label_is_never_the_right_one_and_any_other_is_drawn() -> None:
    rows = [{"label": i % 10} for i in range(900)]
    wrong = mislabel(rows, 0, "test")
    shifts = Counter((new["label"] - old["label"]) % 10 for new, old in zip(wrong, rows, strict=True))
    assert set(shifts) == set(range(1, 10)) and min(shifts.values()) > 60
    assert wrong == mislabel(rows, 0, "test") and wrong != mislabel(rows, 1, "test")


@pytest.mark.parametrize("pictures", ["mnist", "fashion", "efficientnet"])
def test_the_noisy_worlds_mislabel_what_is_to_go_and_the_holdout(pictures: str, drawn: None) -> None:
    found, clean = splits(f"{pictures}_noisy", 0), divide(pictures, 0)
    assert {name: len(rows) for name, rows in found.items()} == {
        "forget": 500,
        "retain": 5500,
        "holdout": 1000,
        "test": 2000,
    }
    for name, rows in (("forget", clean["train"]), ("holdout", clean["holdout"])):
        assert all(a["label"] != b["label"] for a, b in zip(found[name], rows, strict=False))
    assert all(a["label"] == b["label"] for a, b in zip(found["retain"], clean["train"][500:], strict=True))


def test_the_convolutional_network_has_the_rows_of_the_perceptron(drawn: None) -> None:
    ours, theirs = splits("mnist_noisy_conv", 1), splits("mnist_noisy", 1)
    assert list(ours) == list(theirs)
    assert all(content_keys(ours[name]) == content_keys(theirs[name]) for name in ours)


def test_without_the_pictures_it_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_PICTURES", str(tmp_path / "none"))
    splits.cache_clear()
    with pytest.raises(BadInput, match="scripts/fetch_pictures fashion"):
        load("builtin:fashion/train", "data")


@pytest.mark.parametrize("world", ["mnist", "mnist_noisy_conv", "fashion_noisy", "efficientnet_noisy"])
def test_the_model_that_a_world_names_takes_its_rows(world: str, drawn: None) -> None:
    found = config(f"builtin:{world}")
    assert isinstance(found.model, dict)
    rows = [row for name in ([found.data] if isinstance(found.data, str) else found.data) for row in load(name, "data")]
    assert len(rows) == 6000
    outline(found.model, 0).accepts("data", rows)


def test_the_network_of_the_features_is_efficientnet_lite0() -> None:
    """As many tensors as the published weights (296), and TensorFlow's padding: a stride-th of a side."""
    script = load_script("fetch_pictures")
    layers = script.new_network()
    assert len(layers.state_dict()) == 296
    assert sum(p.numel() for p in layers.parameters()) == 4_652_008
    with torch.inference_mode():
        assert layers.eval()[:-1](torch.zeros(1, 3, 33, 33)).shape == (1, 1280)
        assert layers[0](torch.zeros(1, 3, 33, 32)).shape == (1, 32, 17, 16)
    row = torch.arange(4.0).view(1, 1, 1, 4).expand(1, 1, 4, 4)
    one = script.Convolution(1, 1, 3, 2, bias=False)
    torch.nn.init.ones_(one.weight)
    assert one(row)[0, 0, 0].tolist() == [9.0, 15.0], "of an even side the padding is behind, none before"
