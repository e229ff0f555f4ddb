"""The worlds of fetched pictures, on drawn ones: splits that share nothing, wrong labels, and their absence."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from expunge.core.errors import BadInput
from expunge.data.content import content_keys
from expunge.data.load import load
from expunge.data.worlds import splits
from expunge.data.worlds._pictures import divide, mislabel


@pytest.fixture
def drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    draws = np.random.default_rng(0)
    images, labels = draws.integers(0, 256, (10_000, 28, 28), np.uint8), draws.integers(0, 10, 10_000, np.uint8)
    save_file({"images": images, "labels": labels}, tmp_path / "mnist.safetensors")
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


def test_the_noisy_world_mislabels_what_is_to_go_and_the_holdout(drawn: None) -> None:
    found, clean = splits("mnist_noisy", 0), divide("mnist", 0)
    assert {name: len(rows) for name, rows in found.items()} == {
        "forget": 500,
        "retain": 5500,
        "holdout": 1000,
        "test": 2000,
    }
    for name, rows in (("forget", clean["train"]), ("holdout", clean["holdout"])):
        assert all(a["label"] != b["label"] for a, b in zip(found[name], rows, strict=False))
    assert all(a["label"] == b["label"] for a, b in zip(found["retain"], clean["train"][500:], strict=True))


def test_without_the_pictures_it_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_PICTURES", str(tmp_path / "none"))
    splits.cache_clear()
    with pytest.raises(BadInput, match="scripts/fetch_pictures fashion"):
        load("builtin:fashion/train", "data")
