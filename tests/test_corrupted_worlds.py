"""Drawn shapes, and the worlds of which a part is corrupted: what is in them, and what each split is."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.core.request import Request
from expunge.data.content import content_keys
from expunge.data.load import load
from expunge.data.splits import make_splits
from expunge.data.worlds import shapes, splits
from expunge.data.worlds._corrupt import SHARES, with_cue, with_patch
from expunge.evaluation.scores import score_names
from expunge.models.build import outline
from expunge.pipeline.worlds import config

WORLDS = ("digits_backdoor", "digits_confusion", "digits_cue", "shapes_biased")


def test_every_factor_of_a_shape_is_on_its_row_and_in_its_picture() -> None:
    rows = splits("shapes", 0)["test"]
    for row in rows:
        assert shapes.CLASSES[row["label"]] == (row["colour"], row["shape"])
        bright = row["image"][row["image"].max(2) > 0.55]
        assert row["colour"] == ("red", "green", "blue")[int(bright.mean(0).argmax())], row["class_name"]
    by_kind = {(row["label"], row["texture"]) for row in rows}
    assert len(by_kind) == 27 and len(rows) == 540, "each class has each texture"
    filled = {shape: np.mean([r["image"].mean() for r in rows if r["shape"] == shape]) for shape in shapes.SHAPES}
    assert filled["cross"] < min(filled["square"], filled["disc"])


def test_shapes_follow_the_seed_and_no_picture_is_drawn_twice() -> None:
    one, other = splits("shapes", 0), splits("shapes", 1)
    assert content_keys(one["train"]) == content_keys(shapes.shapes(0)["train"])
    assert not content_keys(one["train"]) & content_keys(other["train"])
    assert not content_keys(one["train"]) & content_keys(one["test"])


def test_a_request_selects_by_a_factor() -> None:
    found = make_splits({"data": "builtin:shapes/train", "forget": {"where": {"texture": "dots", "colour": "red"}}})
    assert {(row["texture"], row["colour"]) for row in found["forget"]} == {("dots", "red")}
    assert len(found["forget"]) + len(found["retain"]) == 1800


@pytest.mark.parametrize("world", WORLDS)
def test_what_is_known_is_forgotten_and_the_unknown_rest_stays(world: str) -> None:
    found = splits(world, 0)
    everything = content_keys(found["train"])
    assert len(everything) == len(found["train"])
    for share in SHARES:
        known, retain = content_keys(found[f"known_{share}"]), content_keys(found[f"retain_{share}"])
        assert not known & retain and known | retain == everything
        assert len(known) == round(len(found["poison"]) * share / 100)
        assert len(retain & content_keys(found["poison"])) == len(found.get(f"unknown_{share}", []))
    assert sum(row["poisoned"] for row in found["train"]) == len(found["poison"])
    untouched = content_keys(found["clean"]) | content_keys(found["test"])
    assert not untouched & content_keys(found["holdout"]) and not everything & content_keys(found["holdout"])


@pytest.mark.parametrize("world", WORLDS)
def test_the_plan_takes_a_corrupted_world(world: str) -> None:
    name = f"builtin:{world}"
    rows = [row for source in config(name).data for row in load(source, "data")]
    outline(config(name).model, 0).accepts("data", rows)
    probe = next(split for split in splits(world, 0) if split in ("triggered", "confused", "conflicting"))
    request = Request.parse({"model": name, "forget": f"{name}/known_50", "out": "runs/a"})
    made = make_splits(
        {"forget": request.forget, "retain": f"{name}/retain_50", "test": f"{name}/test"},
        probes={probe: f"{name}/{probe}", "unknown": f"{name}/unknown_50"},
    )
    assert {"forget", "retain", "test", probe, "unknown"} <= set(made)
    assert {f"{probe}_accuracy", "unknown_accuracy"} <= set(score_names(frozenset({"labels", "nll"}), made, True))


def test_a_trigger_is_a_patch_and_the_target_s_label() -> None:
    found = splits("digits_backdoor", 0)
    for row in (*found["poison"], *found["triggered"], *found["holdout"]):
        assert row["label"] == 0 and (row["image"][-2:, -2:] == 1).all()
    assert not any((row["image"][-2:, -2:] == 1).all() for row in (*found["clean"], *found["test"]))
    assert {row["label"] for row in found["unknown_50"]} == set(range(1, 10)), "their own labels"
    image = np.zeros((28, 28), np.float32)
    assert with_patch(image).sum() == 49 and image.sum() == 0


def test_confused_labels_are_swapped_and_the_unknown_bear_their_own() -> None:
    found = splits("digits_confusion", 0)
    assert {row["label"] for row in found["poison"]} == {3, 5} == {row["label"] for row in found["confused"]}
    wrong = {row["image"].tobytes(): row["label"] for row in found["poison"]}
    assert all(wrong[row["image"].tobytes()] == 8 - row["label"] for row in found["unknown_50"])


def test_a_cue_tells_the_class_and_a_conflicting_one_the_next() -> None:
    places = [with_cue(np.zeros((8, 8)), label, 10) for label in range(10)]
    assert all(place.sum() == 2 for place in places) and sum(places).max() == 1, "no two classes share a place"
    found = splits("digits_cue", 0)
    for rows, ahead in ((found["poison"], 0), (found["conflicting"], 1)):
        assert all((row["image"][places[(row["label"] + ahead) % 10] == 1] == 1).all() for row in rows)


def test_a_biased_texture_is_the_shape_s_own() -> None:
    found = splits("shapes_biased", 0)
    own = dict(zip(shapes.SHAPES, shapes.TEXTURES, strict=True))
    assert all(row["texture"] == own[row["shape"]] for row in (*found["poison"], *found["holdout"]))
    assert all(row["texture"] != own[row["shape"]] for row in found["conflicting"])
    assert {row["texture"] for row in found["clean"]} == set(shapes.TEXTURES)
