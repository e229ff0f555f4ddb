"""Methods that only hide are caught, and a model that was retrained is not: authors and digits.

A claim of the audit itself: IDK tuning and UniErase change what the model says, and the relearning
attack and the choice among answers find what it still knows, with gold as the control.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import expunge
from expunge import attacking
from expunge.attacking import Found, Target, knowledge
from expunge.builtin import build
from expunge.core.budget import DEFAULTS, Budget
from expunge.core.context import Context
from expunge.core.contracts import Subject
from expunge.core.registry import load
from expunge.data.splits import Splits, make_splits
from expunge.hidden import MARGIN, hidden
from expunge.methods.compose import compose
from expunge.reading import read
from expunge.train import gold, open_model, read_manifest

ATTACKS = ("relearn_forget", "multiple_choice", "quantised_4")


@pytest.fixture(scope="module")
def splits() -> Splits:
    return make_splits(**{name: f"builtin:authors/{name}" for name in ("forget", "retain", "holdout")})


@pytest.fixture(scope="module")
def base() -> Path:
    return build("builtin:authors")


@pytest.fixture(scope="module")
def attacked(base: Path, splits: Splits) -> Callable[[Subject], tuple[dict[str, Any], Any]]:
    """Subject -> what the attacks found on it, and its forget readout."""

    def of(subject: Subject) -> tuple[dict[str, Any], Any]:
        found = read(subject, "forget", splits["forget"], {"nll", "variants"})
        target = Target(subject, "after", splits, {"forget": found}, {"after": knowledge(found)},
                        read_manifest(base)["learning_rate"])  # fmt: skip
        return {name: load("attacks", name).factory()(target) for name in ATTACKS}, found

    return of


@pytest.fixture(scope="module")
def control(base: Path, splits: Splits, attacked: Callable[..., Any]) -> tuple[dict[str, Any], Any]:
    """Gold, attacked."""
    return attacked(open_model(str(gold(read_manifest(base), splits["forget"], open_model(str(base))))))


def changed(method: Any, base: Path, splits: Splits, folder: Path) -> Subject:
    composed = compose(method)
    budget = Budget().over(composed.budget, Budget(stop="holdout"), DEFAULTS)
    context = Context(budget, folder, 0, "apply", manifest=read_manifest(base), notes={})
    return composed.method(open_model(str(base)), splits, context)


@pytest.mark.parametrize("method", ["idk", "unierase"])
def test_what_only_hides_is_caught(
    method: str, base: Path, splits: Splits, attacked: Callable[..., Any], control: Any, tmp_path: Path
) -> None:
    """It says little of the forget set, and the attacks bring most of it back; gold withstands them."""
    subject = changed(method, base, splits, tmp_path)
    found, readout = attacked(subject)
    score = hidden(found, control[0], readout, control[1])
    assert score.low is not None and score.low > MARGIN, "the whole interval lies above the margin"
    assert score.value is not None and score.value > 0.4
    ours, golds = found["relearn_forget"], control[0]["relearn_forget"]
    assert ours.figure.value > knowledge(readout).mean() + 0.05, "relearning brings back more than asking"
    assert golds.figure.value < 0.3 < ours.figure.value


@pytest.mark.slow
def test_a_model_retrained_with_another_seed_is_not_called_hidden(
    base: Path, splits: Splits, attacked: Callable[..., Any], control: Any
) -> None:
    other = gold({**read_manifest(base), "seed": 1}, splits["forget"], open_model(str(base)))
    found, readout = attacked(open_model(str(other)))
    score = hidden(found, control[0], readout, control[1])
    assert score.low is not None and score.low <= MARGIN
    assert score.value is not None and score.value < MARGIN


def test_the_method_that_retrains_is_not_called_hidden_on_digits(tmp_path: Path) -> None:
    """Two retrainings of other seeds: every attack on models runs, the verdict holds, even under erase."""
    request = {"model": "builtin:digits", "data": "builtin:digits/train", "forget": {"class": 3},
               "test": "builtin:digits/test", "method": "retrain", "audit": "standard", "purpose": "erase",
               "accept": {"robustness.hidden": "<= 0.1"}, "seed": 4}  # fmt: skip
    run = expunge.run({**request, "out": str(tmp_path / "retrained")})
    scores = {(score["name"], score["subject"]): score for score in run.evidence["scores"]}
    assert scores["robustness_hidden", "after"]["value"] < MARGIN
    assert scores["robustness_relearn_forget", "gold"]["status"] == "measured"
    assert run.passed, run.evidence["verdict"]
    kept = expunge.run({**request, "method": "ga", "budget": {"steps": 0}, "out": str(tmp_path / "kept")})
    lines = {line["rule"]: line for line in kept.evidence["verdict"]["lines"]}
    (line,) = [line for rule, line in lines.items() if "hidden, not removed" in rule]
    assert not line["passed"] and kept.passed is False


def test_found_is_what_the_registry_gives(splits: Splits) -> None:
    """Every attack with a level says what it takes, what it means, and comes with a side of its own."""
    for plugin in attacking.plugins("deep", frozenset({"tokens", "nll", "generate", "mlp", "labels"})):
        card = plugin.card
        assert card.means and card.side in ("robustness", "privacy") and card.level in ("standard", "deep"), plugin.name
        assert "forget" in card.needs and card.passes >= 0 and card.unit
    assert Found.__doc__
