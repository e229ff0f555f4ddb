"""Protections of pictures, the trainers that break them, and `expunge mark --unlearnable`, on pictures made here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import correlate

from expunge.cli.app import run as command
from expunge.core.errors import BadInput
from expunge.core.train_config import TrainConfig
from expunge.data.load import load
from expunge.data.texts import write_rows
from expunge.methods._seen import like, planes
from expunge.methods.protecting import Pictures, convolve, features, train_network
from expunge.methods.protections.class_filters import class_filters
from expunge.methods.protections.class_noise import class_noise
from expunge.methods.protections.clusters import clusters
from expunge.methods.trainers.adversarial import Perturbation
from expunge.methods.trainers.augmented import compress
from expunge.models.open import open_on_cpu
from expunge.pipeline.train import train
from expunge.training.stopping import figures
from expunge.workflows.protect import protect

SIDE, COUNT, CLASSES = 8, 90, 3


def rows() -> list[dict[str, Any]]:
    """Pictures in bytes of which the bright band tells the class."""
    draw = np.random.default_rng(0)
    made = []
    for i in range(COUNT):
        image = draw.integers(0, 60, (SIDE, SIDE), np.uint8)
        image[2 * (i % CLASSES) : 2 * (i % CLASSES) + 2] += 150
        made.append({"image": image, "label": i % CLASSES})
    return made


@pytest.fixture(scope="module")
def pictures() -> Pictures:
    pixels = torch.from_numpy(np.stack([row["image"] for row in rows()]).astype(np.float32) / 255)[:, None]
    return Pictures(pixels, torch.arange(COUNT) % CLASSES, 7)


def test_a_filter_of_each_class_is_a_correlation_at_full_brightness(pictures: Pictures) -> None:
    found = class_filters(blur=0.2)(pictures)
    one, other = found[0, 0].numpy(), pictures.pixels_NCHW[0, 0].numpy()
    kernel = np.linalg.lstsq(
        np.stack([correlate(other, cell.reshape(3, 3), mode="constant").ravel() for cell in np.eye(9)], 1),
        one.ravel(),
        rcond=None,
    )[0]
    np.testing.assert_allclose(correlate(other, kernel.reshape(3, 3), mode="constant"), one, atol=1e-5)
    largest = np.sort(kernel)[::-1]
    assert largest[1] / largest[0] <= 0.2 + 1e-4, "one cell leads, the others are at most the blur"
    np.testing.assert_allclose(found.amax((1, 2, 3)), 1, atol=1e-6)
    assert torch.equal(found, class_filters(blur=0.2)(pictures))


def test_kernels_are_alike_in_all_channels() -> None:
    x = torch.rand(2, 1, 5, 5, generator=torch.Generator().manual_seed(0)).repeat(1, 3, 1, 1)
    found = convolve(x, torch.arange(18.0).reshape(2, 3, 3))
    assert torch.allclose(found[:, 0], found[:, 2])
    np.testing.assert_allclose(
        found[1, 1], correlate(x[1, 1].numpy(), np.arange(9.0, 18).reshape(3, 3), mode="constant"), rtol=1e-5
    )


def test_the_noise_of_a_class_is_one_pattern_that_a_network_learns_in_place_of_pictures(pictures: Pictures) -> None:
    grey = Pictures(0.4 + 0.2 * pictures.pixels_NCHW, pictures.labels_N, 7)
    found = class_noise(radius=0.1, rounds=2)(grey)
    moved = found - grey.pixels_NCHW
    assert moved.abs().max() <= 0.1 + 1e-6
    torch.testing.assert_close(moved[0], moved[CLASSES])
    assert not torch.allclose(moved[0], moved[1])


def test_pictures_of_a_cluster_move_towards_the_next_centre(pictures: Pictures) -> None:
    """Under the network that was clustered, their features are nearer to another cluster's than before."""
    found = clusters(radius=0.5, count=2, epochs=1, steps=30)(pictures)
    network = train_network(pictures, 1)
    before, after = (features(network, x).softmax(-1) for x in (pictures.pixels_NCHW, found))
    assert (found - pictures.pixels_NCHW).abs().max() <= 0.5 + 1e-6
    first = before[0]
    assert (after[0] - first).norm() > 0.01 and 0 <= found.min() <= found.max() <= 1


def test_the_command_writes_pictures_of_the_same_form(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_rows(tmp_path / "pictures.jsonl", rows())
    arguments = ["mark", str(tmp_path / "pictures.jsonl"), "--out", str(tmp_path / "out"), "--secret", "3", "--json"]
    assert command([*arguments, "--unlearnable", "class_filters", "--set", "blur=0.1"]) == 0
    done = json.loads(capsys.readouterr().out)
    assert done["options"] == {"blur": 0.1} and done["rows"] == COUNT and done["largest_change"] > 0
    published = load(done["published"], "data")
    assert all(row["image"].dtype == np.uint8 and row["image"].shape == (SIDE, SIDE) for row in published)
    assert [row["label"] for row in published] == [row["label"] for row in rows()]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"scheme": "cuda"}, "unlearnable: unknown protection 'cuda'"),
        ({"scheme": {"class_noise": {"radius": 2}}}, r"unlearnable\.class_noise\.radius"),
        ({"data": [{"image": np.zeros((4, 5)), "label": 0}] * 2}, "one square shape"),
        ({"data": [{"image": np.full((4, 4), 3.0), "label": 0}] * 2}, "has pixels from 3 to 3"),
        ({"data": [{"image": np.zeros((4, 4)), "label": 0}] * 2}, "fewer than two classes"),
        ({"data": [{"text": "a"}]}, "is not a picture with a label"),
    ],
)
def test_what_cannot_be_protected_is_refused(changed: dict[str, Any], message: str, tmp_path: Path) -> None:
    given = {"data": rows(), "scheme": "class_filters", **changed}
    with pytest.raises(BadInput, match=message):
        protect(given["data"], out=str(tmp_path / "out"), scheme=given["scheme"])
    assert not (tmp_path / "out").exists()


def test_options_of_the_other_kind_of_mark_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["mark", "rows.jsonl", "--out", str(tmp_path / "out")]
    assert command([*arguments, "--unlearnable", "class_noise", "--count", "20"]) == 2
    assert "--count: '20' says nothing to protected pictures" in capsys.readouterr().err
    assert command([*arguments, "--set", "radius=0.1"]) == 2
    assert "says nothing to marks of texts" in capsys.readouterr().err


def test_an_adversary_stays_within_its_radius_and_raises_the_loss() -> None:
    torch.manual_seed(0)
    x, weights = torch.rand(4, 6, 6), torch.randn(6, 6)
    shift = Perturbation(0.1)
    first = (shift(x) * weights).sum()
    shift.ascend(first, 0.2)
    moved = shift(x)
    assert (moved - x).abs().max() <= 0.1 + 1e-6 and (moved * weights).sum() > first
    assert moved.min() >= x.min() and moved.max() <= x.max()


@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 8, 8, 3), (2, 3, 8, 8)])
def test_any_order_of_dimensions_comes_back(shape: tuple[int, ...]) -> None:
    x = torch.rand(shape)
    assert planes(x).shape[-2:] == (8, 8) and torch.equal(like(planes(x), x), x)


def test_a_jpeg_of_low_quality_takes_a_faint_checkerboard_away() -> None:
    board = torch.tensor([[(i + j) % 2 for j in range(8)] for i in range(8)])
    x = (0.5 + 0.05 * board.float())[None, None]
    assert (compress(x, 5) - compress(x, 5).mean()).abs().max() < 0.01 < (compress(x, 95) - 0.5).abs().max()


@pytest.mark.parametrize("trainer", [{"adversarial": {"radius": 0.1, "moves": 1}}, {"augmented": {"quality": 50}}])
def test_a_model_is_trained_against_changes_of_its_pictures(trainer: dict[str, Any], tmp_path: Path) -> None:
    """It reads the clean pictures, and another training of the same seed gives the same weights."""
    write_rows(tmp_path / "train.jsonl", rows())
    model = {"factory": "expunge.models.networks:MLP", "arguments": {"inputs": SIDE**2, "classes": CLASSES}}
    fields = {"model": model, "data": str(tmp_path / "train.jsonl"), "epochs": 6, "learning_rate": 1e-2}
    made = [train(TrainConfig(**fields, trainer=trainer, out=str(tmp_path / name))) for name in ("a", "b")]
    first, second = (open_on_cpu(str(place)) for place in made)
    assert figures(first, rows())["accuracy"] > 0.9
    assert first.fingerprint() == second.fingerprint()
