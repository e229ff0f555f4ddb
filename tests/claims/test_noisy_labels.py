"""Wrong labels learned by heart on MNIST: what `method: auto` takes under `erase` is shown to forget them as gold does.

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
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PICTURES.is_file(), reason=f"NO PICTURES: {PICTURES}; run scripts/fetch_pictures mnist"),
]


@pytest.fixture(autouse=True)
def pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_PICTURES", str(PICTURES.parent))


@pytest.mark.claims("stand_in")
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_every_line_is_shown_at_half_of_retraining_s_cost(seed: int, tmp_path: Path) -> None:
    """Forget accuracy within .1 of gold's, held-out and test accuracy at .95 of before, and all implied lines."""
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
    assert done.passed is True, [line for line in done.evidence["verdict"]["lines"] if not line["passed"]]
    assert done.evidence["cost"]["tokens"] <= 0.5 * done.evidence["cost"]["gold_tokens"]
