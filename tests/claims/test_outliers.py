"""A class that is mixed into the others as an outlier comes to look like one that was never seen."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expunge.core.budget import DEFAULTS, Budget
from expunge.core.context import Context
from expunge.data.worlds.digits import digits
from expunge.evaluation.ood import auroc, read_rows, scorer
from expunge.methods.compose import compose
from expunge.methods.objective import plain_training
from expunge.models.build import fresh
from expunge.training.stopping import figures

pytestmark = pytest.mark.slow
SEEDS, CLASS = (0, 1, 2), 8
MODEL = {"factory": "expunge.models.networks:Digits", "arguments": {"width": 8}}


@pytest.mark.claims("mixture_outliers")
def test_a_mixed_in_class_comes_to_look_unseen(tmp_path: Path) -> None:
    """Five epochs at a third of the training rate, settings tried on seeds 10 to 12. By its largest probability the
    class is told from unseen digits of the others at an AUROC over .95 on average, as under gold, and at most two
    thirds of that way before; the others lose 3 points of accuracy at most, the class is named in one of five."""
    found: dict[str, list[tuple[float, float, float]]] = {"before": [], "after": [], "gold": []}
    for seed in SEEDS:
        data = digits(seed)
        forget, retain = ([row for row in data["train"] if (row["label"] == CLASS) == gone] for gone in (True, False))
        kept = [row for row in data["test"] if row["label"] != CLASS]
        unseen = [row for name in ("test", "holdout") for row in data[name] if row["label"] == CLASS]

        def figures_of(model: Any, retain: Any = retain, kept: Any = kept, unseen: Any = unseen) -> Any:
            known, inside, outside = (read_rows(model, rows) for rows in (retain, kept, unseen))
            far = auroc(scorer("msp")(known, inside), scorer("msp")(known, outside)).value
            return far, figures(model, kept)["accuracy"], figures(model, unseen)["accuracy"]

        def trained(rows: Any, name: str, seed: int = seed) -> Any:
            budget = Budget(epochs=20, batch_size=32, learning_rate=3e-3)
            return plain_training()(fresh(MODEL, [], seed), {"retain": rows}, Context(budget, tmp_path / name, seed))

        base, gold = trained(data["train"], f"base-{seed}"), trained(retain, f"gold-{seed}")
        composed = compose("mixture_outliers")
        budget = Budget(epochs=5, batch_size=32, learning_rate=1e-3, floor=0.0).over(composed.budget, DEFAULTS)
        splits = {"forget": forget, "retain": retain}
        after = composed.method(copy.deepcopy(base), splits, Context(budget, tmp_path / f"after-{seed}", seed))
        for name, model in (("before", base), ("after", after), ("gold", gold)):
            found[name].append(figures_of(model))
    before, after_, gold_ = (np.mean(values, axis=0) for values in found.values())
    assert after_[0] > 0.95 > before[0] + 0.2 and gold_[0] > 0.9, found
    assert after_[1] > before[1] - 0.03 and after_[2] < 0.2, found


def test_a_learned_temperature_does_not_tell_near_digits_better(tmp_path: Path) -> None:
    """AbeT's score, the energy of its network, on digits 0 to 7 against 8 and 9: at least 10 points of AUROC below the
    plain network's energy, on average over the seeds, and up to 8 points of accuracy below. The paper's gain does not
    show: hardly a row in distribution is misread, from which the temperature would learn."""
    found: dict[str, list[tuple[float, float]]] = {"Digits": [], "LearnedTemperature": []}
    for seed in SEEDS:
        data = digits(seed)
        train, test = ([row for row in data[name] if row["label"] < 8] for name in ("train", "test"))
        near = [{**row, "label": 0} for row in data["test"] if row["label"] >= 8]
        for name, values in found.items():
            spec = {"factory": f"expunge.models.networks:{name}", "arguments": {"width": 8, "classes": 8}}
            budget = Budget(epochs=20, batch_size=32, learning_rate=3e-3)
            context = Context(budget, tmp_path / f"{name}-{seed}", seed)
            model = plain_training()(fresh(spec, [], seed), {"retain": train}, context)
            known, inside, outside = (read_rows(model, rows) for rows in (train, test, near))
            score = scorer("energy")
            values.append((auroc(score(known, inside), score(known, outside)).value, figures(model, test)["accuracy"]))
    (plain, accuracy), (learned, other) = (np.mean(values, axis=0) for values in found.values())
    assert learned < plain - 0.1 and accuracy - 0.08 < other < accuracy, found
