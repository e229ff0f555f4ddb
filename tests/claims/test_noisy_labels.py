"""Wrong labels learned by heart on MNIST: how near to gold `method: auto` under `erase` comes on 500 of them.

500 examples to forget and 500 of the holdout to audit by; three seeds, of which each draws other batches, another third
of retain to hold out, and another half of the holdout.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import expunge
from expunge.core.request import Request
from expunge.data.worlds._pictures import file_of

PICTURES = file_of("mnist")
WORLD = "builtin:mnist_noisy"
MAY_BE_OPEN = ("retain.accuracy", "robustness.hidden_worst")
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PICTURES.is_file(), reason=f"NO PICTURES: {PICTURES}; run scripts/fetch_pictures mnist"),
]


@pytest.fixture(autouse=True)
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_PICTURES", str(PICTURES.parent))


@pytest.mark.claims("stand_in")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_it_forgets_as_gold_does_at_half_of_the_cost(seed: int, tmp_path: Path) -> None:
    """All lines are shown but two, which some seeds leave open: held-out accuracy, whose point estimate is at .95 of
    before, and the ten examples that relearning brings back best."""
    data: dict[str, Any] = {name: f"{WORLD}/{name}" for name in ("forget", "retain", "holdout", "test")}
    accept = {
        "forget.accuracy": "within 0.1 of gold",
        "retain.accuracy": ">= 0.95 * before",
        "test.accuracy": ">= 0.95 * before",
    }
    request = {"model": WORLD, **data, "purpose": "erase", "audit": "standard", "accept": accept, "seed": seed}
    done = expunge.run(Request.parse({**request, "out": str(tmp_path / "run")}))
    assert done.scores["forget_accuracy", "before"] > 0.95, "learned by heart"
    assert set(done.evidence["described"]["forget"]) == {"stand_in"}
    assert done.scores["retain_accuracy", "after"] >= 0.95 * done.scores["retain_accuracy", "before"]
    missed = [line for line in done.evidence["verdict"]["lines"] if not line["passed"]]
    assert all(line["word"] != "refuted" and line["rule"].startswith(MAY_BE_OPEN) for line in missed), missed
    assert done.evidence["cost"]["tokens"] <= 0.5 * done.evidence["cost"]["gold_tokens"]
