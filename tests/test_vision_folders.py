"""Folders of transformers' image classifiers, from the request to a folder that transformers opens again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

import expunge
from expunge.core.contracts import want_of
from expunge.core.errors import BadInput
from expunge.models.open import open_on_cpu

SIDE, CLASSES = 16, 3
CONFIGS: dict[str, Any] = {
    "vit": transformers.ViTConfig(
        hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, image_size=SIDE, patch_size=8
    ),
    "resnet": transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_channels=3
    ),
    "convnext": transformers.ConvNextConfig(hidden_sizes=[8, 16], depths=[1, 1], num_stages=2, patch_size=2),
}
METHODS = {"vit": "npo", "resnet": "ssd", "convnext": "finetune"}


def folder_of(kind: str, place: Path) -> Path:
    """A tiny classifier of random weights, as transformers writes it."""
    torch.manual_seed(0)
    config = CONFIGS[kind]
    config.num_labels = CLASSES
    transformers.AutoModelForImageClassification.from_config(config).save_pretrained(place / kind)
    transformers.ViTImageProcessor(size={"height": SIDE, "width": SIDE}).save_pretrained(place / kind)
    return place / kind


def pictures(count: int, seed: int) -> list[dict[str, Any]]:
    draw = np.random.default_rng(seed)
    return [
        {"image": draw.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8).tolist(), "label": i % CLASSES}
        for i in range(count)
    ]


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_folder_goes_through_a_request(kind: str, tmp_path: Path) -> None:
    """Opened, planned, changed, audited, saved, and opened again by transformers with the same outputs."""
    place = folder_of(kind, tmp_path)
    for seed, (name, count) in enumerate({"forget": 6, "retain": 12, "holdout": 6}.items()):
        lines = [json.dumps(row) + "\n" for row in pictures(count, seed)]
        (tmp_path / f"{name}.jsonl").write_text("".join(lines))
    request = {
        "model": str(place),
        **{name: str(tmp_path / f"{name}.jsonl") for name in ("forget", "retain", "holdout")},
        "method": METHODS[kind],
        "budget": {"steps": 2, "batch_size": 6, "learning_rate": 1e-3, "stop": "none", "floor": 0.0},
        "out": str(tmp_path / "run"),
    }
    run = expunge.run(request)
    evidence = json.loads((tmp_path / "run/evidence.json").read_text())
    measured = {(s["name"], s["subject"]) for s in evidence["scores"] if s["status"] == "measured"}
    assert measured >= {(f"{split}_accuracy", who) for split in ("forget", "retain") for who in ("before", "after")}
    assert run is not None
    audited = expunge.audit(str(tmp_path / "run/model"), forget=request["forget"], holdout=request["holdout"])
    assert audited is not None
    ours = open_on_cpu(str(tmp_path / "run/model"))
    theirs = transformers.AutoModelForImageClassification.from_pretrained(tmp_path / "run/model").eval()
    rows = [{**row, "image": np.array(row["image"], np.uint8)} for row in pictures(4, 9)]
    pixels = torch.from_numpy(np.stack([row["image"] for row in rows])).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        wanted = theirs(pixel_values=pixels).logits.log_softmax(-1)
        found = ours.forward(ours.collate(rows), want_of({"logits"})).logits_BTV[:, 0].log_softmax(-1)
    torch.testing.assert_close(found, wanted, atol=1e-5, rtol=1e-5)
    before = transformers.AutoModelForImageClassification.from_pretrained(place).eval()
    with torch.no_grad():
        assert not torch.equal(before(pixel_values=pixels).logits, theirs(pixel_values=pixels).logits)


def test_shares_of_brightness_are_read_as_the_bytes_that_they_stand_for(tmp_path: Path) -> None:
    """A processor scales bytes; pixels in 0-1, as other families take them, must not be scaled twice."""
    model = open_on_cpu(str(folder_of("vit", tmp_path)))
    bytes_ = [{**row, "image": np.array(row["image"], np.uint8)} for row in pictures(3, 0)]
    shares = [{**row, "image": (row["image"] / 255).astype(np.float32)} for row in bytes_]
    found = [model.collate(rows).inputs["pixel_values"] for rows in (bytes_, shares)]
    torch.testing.assert_close(found[0], found[1], atol=0.01, rtol=0)


def test_noise_that_leaves_the_range_is_cut_off_and_other_units_are_refused(tmp_path: Path) -> None:
    model = open_on_cpu(str(folder_of("vit", tmp_path)))
    (row,) = pictures(1, 0)
    shares = np.array(row["image"]) / 255
    noisy = model.collate([{**row, "image": (shares * 1.4 - 0.2).astype(np.float32)}]).inputs["pixel_values"]
    assert float(noisy.min()) == -1 and float(noisy.max()) == 1
    with pytest.raises(BadInput, match="give 0-255, or 0-1"):
        model.accepts("forget", [{**row, "image": (shares * 4 - 2).astype(np.float32)}])


@pytest.mark.parametrize("kind", CONFIGS)
def test_a_folder_of_pickles_is_refused(kind: str, tmp_path: Path) -> None:
    place = folder_of(kind, tmp_path)
    (place / "model.safetensors").unlink()
    torch.save({}, place / "pytorch_model.bin")
    with pytest.raises(BadInput, match="holds only pickle weights"):
        open_on_cpu(str(place))


def test_a_folder_that_does_not_say_how_pictures_are_prepared_is_refused(tmp_path: Path) -> None:
    place = folder_of("vit", tmp_path)
    (place / "preprocessor_config.json").unlink()
    with pytest.raises(BadInput, match="no processor that can be read"):
        open_on_cpu(str(place))
