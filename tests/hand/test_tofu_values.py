"""Our functions, fed with the losses of two published Llama-2 models, give TOFU's definitions."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest

from expunge.metrics.probability import probability_from
from expunge.metrics.quality import forget_quality_from
from expunge.metrics.truth_ratio import truth_ratio_from
from expunge.metrics.truth_ratio_paper import truth_ratio_paper_from

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("EXPUNGE_DATA", ROOT / "../shared/data")) / "tofu"
pytestmark = pytest.mark.skipif(not FOLDER.is_dir(), reason=f"NO TOFU DATA: set EXPUNGE_DATA; looked in {FOLDER}")
FILES = [(model, split) for model in ("full", "retain90") for split in ("forget", "retain")]


def load(model: str, split: str) -> dict[str, np.ndarray]:
    """Column -> [300] (or [300, 5]) array."""
    lines = (FOLDER / f"llama2-7b_{model}_wd0.01.{split}.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return {key: np.array([row[key] for row in rows]) for key in rows[0]}


def both(data: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    losses = data["avg_paraphrased_loss"], data["average_perturb_loss"]
    return truth_ratio_from(*losses), truth_ratio_paper_from(*losses)


@pytest.mark.parametrize(("model", "split"), FILES)
def test_truth_ratio_is_the_files(model: str, split: str) -> None:
    data = load(model, split)
    ours, papers = both(data)
    np.testing.assert_allclose(ours, data["truth_ratio"], rtol=1e-5)
    gap = np.abs(papers / ours - 1)
    assert 0.045 < gap.mean() < 0.085, gap.mean()
    assert (papers >= ours * (1 - 1e-12)).all()  # arithmetic mean >= geometric mean


def test_forget_quality_of_the_published_pair() -> None:
    full, gold = both(load("full", "forget")), both(load("retain90", "forget"))
    assert forget_quality_from(full[0], gold[0]) == pytest.approx(6e-21, rel=0.1)
    assert forget_quality_from(full[1], gold[1]) == pytest.approx(3e-22, rel=0.1)


@pytest.mark.parametrize(("model", "split"), FILES)
def test_probability_is_exp_of_minus_the_loss(model: str, split: str) -> None:
    data = load(model, split)
    assert probability_from(data["avg_gt_loss"]) == pytest.approx(np.exp(-data["avg_gt_loss"]))


def test_the_model_that_saw_the_set_knows_it_and_gold_does_not() -> None:
    seen, unseen = (probability_from(load(m, "forget")["avg_gt_loss"]) for m in ("full", "retain90"))
    assert seen.mean() > 0.9 and unseen.mean() < 0.3
