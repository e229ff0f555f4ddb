"""Views of a classifier, worked by hand: weighed pixels, confusions, the map of features, and their way to the page."""

from __future__ import annotations

import base64
import io
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from readouts import classifier
from torch import nn

from expunge.evaluation.attributions import integrated_gradients
from expunge.ledger.examples import read_examples, write_examples
from expunge.models.classifier import Classifier
from expunge.models.networks import Digits
from expunge.pipeline.exhibits import data_uri
from expunge.pipeline.pictures import confusions, feature_map, weighed_pixels
from expunge.pipeline.views import NO_VIEWS, Views, views_of
from expunge.report._classifier import confusion, explanations
from expunge.report._classifier import feature_map as drawn_map
from expunge.report._examples import groups


class Left(nn.Module):
    """Class 1 against class 0 by the sum of the left column alone."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(4, 2, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[0.0, 0, 0, 0], [2.0, 0, 2.0, 0]]))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1))


PICTURE = np.array([[1.0, 0.5], [0.5, 1.0]], dtype=np.float32)


def test_pixels_add_up_to_the_rise_of_the_probability() -> None:
    """From black, where both classes have .5, to 1 / (1 + e^-3): two thirds by the upper left pixel, a third by the
    lower left one."""
    rows = [{"image": PICTURE, "label": 1}, {"image": PICTURE, "label": 0}]
    found = integrated_gradients(Classifier(Left()), rows, steps=400)
    assert found is not None and found.shape == (2, 2, 2)
    rise = 1 / (1 + math.exp(-3)) - 0.5
    assert found[0] == pytest.approx(np.array([[2 / 3, 0], [1 / 3, 0]]) * rise, abs=1e-5)
    assert found[1] == pytest.approx(-found[0], abs=1e-6), "the other class loses as much"


def test_colours_are_added_up_and_tables_have_no_pixels() -> None:
    class Sum(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor([1.0, 0.0]))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flatten(1).sum(1, keepdim=True) * self.scale

    model, picture = Classifier(Sum()), np.full((4, 3, 3), 0.1, dtype=np.float32)
    found = integrated_gradients(model, [{"image": picture, "label": 0}], steps=400)
    assert found is not None and found.shape == (1, 4, 3)
    assert found == pytest.approx((1 / (1 + math.exp(-3.6)) - 0.5) / 12, abs=1e-5)
    assert integrated_gradients(model, [{"features": np.ones(3, np.float32), "label": 0}]) is None
    model.module.forward = torch.no_grad()(model.module.forward)
    assert integrated_gradients(model, [{"image": picture, "label": 0}]) is None


def test_the_views_of_a_network_are_of_the_same_rows_for_every_model() -> None:
    draw = np.random.default_rng(0)
    rows = [{"image": draw.random((8, 8)).astype(np.float32), "label": i % 10} for i in range(40)]
    splits = {"forget": rows[:10], "retain": rows[10:]}
    found = [views_of(Classifier(Digits(width=8).eval()), splits, 3) for _ in range(2)]
    assert [view.rows for view in found] == [found[0].rows] * 2 and len(found[0].rows) == 4
    for view in found:
        assert view.features["forget"].shape == (10, 64) and view.features["retain"].shape == (30, 64)
        assert view.pixels is not None and view.pixels.shape == (4, 8, 8)


def reads() -> dict[str, Any]:
    sure = [[0.9, 0.05, 0.05], [0.05, 0.9, 0.05], [0.05, 0.05, 0.9]]
    after = {
        "test": classifier([sure[0], sure[1]], [0, 1], "test"),
        "test_forget": classifier([sure[1], sure[0], sure[2]], [2, 2, 2], "test_forget"),
        "forget": classifier([sure[1]], [2]),
        "retain": classifier([sure[0], sure[1]], [0, 1], "retain"),
    }
    before = {
        name: classifier(np.exp(one.logp_NC).tolist(), one.labels_N.tolist(), name) for name, one in after.items()
    }
    return {"before": before, "after": after}


def test_confusions_count_unseen_rows_and_name_the_forgotten_class() -> None:
    found = confusions(reads())
    assert found["counts"]["after"] == [[1, 0, 0], [0, 1, 0], [1, 1, 1]]
    assert found["splits"] == ["test", "test_forget"] and found["forgotten"] == [2]
    plot = confusion({"confusions": found})
    assert plot is not None and [one["y"] for one in plot.figure["data"]] == [["0", "1", "2*"]] * 2
    assert plot.figure["data"][1]["z"][2] == [0.333, 0.333, 0.333] and "The label with a star" in plot.caption
    many = classifier([[1 / 21] * 21], [0], "test")
    assert confusions({"after": {"test": many}}) == {}
    assert confusion({}) is None


def test_the_map_holds_the_main_directions_of_each_models_own_features() -> None:
    """Points in a plane of 5 dimensions come out with their distances."""
    draw = np.random.default_rng(0)
    plane = np.linalg.qr(draw.normal(size=(5, 2)))[0].T
    points = {"retain": draw.normal(size=(20, 2)), "forget": draw.normal(size=(6, 2)) + 3}
    views = {"after": Views({name: x @ plane for name, x in points.items()}), "before": NO_VIEWS}
    found = feature_map(views)
    assert set(found) == {"after"}
    for a, b in (("retain", "retain"), ("forget", "retain")):
        expected = np.linalg.norm(points[a][:, None] - points[b][None], axis=-1)
        ours = np.array(found["after"][a])[:, None] - np.array(found["after"][b])[None]
        assert np.linalg.norm(ours, axis=-1) == pytest.approx(expected, abs=3e-3)
    plot = drawn_map({"feature_map": found})
    assert plot is not None and [one["name"] for one in plot.figure["data"]] == ["retain", "forget"]
    assert drawn_map({}) is None


def pixels_of(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2]))))


def test_weighed_pixels_have_one_scale_for_all_models(tmp_path: Path) -> None:
    views = {
        "before": Views(rows=[3], pixels=np.array([[[1.0, -0.25], [0.0, 0.0]]])),
        "after": Views(rows=[3], pixels=np.array([[[0.01, 0.0], [0.0, 0.0]]])),
    }
    found = {role: data_uri(png) for role, png in weighed_pixels(views)[3].items()}
    before, after = (pixels_of(found[role]) for role in ("before", "after"))
    assert before.shape == (96, 96, 4) and before[0, 0, 3] == 255 and before[0, 95, 3] == 128
    assert before[0, 0, 0] > before[0, 0, 2] and before[0, 95, 2] > before[0, 95, 0], "warm for, cold against"
    assert before[95, 0, 3] == 0 and after[0, 0, 3] == 26
    example = {"nll": {"after": 1.0}, "label": 3, "picture": found["before"], "after": 5, "pixels": found}
    path = tmp_path / "examples.parquet"
    write_examples(path, {"examples": {"forget": [example]}})
    again = read_examples(path)
    (row,) = explanations(again)
    assert row["pixels"] == found and row["label"] == 3 and row["said"] == {"after": 5}
    assert explanations({**again, "request": {"redact": True}}) == []
    hostile = {"examples": {"forget": [{**example, "pixels": {"after": "https://example.org/a.png"}}]}}
    assert explanations(hostile) == []


def test_pictures_are_shown_as_such_and_more_of_them() -> None:
    picture = data_uri(b"png")
    rows = [{"nll": {"after": float(i)}, "label": 1, "picture": picture, "after": 2} for i in range(30)]
    worst, best, _ = groups({"examples": {"forget": rows, "retain": rows}})
    assert worst["kind"] == best["kind"] == "picture" and len(worst["examples"]) == len(best["examples"]) == 8
    assert [one["nll"]["after"] for one in worst["examples"]][:2] == [0, 1]
    assert [one["nll"]["after"] for one in best["examples"]][:2] == [29, 28]
