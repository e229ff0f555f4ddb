"""The claims of the first methods, to be held on any world: subclass with a `place` fixture.

All with the recipes' defaults and `learning_rate: auto`; models and seeds here were not used to set them.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from _measure import World, forgotten

from expunge.core.budget import Budget

SEED = 7


class Claims:
    def test_the_world_is_one_to_learn_from(self, place: World) -> None:
        """The base knows the forget set by heart, gold does not: else nothing below means anything."""
        assert place.before.forget_nll < 0.2 and place.before.rouge_l > 0.8
        assert place.gold.forget_nll > 1.0 and place.gold.rouge_l < 0.5
        assert place.before.retain_probability > 0.85

    @pytest.mark.claims("ga")
    def test_ga_destroys_what_must_stay(self, place: World, tmp_path: Path) -> None:
        """GA alone has lost half of the retain probability when it reaches gold's forget NLL."""
        after, outcome = forgotten(place, "ga", tmp_path, SEED, Budget(stop="gold", epochs=30))
        assert outcome["stop"]["reason"] == "gold", outcome["stop"]
        assert after.forget_nll >= 0.95 * place.gold.forget_nll
        assert after.retain_probability < 0.5 * place.before.retain_probability

    @pytest.mark.claims("npo")
    def test_npo_forgets_to_golds_level_and_keeps_the_rest(self, place: World, tmp_path: Path) -> None:
        """NPO + cross-entropy, stopped by the holdout: within 20 % of gold, 90 % of retain kept."""
        after, outcome = forgotten(place, "npo", tmp_path, SEED)
        assert outcome["stop"]["reason"] == "holdout", outcome["stop"]
        assert abs(after.forget_nll - place.gold.forget_nll) <= 0.2 * place.gold.forget_nll
        assert after.retain_probability >= 0.9 * place.before.retain_probability

    @pytest.mark.claims("rmu")
    @pytest.mark.slow
    def test_rmu_takes_the_answers_and_keeps_the_rest(self, place: World, tmp_path: Path) -> None:
        """RMU: ROUGE-L at most gold's + .1, 90 % of retain kept."""
        after, _ = forgotten(place, "rmu", tmp_path, SEED)
        assert after.rouge_l <= place.gold.rouge_l + 0.1
        assert after.retain_probability >= 0.9 * place.before.retain_probability

    @pytest.mark.claims("idk")
    @pytest.mark.slow
    def test_idk_turns_answers_into_refusals_and_only_hides(self, place: World, tmp_path: Path) -> None:
        """IDK: at least 80 % of forget answers are refusals; the true answers stay far likelier than
        under gold: hidden more than removed."""
        after, _ = forgotten(place, "idk", tmp_path, SEED)
        assert after.refusals >= 0.8
        assert place.before.refusals == 0, "the yardstick must not call plain answers refusals"
        assert after.forget_nll < 0.5 * place.gold.forget_nll
