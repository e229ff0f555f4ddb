"""Wrong labels learned by heart: how near to gold `method: auto` under `erase` comes on 500 of them.

500 examples to forget and 500 of the holdout to audit by. On MNIST three seeds, of which each draws other batches,
another third of retain to hold out, and another half of the holdout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import expunge
from expunge.core.request import Request
from expunge.data.worlds._pictures import file_of

PICTURES = file_of("mnist").parent
MAY_BE_OPEN = ("retain.accuracy", "robustness.hidden_worst")
SINGLE = ("robustness.hidden_worst", "robustness.hidden_share")
pytestmark = pytest.mark.slow


@pytest.fixture(autouse=True)
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_PICTURES", str(PICTURES))


def run_auto(world: str, seed: int, out: Path) -> expunge.Run:
    """A run of `auto` on a model that knows its wrong labels by heart, at half of retraining's cost at most."""
    data: dict[str, Any] = {name: f"{world}/{name}" for name in ("forget", "retain", "holdout", "test")}
    accept = {
        "forget.accuracy": "within 0.1 of gold",
        "retain.accuracy": ">= 0.95 * before",
        "test.accuracy": ">= 0.95 * before",
    }
    request = {"model": world, **data, "purpose": "erase", "audit": "standard", "accept": accept, "seed": seed}
    done = expunge.run(Request.parse({**request, "out": str(out)}))
    assert done.scores["forget_accuracy", "before"] > 0.95, "learned by heart"
    assert set(done.evidence["described"]["forget"]) == {"stand_in"}
    assert done.evidence["cost"]["tokens"] <= 0.5 * done.evidence["cost"]["gold_tokens"]
    return done


@pytest.mark.claims("stand_in")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_forgets_as_gold_does_at_half_of_the_cost(seed: int, tmp_path: Path) -> None:
    """All lines are shown but two, which some seeds leave open: held-out accuracy, whose point estimate is at .95 of
    before, and the ten examples that relearning brings back best."""
    done = run_auto("builtin:mnist_noisy", seed, tmp_path / "run")
    assert done.scores["retain_accuracy", "after"] >= 0.95 * done.scores["retain_accuracy", "before"]
    missed = [line for line in done.evidence["verdict"]["lines"] if not line["passed"]]
    assert all(line["word"] != "refuted" and line["rule"].startswith(MAY_BE_OPEN) for line in missed), missed


@pytest.mark.claims("stand_in")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_all_but_single_examples_is_shown_where_the_network_labels_unseen_digits_well(
    seed: int, tmp_path: Path
) -> None:
    """Every line is shown but those of single examples that relearning brings back, which may stay open. Of 500
    held-out rows .97 and more keep their label, and at 500 an interval around .97 ends above .95."""
    done = run_auto("builtin:mnist_noisy_conv", seed, tmp_path / "run")
    lines = done.evidence["verdict"]["lines"]
    missed = [line for line in lines if (line["implied"] and line["word"] != "shown") or not line["passed"]]
    assert all(line["word"] == "open" and line["rule"].startswith(SINGLE) for line in missed), missed
    read = {score["split"]: score["n"] for score in done.evidence["scores"] if score["name"].endswith("_accuracy")}
    assert read["forget"] >= 500 and read["holdout"] >= 500 and read["retain"] >= 500


def test_a_linear_head_forgets_and_loses_what_was_held_out(tmp_path: Path) -> None:
    """Membership and relearning are shown to be as in gold. Of the accuracy on rows that the method never had, which
    the head knows by heart too, .89 is left, below the .95 that the criterion asks for."""
    done = run_auto("builtin:efficientnet_noisy", 0, tmp_path / "run")
    shown = [line["rule"] for line in done.evidence["verdict"]["lines"] if line["word"] == "shown"]
    for rule in ("forget.accuracy within", "robustness.hidden <=", "privacy.worst <="):
        assert any(name.startswith(rule) for name in shown), rule
    left = done.scores["retain_accuracy", "after"] / done.scores["retain_accuracy", "before"]
    assert 0.85 <= left < 0.95
    assert done.scores["test_accuracy", "after"] >= done.scores["test_accuracy", "gold"]
