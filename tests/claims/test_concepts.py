"""Relabelling by concepts, alignment over domains and of pairs, and replay of what is typical, on small networks.

Settings were chosen on seeds 10 and 11.
"""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from _outsiders import Examples, captioned, trained
from scipy.special import softmax

from expunge.core.budget import DEFAULTS, Budget
from expunge.core.context import Context
from expunge.data.worlds.digits import digits
from expunge.data.worlds.shapes import shapes
from expunge.data.worlds.shapes_biased import shapes_biased
from expunge.evaluation.ood import auroc, read_pictures, read_rows, scorer, spurious_rows
from expunge.methods.compose import compose
from expunge.methods.trainers import open_replay
from expunge.models.build import fresh
from expunge.training.stopping import figures

pytestmark = pytest.mark.slow
SEEDS = (0, 1, 2)
DIGITS = {"factory": "expunge.models.networks:Digits", "arguments": {"width": 8}}
SHAPES = {
    "factory": "expunge.models.networks:Digits",
    "arguments": {"width": 8, "classes": 9, "side": 16, "channels": 3},
}


def changed(base: Any, method: Any, given: Any, folder: Path, seed: int, **budget: Any) -> tuple[Any, dict[str, Any]]:
    """(a copy of the base after a method, what the method noted)."""
    composed = compose(method)
    whole = Budget(batch_size=32, stop="none", floor=0.0, **budget).over(composed.budget, DEFAULTS)
    context = Context(whole, folder, seed)
    return composed.method(copy.deepcopy(base), given, context), context.notes


def accuracy(model: Any, rows: Examples) -> float:
    return figures(model, rows)["accuracy"]


def means(runs: list[dict[str, float]]) -> dict[str, float]:
    print([{name: round(value, 3) for name, value in run.items()} for run in runs])
    return {name: float(np.mean([run[name] for run in runs])) for name in runs[0]}


@pytest.mark.claims("concept_poison")
def test_relabelled_by_concepts_the_classes_alike_lose_less(tmp_path: Path) -> None:
    """Red squares are forgotten in two epochs. Red and square lead on every seed, and no texture; the class is named in
    one of twenty test pictures at most. Classes that share its colour or shape keep ten points more of accuracy than
    under random labels."""
    runs = []
    for seed in SEEDS:
        data = shapes(seed)
        base = trained(SHAPES, data["train"], seed, tmp_path / f"base{seed}", 12)
        given = {
            name: [row for row in data["train"] if (row["label"] == 0) == of]
            for name, of in (("forget", True), ("retain", False))
        }
        own = [row for row in data["test"] if row["label"] == 0]
        alike = [row for row in data["test"] if row["label"] and (row["colour"] == "red" or row["shape"] == "square")]
        run = {}
        for name in ("random_label", "concept_poison"):
            spec = {"forget": name, "retain": "cross_entropy"}
            after, notes = changed(base, spec, given, tmp_path / f"{name}{seed}", seed, epochs=2, learning_rate=1e-3)
            run |= {name: accuracy(after, alike), f"{name} forget": accuracy(after, own)}
        assert set(notes["concept_poison"]["leading"]["0"]) == {"colour red", "shape square"}
        runs.append(run)
    found = means(runs)
    assert found["concept_poison forget"] < 0.05
    assert found["concept_poison"] > found["random_label"] + 0.1


def in_domain(row: dict[str, Any], domain: str) -> dict[str, Any]:
    """A digit as it is (a), faint (b), noisy (c), or moved on a bright ground (d)."""
    x = row["image"]
    noise = np.random.default_rng(int(1e6 * x.sum())).normal(size=x.shape)
    seen = {"a": x, "b": 0.5 * x, "c": np.clip(x + 0.3 * noise, 0, 1), "d": 0.7 * np.roll(x, 1, 1) + 0.3}[domain]
    return {**row, "image": seen.astype(np.float32), "group": domain}


def spread(model: Any, rows: Examples) -> float:
    """How far the mean gradients of the domains' cross-entropy by the head's weights lie apart, squared."""
    found = []
    for domain in "abc":
        read = read_rows(model, [row for row in rows if row["group"] == domain])
        assert read.features_ND is not None and read.labels_N is not None
        error_NC = softmax(read.logits_NC, axis=1) - np.eye(10)[read.labels_N]
        found.append(error_NC.T @ read.features_ND / len(error_NC))
    return float(np.square(np.array(found) - np.mean(found, axis=0)).sum((1, 2)).mean())


@pytest.mark.claims("hessian_alignment")
def test_aligned_over_domains_their_gradients_differ_less_on_unseen_rows(tmp_path: Path) -> None:
    """Ten epochs on digits in three domains: on unseen rows of these the head's gradients lie less than four fifths as
    far apart as after plain fine-tuning, at a cost of two points of accuracy at most. That a fourth domain is read
    better, as in the paper, does not show: it gains on some seeds and loses on others, by three points on average at
    most."""
    runs = []
    for seed in SEEDS:
        data = digits(seed)
        train, same = ([in_domain(row, "abc"[i % 3]) for i, row in enumerate(data[name])] for name in ("train", "test"))
        new = [in_domain(row, "d") for row in data["test"]]
        base = trained(DIGITS, train, seed, tmp_path / f"base{seed}", 4)
        run = {}
        for name in ("cross_entropy", "hessian_alignment"):
            spec, given = {"forget": "none", "retain": name}, {"forget": [], "retain": train}
            after, _ = changed(base, spec, given, tmp_path / f"{name}{seed}", seed, epochs=10, learning_rate=3e-3)
            run |= {f"{name} new": accuracy(after, new), f"{name} same": accuracy(after, same)}
            run[name] = spread(after, same)
        runs.append(run)
    found = means(runs)
    assert found["hessian_alignment"] < 0.8 * found["cross_entropy"]
    assert found["hessian_alignment same"] > found["cross_entropy same"] - 0.02
    assert abs(found["hessian_alignment new"] - found["cross_entropy new"]) < 0.03


@pytest.mark.claims("aligned_pairs")
def test_aligned_pictures_lie_nearer_to_their_class(tmp_path: Path) -> None:
    """Ten epochs on pairs of drawn shapes: the mean cosine of unseen pictures with their class's prompt ends higher
    than under the contrast alone, for five points of zero-shot accuracy at most."""
    runs = []
    for seed in SEEDS:
        rows, test = captioned(seed, 500), captioned(seed + 100, 200)
        prompts = sorted({row["class_prompt"] for row in rows})
        base = trained({"pair": "clip"}, rows, seed, tmp_path / f"base{seed}", 15)
        run = {}
        for name in ("cross_entropy", "aligned_pairs"):
            spec, given = {"forget": "none", "retain": name}, {"forget": [], "retain": rows}
            after, _ = changed(base, spec, given, tmp_path / f"{name}{seed}", seed, epochs=10, learning_rate=1e-3)
            read = read_pictures(after, test, prompts)
            assert read.features_ND is not None and read.head is not None and read.labels_N is not None
            unit_CD = read.head.weight_CD / np.linalg.norm(read.head.weight_CD, axis=1, keepdims=True)
            run[name] = float((read.features_ND * unit_CD[read.labels_N]).sum(1).mean())
            run[f"{name} right"] = float((read.logits_NC.argmax(1) == read.labels_N).mean())
        runs.append(run)
    found = means(runs)
    assert found["aligned_pairs"] > found["cross_entropy"]
    assert found["aligned_pairs right"] > found["cross_entropy right"] - 0.05


def test_composed_negatives_do_not_yet_tell_colours_and_shapes_better(tmp_path: Path) -> None:
    """Ten epochs on pairs of drawn shapes: how often unseen pictures are nearer to their class's prompt than to one
    with another colour or shape. No gain shows over the contrast alone, nor a loss of five points."""
    runs = []
    for seed in SEEDS:
        rows, test = captioned(seed, 500), captioned(seed + 100, 200)
        prompts = sorted({row["class_prompt"] for row in rows})
        base = trained({"pair": "clip"}, rows, seed, tmp_path / f"base{seed}", 15)
        apart = np.array([[len(set(one.split()) ^ set(other.split())) == 2 for other in prompts] for one in prompts])
        run = {}
        for name in ("cross_entropy", "composed_negatives"):
            spec, given = {"forget": "none", "retain": name}, {"forget": [], "retain": rows}
            after, _ = changed(base, spec, given, tmp_path / f"{name}{seed}", seed, epochs=10, learning_rate=1e-3)
            read = read_pictures(after, test, prompts)
            assert read.labels_N is not None
            own_N1 = np.take_along_axis(read.logits_NC, read.labels_N[:, None], 1)
            run[name] = float((own_N1 > read.logits_NC)[apart[read.labels_N]].mean())
        runs.append(run)
    found = means(runs)
    assert abs(found["composed_negatives"] - found["cross_entropy"]) < 0.05


def test_rows_that_lost_their_class_are_outliers_to_train_on(tmp_path: Path) -> None:
    """Shapes whose texture gives the class away in most of training. Tuned on these and, towards the uniform
    distribution, on rows that lost what speaks for their class, the network's confidence tells unseen rows that were
    changed likewise, at an AUROC ten points higher than without. It costs up to 15 points of accuracy."""
    runs = []
    for seed in SEEDS:
        data = shapes_biased(seed)
        train, test = data["train"][:900], data["test"][:200]
        base = trained(SHAPES, train, seed, tmp_path / f"base{seed}", 8)
        made = spurious_rows(base, train[:300], seed)
        run = {}
        for name, spec in (("plain", "none"), ("exposed", "kl_uniform")):
            given = {"forget": made if name == "exposed" else [], "retain": train}
            method = {"forget": spec, "retain": "cross_entropy"}
            after, _ = changed(base, method, given, tmp_path / f"{name}{seed}", seed, epochs=4, learning_rate=1e-3)
            known, inside = read_rows(after, train), read_rows(after, test)
            outside, score = read_rows(after, spurious_rows(after, test, seed + 1)), scorer("msp")
            run[name] = auroc(score(known, inside), score(known, outside)).value
            run[f"{name} right"] = accuracy(after, test)
        runs.append(run)
    found = means(runs)
    assert found["exposed"] > found["plain"] + 0.1
    assert found["exposed right"] > found["plain right"] - 0.15


def test_replaying_what_is_typical_keeps_wrong_labels_out(tmp_path: Path) -> None:
    """Digits 0 to 4, then 5 to 9, one in seven of the labels wrong; ten rows of each class are replayed. Drawn
    among the six tenths nearest to their class's mean, they keep five points more of the first digits than drawn
    among all; with none nothing of these is left."""
    runs = []
    for seed in SEEDS:
        data, draw = digits(seed), np.random.default_rng(seed)
        rows = []
        for row in data["train"]:
            task, other = row["label"] // 5, (row["label"] + 1 + int(draw.integers(4))) % 5
            wrong = bool(draw.random() < 0.15)
            rows.append({**row, "label": 5 * task + other if wrong else row["label"], "task": task})
        first = [row for row in data["test"] if row["label"] < 5]
        run = {}
        for name, options in (("none", {"memory": 0}), ("all", {"typical": 1.0}), ("typical", {"typical": 0.6})):
            context = Context(Budget(epochs=8, batch_size=32, learning_rate=3e-3), tmp_path / f"{name}{seed}", seed)
            run[name] = accuracy(open_replay.train(fresh(DIGITS, [], seed), rows, context, **options), first)  # type: ignore[arg-type]
        runs.append(run)
    found = means(runs)
    assert found["typical"] > found["all"] + 0.05 and found["none"] < 0.05
