"""Forgetting labels that were learned by heart: a tenth of the digits bears wrong ones. Gold never saw those rows.

The gap is the mean absolute distance to gold's accuracy on forget, retain and test. Recipes' defaults but where said.
The thresholds were chosen on the seeds below; all three also hold on seeds 10 to 12 (EXPUNGE_SEEDS).
"""

from __future__ import annotations

import copy
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expunge.core.budget import DEFAULTS, Budget
from expunge.core.context import Context
from expunge.core.contracts import Method
from expunge.data.worlds.digits import digits
from expunge.methods.compose import compose
from expunge.methods.objective import plain_training
from expunge.methods.wrappers.worst_case import worst_case
from expunge.models.build import fresh
from expunge.models.weights import snapshot
from expunge.training.stopping import figures

pytestmark = pytest.mark.slow
SEEDS = tuple(int(seed) for seed in os.environ.get("EXPUNGE_SEEDS", "7,8,9").split(","))
RATE = 3e-3
WRONG = 60


@dataclass
class Place:
    """A base that knows wrong labels by heart, its rows, and gold's accuracy by split."""

    base: Any
    rows: dict[str, list[dict[str, Any]]]
    gold: dict[str, float]

    def context(self, folder: Path, seed: int, budget: Budget) -> Context:
        whole = Budget().over(budget, Budget(stop="none"), DEFAULTS)
        return Context(whole, folder, seed, manifest={"learning_rate": RATE})

    def after(self, method: Any, folder: Path, seed: int) -> tuple[float, float, Any]:
        """(gap, forget accuracy, the model)."""
        composed = compose(method)
        given = {name: rows for name, rows in self.rows.items() if name != "test"}
        model = composed.method(copy.deepcopy(self.base), given, self.context(folder, seed, composed.budget))
        read = accuracies(model, self.rows)
        return float(np.mean([abs(read[name] - self.gold[name]) for name in read])), read["forget"], model


def accuracies(model: Any, rows: dict[str, list[dict[str, Any]]]) -> dict[str, float]:
    return {name: figures(model, part)["accuracy"] for name, part in rows.items()}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    data = digits()
    rows = [{**row, "image": row["image"].tolist()} for row in data["train"]][:500]
    wrong = [{**row, "label": (row["label"] + 1 + i % 9) % 10} for i, row in enumerate(rows[:WRONG])]
    parts = {"forget": wrong, "retain": rows[WRONG:], "test": data["test"]}

    def trained(name: str, some: list[dict[str, Any]]) -> Any:
        model = fresh({"factory": "expunge.models.networks:Digits", "arguments": {"width": 16}}, [], 0)
        context = Context(
            Budget(epochs=60, batch_size=32, learning_rate=RATE), tmp_path_factory.mktemp("wrong") / name, 0
        )
        return plain_training()(model, {"retain": some}, context)

    base, gold = trained("base", rows[WRONG:] + wrong), trained("gold", rows[WRONG:])
    made = Place(base, parts, accuracies(gold, parts))
    assert accuracies(base, parts)["forget"] > 0.95 and made.gold["forget"] < 0.1, "there is something to forget"
    return made


@pytest.mark.claims("l1", "l1_sparse")
def test_an_l1_penalty_forgets_more_than_fine_tuning(place: Place, tmp_path: Path) -> None:
    """At the recipe's three tenths of the training rate, over three seeds: at least half more of the wrong labels are
    lost than by fine-tuning (the paper: 77 %), at no more than half its gap. At a tenth neither
    forgets much."""
    methods = {"l1": "l1_sparse", "plain": {"retain": "cross_entropy", "share": 0.3}}
    (gap, left), (plain_gap, plain_left) = (
        np.mean([place.after(method, tmp_path / f"{name}-{seed}", seed)[:2] for seed in SEEDS], axis=0)
        for name, method in methods.items()
    )
    assert 1 - left >= 1.5 * (1 - plain_left), (left, plain_left)
    assert gap <= 0.5 * plain_gap, (gap, plain_gap)


@pytest.mark.claims("sparse")
def test_what_is_pruned_forgets_more_easily(place: Place, tmp_path: Path) -> None:
    """Eight tenths of the weights at zero, then fine-tuning: at most six tenths as far from gold as fine-tuning the
    dense model, over three seeds, and what was pruned stays zero. Half of the weights show no gain on digits."""
    gaps: dict[str, list[float]] = {"dense": [], "sparse": []}
    for seed in SEEDS:
        for name, method in (("dense", "finetune"), ("sparse", "sparse")):
            gap, _, model = place.after(method, tmp_path / f"{name}-{seed}", seed)
            gaps[name].append(gap)
        matrices = [value for value in snapshot(model.module).values() if value.dim() > 1]
        zero = sum(int((value == 0).sum()) for value in matrices) / sum(value.numel() for value in matrices)
        assert zero == pytest.approx(0.8, abs=0.01)
    assert np.mean(gaps["sparse"]) <= 0.6 * np.mean(gaps["dense"]), gaps


@pytest.mark.claims("omp")
@pytest.mark.parametrize(("inner", "share"), [("finetune", 0.7), ("graddiff", 0.8), ("npo", 0.9)])
def test_methods_come_nearer_on_a_pruned_network(inner: str, share: float, place: Place, tmp_path: Path) -> None:
    """Pruned by eight tenths and trained again, the gap to the dense gold is at most this share of the same method's on
    the dense network, over three seeds, and what was pruned is zero after it too. Settings from 500 other digits;
    random labels and SSD were no nearer there."""
    gaps: dict[str, list[float]] = {"dense": [], "pruned": []}
    for seed in SEEDS:
        for name, method in (("dense", inner), ("pruned", {"omp": {"inner": inner}})):
            gap, _, model = place.after(method, tmp_path / f"{name}-{seed}", seed)
            gaps[name].append(gap)
        matrices = [value for value in snapshot(model.module).values() if value.dim() > 1]
        zero = sum(int((value == 0).sum()) for value in matrices) / sum(value.numel() for value in matrices)
        assert zero == pytest.approx(0.8, abs=0.01)
    assert np.mean(gaps["pruned"]) <= share * np.mean(gaps["dense"]), gaps


@pytest.mark.claims("worst_case")
def test_the_worst_case_is_harder_than_chance(place: Place, tmp_path: Path) -> None:
    """From a pool of wrong and right labels it picks mostly right ones, which the rest of the data teach again: after
    gradient difference they are remembered better than random halves of the pool are, by five points or more on average
    over three seeds (here and on seeds 10 to 12, where one of the three goes the other way)."""
    pool = [*place.rows["forget"][:30], *place.rows["retain"][:30]]
    rest = place.rows["retain"][30:]
    composed = compose("graddiff")
    asked: list[list[dict[str, Any]]] = []

    def inner(model: Any, splits: Any, context: Context) -> Any:
        asked.append(list(splits["forget"]))
        return composed.method(model, splits, context)

    def left(method: Method, part: list[dict[str, Any]], folder: Path, seed: int) -> float:
        """Accuracy on what was last asked to be forgotten."""
        model = method(
            copy.deepcopy(place.base), {"forget": part, "retain": rest}, place.context(folder, seed, composed.budget)
        )
        return figures(model, asked[-1])["accuracy"]

    worst, chance, picked = [], [], []
    for seed in SEEDS:
        worst.append(left(worst_case(inner=inner, share=0.5, rounds=4), pool, tmp_path / f"worst-{seed}", seed))
        picked.append(sum(row in place.rows["retain"] for row in asked[-1]) / len(asked[-1]))
        order = np.random.default_rng(seed).permutation(len(pool))[: len(pool) // 2]
        chance.append(left(inner, [pool[i] for i in order], tmp_path / f"chance-{seed}", seed))
    assert np.mean(worst) >= np.mean(chance) + 0.05, (worst, chance)
    assert np.mean(picked) >= 0.55, picked


@pytest.mark.claims("random_label", "kl_uniform")
@pytest.mark.parametrize(("method", "share"), [("random_label", 0.6), ("kl_uniform", 0.5)])
def test_other_labels_forget_what_fine_tuning_keeps(method: str, share: float, place: Place, tmp_path: Path) -> None:
    """With the recipe's ten epochs the gap to gold is at most this share of fine-tuning's, over three seeds: two thirds
    of the wrong labels go. Unseen digits lose up to eight points under random labels, four under uniform ones."""
    before = accuracies(place.base, place.rows)["test"]
    gaps: dict[str, list[float]] = {method: [], "finetune": []}
    for seed in SEEDS:
        for name, found in gaps.items():
            gap, left, model = place.after(name, tmp_path / f"{name}-{seed}", seed)
            found.append(gap)
            if name == method:
                assert left <= 0.4
                lost = before - accuracies(model, place.rows)["test"]
                assert lost <= (0.08 if method == "random_label" else 0.04), lost
    assert np.mean(gaps[method]) <= share * np.mean(gaps["finetune"]), gaps


@pytest.mark.claims("salun")
def test_saliency_chooses_better_than_chance(place: Place, tmp_path: Path) -> None:
    """Random labels on half of the entries, twenty epochs: on each of three seeds the gap to gold is smaller where
    saliency chose them than where they were drawn, by a tenth on average. That it is smaller than with all entries, as
    in the paper, does not show here."""
    gaps: dict[str, list[float]] = {"salun": [], "random": []}
    for seed in SEEDS:
        for name, found in gaps.items():
            method = {"forget": "random_label", "retain": "cross_entropy", "weights": name, "epochs": 20}
            found.append(place.after(method, tmp_path / f"{name}-{seed}", seed)[0])
    assert all(ours < drawn for ours, drawn in zip(gaps["salun"], gaps["random"], strict=True)), gaps
    assert np.mean(gaps["salun"]) <= 0.9 * np.mean(gaps["random"]), gaps


@pytest.mark.claims("scrub")
def test_scrub_comes_nearer_to_gold_than_ascent(place: Place, tmp_path: Path) -> None:
    """At the rate of the model's own training, over three seeds: a tenth of the wrong labels is left at most, at three
    tenths of the gap to gold that ascent with or without a retain term comes to in as many steps of its own recipe. At
    SCRUB's recipe, a tenth of that rate, it forgets next to nothing here."""
    methods: dict[str, Any] = {
        "scrub": {"scrub": {"share": 1.0}},
        "ga": "ga",
        "graddiff": "graddiff",
        "slow": "scrub",
    }
    gaps: dict[str, list[float]] = {name: [] for name in methods}
    for seed in SEEDS:
        for name, method in methods.items():
            gap, left, _ = place.after(method, tmp_path / f"{name}-{seed}", seed)
            gaps[name].append(gap)
            assert name != "scrub" or left <= 0.1, left
            assert name != "slow" or left >= 0.9, left
    assert all(np.mean(gaps["scrub"]) <= 0.3 * np.mean(gaps[name]) for name in ("ga", "graddiff")), gaps
