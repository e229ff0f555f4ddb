"""Shadow models on the authors world: LiRA and RMIA find what was memorised, and nothing in gold. Trains 4 models."""

from __future__ import annotations

import pytest
from scipy import stats

from expunge.attacks.lira_auc import lira_auc
from expunge.attacks.rmia_auc import rmia_auc
from expunge.data.splits import make_splits
from expunge.evaluation.attack import Target
from expunge.models.manifest import read_manifest
from expunge.models.open import open_model
from expunge.pipeline.gold import gold
from expunge.pipeline.worlds import build

SHADOWS = 4


@pytest.mark.slow
def test_shadow_attacks_on_a_language_model_and_its_gold() -> None:
    """High on the model that was trained on the forget set; on gold .5 within the interval of two attacks."""
    base = build("builtin:authors")
    manifest = read_manifest(base)
    splits = make_splits({name: f"builtin:authors/{name}" for name in ("forget", "holdout")})
    model = open_model(str(base))
    twin = open_model(str(gold(manifest, splits["forget"], model)))
    wider = stats.norm.ppf(1 - 0.025 / 2) / stats.norm.ppf(0.975)
    for attack in (lira_auc(shadow_models=SHADOWS), rmia_auc(shadow_models=SHADOWS)):
        high, low = (
            attack(Target(model, "after", splits, {}, {}, manifest=manifest)).figure for model in (model, twin)
        )
        assert high.low is not None and high.low > 0.9
        assert low.high is not None and low.low is not None
        assert abs(low.value - 0.5) <= (low.high - low.low) / 2 * wider
