"""Slices of errors: their test against a hand-worked one, and what describes them on made features."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from expunge.evaluation.slices import attributes_of, find_slices, stratified_z, summary, taught_by

Rows = list[dict[str, Any]]


def made() -> tuple[Rows, np.ndarray, np.ndarray, np.ndarray]:
    """60 rows of two classes; those of class 0 with stripes are taken for class 1, and five others at random."""
    draw = np.random.default_rng(0)
    rows = [{"label": i % 2, "texture": ("plain", "stripes")[(i // 2) % 2], "side": i % 3} for i in range(60)]
    labels = np.array([row["label"] for row in rows])
    wrong = np.array([row["label"] == 0 and row["texture"] == "stripes" for row in rows])
    predicted = np.where(wrong, 1, labels)
    features = draw.standard_normal((60, 4)) + 10 * np.stack([wrong, predicted, labels, wrong], axis=1)
    others = [1, 5, 9, 13, 17]
    predicted[others] = 0
    features[others] -= 30
    return rows, features, labels, predicted


def test_the_planted_slice_comes_first_and_names_its_training_rows() -> None:
    rows, features, labels, predicted = made()
    found = find_slices(rows, features, labels, predicted, clusters=2)
    assert summary(found[0], labels)["described"][0]["value"] == "stripes"
    assert found[0].predicted == 1 and len(found[0].places) == 15
    taught = taught_by(rows, labels, found[0])
    assert {(rows[i]["label"], rows[i]["texture"]) for i in taught} == {(1, "stripes")} and len(taught) == 15
    assert not found[1].described, "five rows of both textures"


def test_one_stratum_by_hand() -> None:
    """4 of 4 errors have it and 1 of 4 others: 4 - 2.5 over the root of 4*4*5*3 / (64*7)."""
    has = np.array([True] * 4 + [True, False, False, False])
    z = stratified_z(has, np.zeros(8), np.arange(4), np.arange(4, 8))
    assert z == pytest.approx(1.5 / (4 * 4 * 5 * 3 / (64 * 7)) ** 0.5)


def test_what_follows_from_the_label_describes_nothing() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    assert stratified_z(labels == 0, labels, np.array([0, 1, 3]), np.array([2, 4, 5])) == 0


def test_a_long_text_counts_by_its_words_and_arrays_and_labels_do_not() -> None:
    row = {"label": 3, "image": np.zeros(4), "caption": "A dog on wet Grass", "place": "north sea", "score": 0.5}
    assert attributes_of(row) == {
        ("place", "north sea"),
        *(("caption", word) for word in ("a", "dog", "on", "wet", "grass")),
    }


def test_no_slice_without_enough_errors() -> None:
    rows, features, labels, _ = made()
    assert find_slices(rows, features, labels, labels) == []
