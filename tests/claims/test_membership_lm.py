"""Membership attacks on a language model with known truth: authors memorised its data, its retrained twin never saw
them."""

from __future__ import annotations

import pytest
from scipy import stats

from expunge.core.registry import load
from expunge.data.splits import make_splits
from expunge.evaluation.attack import Target, knowledge
from expunge.evaluation.reading import read
from expunge.evaluation.scores import Figure, measure, requirements
from expunge.models.manifest import read_manifest
from expunge.models.open import open_model
from expunge.pipeline.gold import gold
from expunge.pipeline.worlds import build

ATTACKS = ("gradient_norm_auc", "neighbour_auc", "recall_auc", "icp_auc", "linear_probe_auc", "white_box_auc")


@pytest.mark.slow
def test_attacks_see_what_was_memorised_and_nothing_on_a_model_that_never_saw_it() -> None:
    """On gold every AUC is 0.5 within its interval, at the level of all attacks together; on the memorised far
    above."""
    base = build("builtin:authors")
    manifest = read_manifest(base)
    splits = make_splits(**{name: f"builtin:authors/{name}" for name in ("forget", "holdout")})
    model = open_model(str(base))
    figures: dict[str, dict[str, Figure]] = {}
    for role, model in {"after": model, "gold": open_model(str(gold(manifest, splits["forget"], model)))}.items():
        wanted = requirements(model.capabilities, splits)
        readouts = {name: read(model, name, splits[name], wanted[name]) for name in splits}
        target = Target(model, role, splits, readouts, {role: knowledge(readouts["forget"])}, manifest=manifest)
        found = {name: load("attacks", name).factory()(target) for name in ATTACKS}
        figures[role] = {name: result.figure for name, result in found.items()}
        figures[role]["icp_auc, reference"] = found["icp_auc"].more["reference"][2]
        scores = [s for s in measure({"after": readouts}, model.capabilities) if s.unit == "auc" and s.measured]
        figures[role] |= {s.name: Figure(s.value, s.low, s.high, s.n) for s in scores}  # type: ignore[arg-type]
    assert len(figures["gold"]) >= 13
    wider = stats.norm.ppf(1 - 0.025 / len(figures["gold"])) / stats.norm.ppf(0.975)
    for name, figure in figures["gold"].items():
        assert figure.low is not None and figure.high is not None
        assert abs(figure.value - 0.5) <= (figure.high - figure.low) / 2 * wider, (name, figure)
    for name, figure in figures["after"].items():
        if name not in ("privacy_blind_auc", "linear_probe_auc"):
            assert figure.low is not None and figure.low > 0.5, (name, figure)
