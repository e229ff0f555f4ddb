"""The edits' claims on classifiers: a class and a random tenth of the digits, and a linear model with its bound.

All with the factories' defaults. Gold is the model retrained without the forget set.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from expunge.core.budget import DEFAULTS, Budget
from expunge.core.context import Context
from expunge.data.splits import select
from expunge.data.worlds.digits import digits
from expunge.methods.compose import compose
from expunge.models.classifier import Classifier
from expunge.models.manifest import read_manifest
from expunge.models.open import open_model
from expunge.pipeline.gold import gold
from expunge.pipeline.worlds import build
from expunge.training.stopping import figures

SEED = 7
Read = dict[str, dict[str, float]]


@dataclass
class Case:
    """A base, its splits (with `test`: unseen images of what stays), and gold's figures."""

    base: Path
    splits: dict[str, Any]
    gold: Read
    stop: Any

    def read(self, model: Any) -> Read:
        return {name: figures(model, self.splits[name]) for name in ("forget", "retain", "test")}

    def after(self, method: Any, folder: Path) -> tuple[Read, dict[str, Any]]:
        composed = compose(method)
        notes: dict[str, Any] = {}
        budget = Budget().over(composed.budget, Budget(stop=self.stop), DEFAULTS)
        given = {name: rows for name, rows in self.splits.items() if name != "test"}
        model = composed.method(open_model(str(self.base)), given, Context(budget, folder, SEED, notes=notes))
        return self.read(model), notes


def case(selector: dict[str, Any], stop: str) -> Case:
    base, data = build("builtin:digits"), digits()
    forget, retain = select(data["train"], selector, SEED)
    gone = selector.get("class")
    splits = {"forget": forget, "retain": retain, "test": [row for row in data["test"] if row["label"] != gone]}
    if stop == "holdout":
        splits["holdout"] = data["holdout"]
    made = Case(base, splits, {}, stop)
    if gone is None:  # a class that was never seen is never right: nothing to measure
        made.gold = made.read(open_model(str(gold(read_manifest(base), forget, open_model(str(base))))))
    return made


@pytest.fixture(scope="module")
def one_class(cache: Path) -> Case:
    return case({"class": 5}, "none")


@pytest.fixture(scope="module")
def a_tenth(cache: Path) -> Case:
    return case({"random": 0.1}, "holdout")


@pytest.mark.claims("ssd")
def test_ssd_forgets_a_class_and_keeps_the_others(one_class: Case, tmp_path: Path) -> None:
    """At most 5 % right on the class, at most 2 points lost on unseen images of the others; seconds, no training."""
    before = one_class.read(open_model(str(one_class.base)))
    after, _ = one_class.after("ssd", tmp_path)
    assert before["forget"]["accuracy"] > 0.95
    assert after["forget"]["accuracy"] <= 0.05
    assert after["test"]["accuracy"] >= before["test"]["accuracy"] - 0.02


@pytest.mark.slow
def test_ssd_brings_a_random_tenth_near_gold(a_tenth: Case, tmp_path: Path) -> None:
    """Forget accuracy within 5 points of gold's, the forgotten's NLL ten times before's. Unlike a class, a random
    tenth has no weights of its own at this scale: up to 6 points of test accuracy go with it."""
    before = a_tenth.read(open_model(str(a_tenth.base)))
    after, _ = a_tenth.after("ssd", tmp_path)
    assert abs(after["forget"]["accuracy"] - a_tenth.gold["forget"]["accuracy"]) <= 0.05
    assert after["forget"]["nll"] > 10 * before["forget"]["nll"]
    assert after["test"]["accuracy"] >= before["test"]["accuracy"] - 0.06


@pytest.mark.parametrize("solver", ["diagonal", "conjugate_gradient"])
def test_influence_moves_forget_and_not_retain(a_tenth: Case, tmp_path: Path, solver: str) -> None:
    """Forget accuracy within 5 points of gold's; NLL rises on the forgotten more than twice as much as on the
    retained, where noise of the same effect (Fisher forgetting) raises both alike."""
    before = a_tenth.read(open_model(str(a_tenth.base)))
    after, _ = a_tenth.after({"influence": {"solver": solver}}, tmp_path / "influence")
    blind, _ = a_tenth.after("fisher", tmp_path / "fisher")
    assert abs(after["forget"]["accuracy"] - a_tenth.gold["forget"]["accuracy"]) <= 0.05

    def ratio(read: Read) -> float:
        return (read["forget"]["nll"] - before["forget"]["nll"]) / (read["retain"]["nll"] - before["retain"]["nll"])

    assert ratio(after) >= 2
    assert ratio(blind) <= 1.3


@pytest.mark.claims("fisher")
def test_fisher_noise_reaches_golds_level_at_a_price(a_tenth: Case, tmp_path: Path) -> None:
    """The forget NLL is brought to the holdout's, as the paper's noise does; what small scale does not show is that
    the noise spares the rest: with a diagonal Fisher of a small network it costs retain as much as it costs forget."""
    after, notes = a_tenth.after("fisher", tmp_path)
    level = notes["strength"]["level"]
    assert level > 5 * a_tenth.read(open_model(str(a_tenth.base)))["forget"]["nll"]
    assert level / 1.5 <= after["forget"]["nll"] <= 1.5 * level  # 1.37 of it on a CPU with AMX, within .3 elsewhere
    assert after["retain"]["accuracy"] >= 0.85


# -- certified removal ---------------------------------------------------------------------------


class Pixels(nn.Module):
    """A linear classifier of the 64 pixels: nothing lies below its head."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(64, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(x.flatten(1))


@pytest.fixture(scope="module")
def certify(a_tenth: Case) -> Callable[..., tuple[Any, dict[str, Any]]]:
    def make(forget: Any, retain: Any, folder: Path, **options: Any) -> tuple[Any, dict[str, Any]]:
        torch.manual_seed(0)
        notes: dict[str, Any] = {}
        method = compose({"certified": options}).method
        model = method(
            Classifier(Pixels()), {"forget": forget, "retain": retain}, Context(DEFAULTS, folder, SEED, notes=notes)
        )
        return model, notes["certified"]

    return make


@pytest.mark.claims("certified")
def test_certified_removal_ends_where_training_without_would(
    a_tenth: Case, certify: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After removal the head lies within a hundredth of the way from the full head to the one trained, with the same
    noise, on retain alone; the bound holds; and the model still reads digits."""
    monkeypatch.setattr(  # the secret noise, made the same in both runs
        "expunge.methods.edits.certified.secret_normal",
        lambda shape: torch.randn(shape, generator=torch.Generator().manual_seed(SEED), dtype=torch.float64),
    )
    forget, retain = a_tenth.splits["forget"], a_tenth.splits["retain"]
    removed, note = certify(forget, retain, tmp_path / "removed")
    full = torch.from_numpy(stored(tmp_path / "removed" / "fit.safetensors"))
    # What the same noise makes of retain alone: the fit before one of retain's own examples is removed.
    certify(retain[:1], retain[1:], tmp_path / "gold", steps=1)
    alone = torch.from_numpy(stored(tmp_path / "gold" / "fit.safetensors"))
    head = removed.module.head
    after = torch.cat([head.weight, head.bias[:, None]], 1).detach().double()
    assert note["residual"] <= note["bound"] and note["below"] == 0
    assert float((after - alone).norm()) <= 0.01 * float((full - alone).norm())
    assert figures(removed, a_tenth.splits["test"])["accuracy"] > 0.85


def stored(path: Path) -> np.ndarray:
    from safetensors.numpy import load_file

    return load_file(path)["w"]


def test_certified_removal_of_a_class_from_a_network_s_head(one_class: Case, tmp_path: Path) -> None:
    """The digits network's head forgets the class (at most 5 %) and keeps the others within 2 points; the notes say
    that the certificate does not reach the layers below."""
    after, notes = one_class.after("certified", tmp_path)
    before = one_class.read(open_model(str(one_class.base)))
    assert after["forget"]["accuracy"] <= 0.05
    assert after["test"]["accuracy"] >= before["test"]["accuracy"] - 0.02
    note = notes["certified"]
    assert note["residual"] <= note["bound"] and (note["epsilon"], note["delta"]) == (1.0, 1e-4)
    assert note["below"] > 0 and "head" in note["scope"]
