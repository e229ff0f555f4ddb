"""Scores of published systems against the same figures by another route: ensembles, denials, views, students, drift and
class centres."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from scipy.optimize import minimize
from scipy.special import log_softmax, softmax
from torch import nn

from expunge.data.worlds._corrupt import with_patch
from expunge.data.worlds.shapes import CLASSES as CLASSES_OF_SHAPES
from expunge.data.worlds.shapes import TEXTURES
from expunge.data.worlds.shapes import picture as picture_of
from expunge.evaluation.attributions import integrated_gradients
from expunge.evaluation.ood import Head, Rows, odd_places, read_pictures, read_rows, scorer, spurious_rows
from expunge.evaluation.ood.student import normalise
from expunge.evaluation.scores import NotMeasured
from expunge.models.build import fresh
from expunge.models.classifier import Classifier
from expunge.models.networks import Digits

CLASSES, WIDTH = 3, 6


def drawn(n: int, seed: int, head: Head) -> Rows:
    """Features around a centre for each class."""
    draw = np.random.default_rng(seed)
    centres_CD = 2 * np.random.default_rng(1).normal(size=(CLASSES, WIDTH))
    labels_N = draw.integers(0, CLASSES, n)
    features_ND = centres_CD[labels_N] + draw.normal(size=(n, WIDTH))
    return Rows(head.logits(features_ND), features_ND, labels_N, head)


@pytest.fixture(scope="module")
def head() -> Head:
    draw = np.random.default_rng(2)
    return Head(0.5 * draw.normal(size=(CLASSES, WIDTH)), draw.normal(size=CLASSES))


@pytest.fixture(scope="module")
def known(head: Head) -> Rows:
    return drawn(90, 3, head)


@pytest.fixture(scope="module")
def rows(head: Head) -> Rows:
    return drawn(20, 4, head)


def standard(known: Rows, of: Rows) -> Any:
    return (of.features_ND - known.features_ND.mean(0)) / known.features_ND.std(0)


def test_an_ensemble_is_the_mean_of_its_members_and_a_probe(known: Rows, rows: Rows) -> None:
    """The probe by a general optimiser: penalised cross-entropy of standardised features."""
    z, own = standard(known, known), np.eye(CLASSES)[known.labels_N]

    def cost(flat: np.ndarray) -> float:
        weight, bias = flat[: CLASSES * WIDTH].reshape(CLASSES, WIDTH), flat[CLASSES * WIDTH :]
        return float(-(own * log_softmax(z @ weight.T + bias, axis=1)).sum() + (weight**2).sum() / 2)

    best = minimize(cost, np.zeros(CLASSES * (WIDTH + 1)), method="BFGS").x
    weight, bias = best[: CLASSES * WIDTH].reshape(CLASSES, WIDTH), best[CLASSES * WIDTH :]
    probe = softmax(standard(known, rows) @ weight.T + bias, axis=1)
    alone = -((softmax(rows.logits_NC, axis=1) + probe) / 2).max(1)
    assert scorer("cooked")(known, rows) == pytest.approx(alone, abs=5e-3)
    other = np.random.default_rng(5).normal(size=rows.logits_NC.shape)
    three = -((softmax(rows.logits_NC, axis=1) + softmax(other, axis=1) + probe) / 3).max(1)
    assert scorer("cooked")(known, replace(rows, others_NC=(other,))) == pytest.approx(three, abs=5e-3)
    with pytest.raises(NotMeasured, match="have different classes"):
        scorer("cooked")(known, replace(rows, others_NC=(other[:, :2],)))


def test_denials_are_learned_from_the_other_classes(known: Rows, rows: Rows) -> None:
    """By the formula in probabilities, and a general optimiser without gradients of ours."""
    known = known.take(range(30))
    z = standard(known, known)

    own = np.arange(CLASSES) == known.labels_N[:, None]

    def denied(flat: np.ndarray, x: np.ndarray, logits: np.ndarray) -> Any:
        weight, bias = flat[: CLASSES * WIDTH].reshape(CLASSES, WIDTH), flat[CLASSES * WIDTH :]
        return 1 / (1 + np.exp(-(x @ weight.T + bias - logits)))

    def cost(flat: np.ndarray) -> float:
        q = denied(flat, z, known.logits_NC)
        each = -np.log(1 - q[own]) - np.log(q[~own]).reshape(len(z), -1).mean(1)
        return float(each.mean() + 0.1 * (flat[: CLASSES * WIDTH] ** 2).mean())

    best = minimize(cost, np.zeros(CLASSES * (WIDTH + 1)), method="L-BFGS-B", options={"maxiter": 60}).x
    denials = denied(best, standard(known, rows), rows.logits_NC)
    expected = [1 - float(softmax(p) @ (1 - q)) for p, q in zip(rows.logits_NC, denials, strict=True)]
    assert scorer("say_no", {"decay": 0.1})(known, rows) == pytest.approx(expected, abs=2e-3)


def test_a_neighbourhood_is_what_its_views_agree_on(known: Rows, rows: Rows) -> None:
    """Two views of given logits and features; one that another class is read in counts a half."""
    draw = np.random.default_rng(6)
    views = [Rows(draw.normal(size=rows.logits_NC.shape), draw.normal(size=rows.features_ND.shape)) for _ in range(2)]
    asked: list[int] = []

    def look(count: int) -> list[Rows]:
        asked.append(count)
        return views

    found = scorer("neighbourhood", {"views": 2})(known, replace(rows, look=look))
    for i, value in enumerate(found):
        parts = []
        for view in views:
            a, b = rows.features_ND[i], view.features_ND[i]
            cosine = float(a @ b) / math.sqrt(float(a @ a) * float(b @ b))
            parts.append(float(rows.logits_NC[i].argmax() != view.logits_NC[i].argmax()) + 1 - cosine)
        assert value == pytest.approx(sum(parts) / 2, abs=1e-9)
    assert asked == [2]


def test_views_follow_from_the_picture_alone() -> None:
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    model = Classifier(Digits(width=8).eval())
    examples = [{"image": draw.integers(0, 255, (8, 8), np.uint8), "label": 0} for _ in range(5)]
    read = read_rows(model, examples)
    assert read.look is not None and read.inputs_N is not None
    assert read.inputs_N == pytest.approx(np.stack([row["image"] / 255 for row in examples]), abs=1e-6)
    first, second = read.look(3), read_rows(model, examples[::-1]).look(3)  # type: ignore[misc]
    assert len(first) == 3 and (first[0].logits_NC != first[1].logits_NC).any()
    for one, other in zip(first, second, strict=True):
        assert one.logits_NC == pytest.approx(other.logits_NC[::-1], abs=1e-5)


def test_a_student_s_errors_are_measured_by_those_of_known_rows() -> None:
    usual = np.arange(1001.0)
    assert normalise(usual, np.array([900.0, 995.0, 947.5])) == pytest.approx([0, 0.1, 0.05])
    assert np.isfinite(normalise(np.ones(30), np.ones(3))).all()
    draw = np.random.default_rng(7)
    x = draw.normal(size=(200, 5)).astype(np.float32)
    model = Classifier(nn.Sequential(nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)).eval())
    near, far = ([{"features": row, "label": 0} for row in part] for part in (x, 6 + x[:40]))
    train, test, outside = (read_rows(model, part) for part in (near[:160], near[160:], far))
    score = scorer("student", {"steps": 200})
    assert score(train, outside).min() > np.median(score(train, test))
    assert (score(train, test) == score(train, test)).all(), "by its own seed"


def test_the_adaptive_score_follows_what_drifts(known: Rows, head: Head) -> None:
    """Twenty blocks of known rows, each further from where it began: the plain score ends far, the adaptive one nearer.
    The first block, before anything was accepted, scores as it does without drift."""
    blocks = [drawn(20, 10 + i, head).features_ND + 0.2 * i for i in range(20)]
    stream = Rows(np.zeros((400, CLASSES)), np.concatenate(blocks))  # type: ignore[arg-type]
    plain, moved = (scorer(name, {"k": 5})(known, stream) for name in ("knn", "adaptive"))
    assert moved[:20] == pytest.approx(plain[:20], abs=1e-12)
    first, last, followed = plain[:20].mean(), plain[-100:].mean(), moved[-100:].mean()
    assert followed - first < (last - first) / 2, (first, last, followed)
    drift = np.concatenate(blocks[:1]) - known.features_ND.mean(0)
    usual = np.concatenate(
        [scorer("knn", {"k": 5})(known.take(range(1 - one, 90, 2)), known.take(range(one, 90, 2))) for one in (0, 1)]
    )
    accepted = plain[:20] < np.quantile(usual, 0.95)
    second = replace(stream, features_ND=blocks[1] - drift[accepted].mean(0) / 2)
    assert moved[20:40] == pytest.approx(scorer("knn", {"k": 5})(known, second), abs=1e-9)


def test_class_centres_are_compared_where_the_classes_are(known: Rows, rows: Rows, head: Head) -> None:
    """By the projector onto the row space, and cosines one by one; what lies across it changes nothing."""
    projector = np.linalg.pinv(head.weight_CD) @ head.weight_CD
    means = [(known.features_ND[known.labels_N == c] @ projector).mean(0) for c in range(CLASSES)]
    found = scorer("centres")(known, rows)
    for value, line in zip(found, rows.features_ND @ projector, strict=True):
        cosines = [float(line @ m) / math.sqrt(float(line @ line) * float(m @ m)) for m in means]
        assert value == pytest.approx(1 - max(cosines), abs=1e-9)
    across = np.linalg.svd(head.weight_CD)[2][-1]
    moved = replace(rows, features_ND=rows.features_ND + 5 * across)
    assert scorer("centres")(known, moved) == pytest.approx(found, abs=1e-9)


def test_a_pair_is_read_as_a_classifier_of_its_prompts() -> None:
    """Cosines over the temperature, by transformers' own vectors."""
    prompts = ["a red square", "a blue disc"]
    draw = np.random.default_rng(0)
    rows = [
        {"image": draw.random((16, 16, 3)).astype(np.float32), "text": f"{prompts[i % 2]} of Ada", "class_prompt": p}
        for i, p in enumerate([*prompts, "a green cross"])
    ]
    pair: Any = fresh({"pair": "clip", "layers": 1, "width": 16, "size": 8}, rows, 0)
    found = read_pictures(pair, rows, prompts)
    assert found.labels_N is not None and found.labels_N.tolist() == [0, 1, -1]
    with torch.no_grad():
        tokens = pair.tokenizer(prompts, padding=True, return_tensors="pt")
        pixels = pair.collate(rows).inputs["pixel_values"]
        out = pair.module(input_ids=tokens["input_ids"], attention_mask=tokens["attention_mask"], pixel_values=pixels)
    assert found.logits_NC == pytest.approx(out.logits_per_image.numpy(), abs=1e-3)
    with pytest.raises(NotMeasured, match="is no image-text pair"):
        read_pictures(Classifier(Digits(width=8)), rows, prompts)


def test_a_place_is_odd_that_no_frequent_patch_is_like() -> None:
    """Stripes with one bright spot: nine places see it, each by its own distance to the nearest of three patches."""
    picture = np.tile(np.array([0.2, 0.8, 0.2], np.float32), (12, 4))
    spot = picture.copy()
    spot[5, 6] = 3.0
    found = odd_places([{"image": spot}], prototypes=3, seed=1)[0]
    places = np.argwhere(found > 0.3)
    assert found.shape == (12, 12) and {tuple(place) for place in places} == {
        (y, x) for y in (4, 5, 6) for x in (5, 6, 7)
    }
    assert found[0, 3] == pytest.approx(0, abs=0.2)
    alone = (3.0 - 0.2) / 3  # one of nine values is off: the root of its square over nine
    assert found[5, 6] == pytest.approx(alone, abs=0.1)
    draw = np.random.default_rng(0)
    drawn_shapes = [picture_of(CLASSES_OF_SHAPES[i], TEXTURES[i % 3], draw) for i in range(6)]
    maps = odd_places([{"image": with_patch(row["image"])} for row in drawn_shapes])
    places = [np.unravel_index(one.argmax(), one.shape) for one in maps]
    assert all(y >= 11 and x >= 11 for y, x in places), "a trigger of 4 x 4 in the corner, seen from one pixel away"
    with pytest.raises(NotMeasured, match="only pictures"):
        odd_places([{"features": [1.0, 2.0]}])


def test_the_pixels_that_speak_for_a_class_are_drawn_anew() -> None:
    """By the attributions themselves: the quarter with the largest is replaced by values of the others."""
    torch.manual_seed(0)
    model = Classifier(Digits(width=8).eval())
    draw = np.random.default_rng(0)
    rows = [{"image": draw.random((8, 8)).astype(np.float32), "label": i} for i in range(3)]
    parts: Any = integrated_gradients(model, rows)
    for row, made, part in zip(rows, spurious_rows(model, rows, 4), parts, strict=True):
        limit = np.sort(np.abs(part).ravel())[-16]
        strong = np.abs(part) >= limit
        assert (made["image"][~strong] == row["image"][~strong]).all() and strong.sum() == 16
        assert np.isin(made["image"][strong], row["image"][~strong]).all() and made["label"] == row["label"]
    assert spurious_rows(model, [{"features": [1.0]}], 0) == []
