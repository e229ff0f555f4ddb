"""Classifiers forget a class, and wrong labels that were learned by heart. Gold never saw what was to be forgotten.

The gap is the mean absolute distance to gold's accuracy on forget, retain and test, in points. Recipes' defaults but
where said. Two golds of other seeds differ by half a point at most. The thresholds were chosen on the seeds below.
"""

from __future__ import annotations

import copy
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expunge.core.budget import DEFAULTS, Budget
from expunge.core.context import Context
from expunge.data.examples import identity
from expunge.data.worlds._pictures import file_of
from expunge.data.worlds.digits import digits
from expunge.data.worlds.mnist import mnist
from expunge.methods.compose import compose
from expunge.methods.objective import plain_training
from expunge.models.build import fresh
from expunge.training.stopping import figures

pytestmark = pytest.mark.slow
SEEDS = tuple(int(seed) for seed in os.environ.get("EXPUNGE_SEEDS", "7,8,9").split(","))
MODEL = {"factory": "expunge.models.networks:Digits", "arguments": {"width": 16}}
SMALL = {"factory": "expunge.models.networks:Digits", "arguments": {"width": 8, "side": 28}}
PICTURES = file_of("mnist").parent
CLASS, WRONG = 5, 60
Rows = list[dict[str, Any]]


@dataclass
class Place:
    """A base, its rows, how it was trained, and the accuracy of two golds by split."""

    base: Any
    rows: dict[str, Rows]
    manifest: dict[str, Any]
    golds: list[dict[str, float]]

    def gap(self, read: dict[str, float], gold: int = 0) -> float:
        return 100 * float(np.mean([abs(read[name] - self.golds[gold][name]) for name in read]))

    def after(self, method: Any, folder: Path, seed: int) -> dict[str, float]:
        """Accuracy by split after a method without a stop, and `gap`."""
        composed = compose(method)
        given = {name: part for name, part in self.rows.items() if name != "test"}
        budget = Budget().over(composed.budget, Budget(stop="none"), DEFAULTS)
        context = Context(budget, folder, seed, manifest=self.manifest)
        read = accuracies(composed.method(copy.deepcopy(self.base), given, context), self.rows)
        return {**read, "gap": self.gap(read)}


def accuracies(model: Any, rows: dict[str, Rows]) -> dict[str, float]:
    return {name: figures(model, part)["accuracy"] for name, part in rows.items()}


def place_of(rows: dict[str, Rows], epochs: int, folder: Path, spec: Any = MODEL) -> Place:
    budget = {"epochs": epochs, "batch_size": 32, "learning_rate": 3e-3}
    whole = [*rows["retain"], *rows["forget"]]

    def trained(part: Rows, seed: int, name: str) -> Any:
        return plain_training()(fresh(spec, [], seed), {"retain": part}, Context(Budget(**budget), folder / name, seed))

    golds = [accuracies(trained(rows["retain"], seed, f"gold-{seed}"), rows) for seed in (0, 50)]
    hashes = [identity(row)[:16] for row in whole]
    manifest = {"model": spec, "seed": 0, "hashes": hashes, "budget": budget, "learning_rate": 3e-3}
    return Place(trained(whole, 0, "base"), rows, manifest, golds)


def without_class(train: Rows, test: Rows) -> dict[str, Rows]:
    """Forget one class of the training rows; gold cannot name it, so that unseen images of it are left out."""
    others = [row for row in train if row["label"] != CLASS]
    unseen = [row for row in test if row["label"] != CLASS]
    return {"forget": [row for row in train if row["label"] == CLASS], "retain": others, "test": unseen}


@pytest.fixture(scope="module")
def one_class(tmp_path_factory: pytest.TempPathFactory) -> Place:
    data = digits()
    return place_of(without_class(data["train"], data["test"]), 20, tmp_path_factory.mktemp("class"))


@pytest.fixture(scope="module")
def of_mnist(tmp_path_factory: pytest.TempPathFactory) -> Place:
    """A class of 3,000 rows of MNIST."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EXPUNGE_PICTURES", str(PICTURES))
        data = mnist()
    parts = without_class(data["train"][:3000], data["test"][:1000])
    return place_of(parts, 6, tmp_path_factory.mktemp("mnist"), SMALL)


@pytest.fixture(scope="module")
def by_heart(tmp_path_factory: pytest.TempPathFactory) -> Place:
    data = digits()
    rows = data["train"][:500]
    wrong = [{**row, "label": (row["label"] + 1 + i % 9) % 10} for i, row in enumerate(rows[:WRONG])]
    parts = {"forget": wrong, "retain": rows[WRONG:], "test": data["test"]}
    return place_of(parts, 60, tmp_path_factory.mktemp("wrong"))


Found = dict[str, float]
Measure = Callable[[Place, Any], Found]


@pytest.fixture(scope="module")
def mean(tmp_path_factory: pytest.TempPathFactory) -> Measure:
    """(place, method) -> its accuracies and gap, means over the seeds; each method runs once."""
    done: dict[tuple[int, str], Found] = {}

    def measure(place: Place, method: Any) -> Found:
        key = (id(place), str(method))
        if key not in done:
            folder = tmp_path_factory.mktemp("runs")
            each = [place.after(method, folder / str(seed), seed) for seed in SEEDS]
            done[key] = {name: float(np.mean([one[name] for one in each])) for name in each[0]}
        return done[key]

    return measure


def test_there_is_something_to_forget(one_class: Place, by_heart: Place) -> None:
    """Doing nothing is over thirty points from gold, where two golds differ by half a point at most."""
    for place in (one_class, by_heart):
        assert place.gap(accuracies(place.base, place.rows)) > 30
        assert place.gap(place.golds[1]) <= 0.6


# -- a class ----------------------------------------------------------------------------------------


@pytest.mark.claims("bad_teacher", "boundary_shrink", "boundary_expand", "laf", "lfssd")
@pytest.mark.parametrize(
    ("method", "most", "lost"),
    [
        ("bad_teacher", 3.0, 0.03),
        ("boundary_shrink", 3.0, 0.03),
        ("boundary_expand", 7.0, 0.06),
        ("laf", 1.0, 0.02),
        ("lfssd", 2.0, 0.02),
    ],
)
def test_a_class_goes_where_fine_tuning_keeps_it(
    method: str, most: float, lost: float, one_class: Place, mean: Measure
) -> None:
    """The gap is at most `most` points, and fine-tuning's over thirty. Of unseen images of the other classes at most
    `lost` more are wrong than before."""
    found = mean(one_class, method)
    assert found["gap"] <= most, found
    assert mean(one_class, "finetune")["gap"] > 30
    assert found["test"] >= accuracies(one_class.base, one_class.rows)["test"] - lost, found


@pytest.mark.claims("boundary_shrink", "laf")
@pytest.mark.parametrize("method", ["boundary_shrink", "laf"])
def test_a_class_of_mnist_goes_too(method: str, of_mnist: Place, mean: Measure) -> None:
    """The gap is at most two points, where doing nothing is over thirty from gold."""
    assert of_mnist.gap(accuracies(of_mnist.base, of_mnist.rows)) > 30
    assert mean(of_mnist, method)["gap"] <= 2, mean(of_mnist, method)


RETAIN_ALONE = {"forget": "ga", "forget_weight": 0.0, "retain": "cross_entropy", "share": 1.0, "epochs": 4}
"""UNSIR's steps and rate without its noise."""


@pytest.mark.claims("unsir")
def test_noise_in_the_place_of_a_class_forgets_most_of_it(one_class: Place, mean: Measure) -> None:
    """A quarter of the class is left at most, at six tenths of the gap to which as many steps of its rate on retain
    alone come."""
    found = mean(one_class, "unsir")
    assert found["forget"] <= 0.25, found
    assert found["gap"] <= 0.6 * mean(one_class, RETAIN_ALONE)["gap"], found


SUPERVISED = ("bad_teacher", "boundary_shrink", "random_label", "kl_uniform")


@pytest.mark.claims("laf")
def test_without_labels_it_comes_as_near_as_with_them(one_class: Place, by_heart: Place, mean: Measure) -> None:
    """LAF's gap is at most the mean of the gaps of methods that read labels: of a class, and of wrong labels learned by
    heart, of which a fifth is left at most."""
    for place in (one_class, by_heart):
        others = float(np.mean([mean(place, method)["gap"] for method in SUPERVISED]))
        assert mean(place, "laf")["gap"] <= others, (mean(place, "laf"), others)
    assert mean(by_heart, "laf")["forget"] <= 0.2


# -- wrong labels -----------------------------------------------------------------------------------


@pytest.mark.claims("bad_teacher", "boundary_shrink", "laf")
@pytest.mark.parametrize(("method", "share"), [("bad_teacher", 0.3), ("boundary_shrink", 0.2), ("laf", 0.2)])
def test_wrong_labels_go(method: str, share: float, by_heart: Place, mean: Measure) -> None:
    """The gap is at most this share of fine-tuning's. The neighbour of an example with a wrong label is mostly the
    class that it is of, so that boundary shrink corrects it."""
    assert mean(by_heart, method)["gap"] <= share * mean(by_heart, "finetune")["gap"], mean(by_heart, method)


@pytest.mark.claims("jit")
def test_smoothing_takes_some_of_what_was_learned_by_heart(one_class: Place, by_heart: Place, mean: Measure) -> None:
    """Without a label or a retain example a sixth of the wrong labels goes, with nine tenths of retain; of a class
    nothing does."""
    found = mean(by_heart, "jit")
    assert found["forget"] <= 5 / 6 and found["retain"] >= 0.9, found
    assert mean(one_class, "jit")["forget"] >= 0.9


@pytest.mark.claims("soup")
def test_a_soup_reads_better_than_its_members_and_forgets_less(by_heart: Place, mean: Measure) -> None:
    """Around random labels: three points or more of test accuracy above single runs, and one of retain; but over a
    tenth more of the wrong labels are known, so that its gap to gold is no smaller."""
    one, all_ = mean(by_heart, "random_label"), mean(by_heart, {"soup": {"inner": "random_label"}})
    assert all_["test"] >= one["test"] + 0.03, (one, all_)
    assert all_["retain"] >= one["retain"] + 0.01, (one, all_)
    assert all_["forget"] >= one["forget"] + 0.1 and all_["gap"] >= one["gap"], (one, all_)
