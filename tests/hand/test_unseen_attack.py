"""Whether the forgotten looks unseen, on points in a plane whose distances are worked out by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from test_attacking import aimed
from torch import nn

from expunge.attacks.unseen_auc import unseen_auc
from expunge.core.contracts import Silent
from expunge.evaluation.against_gold import worst_attacker
from expunge.evaluation.attack import Found, attack
from expunge.evaluation.attack import scores as attack_scores
from expunge.evaluation.ood import far_rows
from expunge.evaluation.scores import NotMeasured
from expunge.models.classifier import Classifier


def plane() -> Classifier:
    """The features are the inputs, and the logits too."""
    layer = nn.Linear(2, 2)
    with torch.no_grad():
        layer.weight.copy_(torch.eye(2))
        layer.bias.zero_()
    return Classifier(nn.Sequential(layer))


def at(*degrees: float, length: float = 2.0) -> list[dict[str, Any]]:
    """Rows in these directions."""
    points = [(np.cos(np.pi * d / 180), np.sin(np.pi * d / 180)) for d in degrees]
    return [{"features": length * np.array(point, dtype=np.float32), "label": 0} for point in points]


KNOWN = at(-2, 0, 2)


def found_for(forget: list[dict[str, Any]], **splits: Any) -> Found:
    return unseen_auc(k=1)(aimed(plane(), {"forget": forget, "retain": KNOWN, **splits}))


def test_forget_rows_are_placed_among_unseen_ones_by_their_nearest_neighbour() -> None:
    """At 10 and 30 degrees from the next known row, unseen rows at 20 and 40: three of four pairs are won."""
    found = found_for(at(12, 32), holdout=at(22, -42))
    assert found.figure.value == 0.75 and found.figure.n == 4 and "against holdout" in found.figure.why
    assert found.figure.values is not None and found.figure.values.tolist() == [1.0, 0.5]


def test_both_too_familiar_and_too_strange_are_seen() -> None:
    assert found_for(at(3, 4), holdout=at(20, 30)).figure.value == 1
    assert found_for(at(60, 80), holdout=at(20, 30)).figure.value == 0


def test_a_forgotten_class_is_held_against_its_own_test_rows_and_against_what_stays() -> None:
    """The class at 90 degrees is as far as its unseen rows, further than what stays, and as sure as that."""
    found = found_for(at(88, 90), test_forget=at(88, 90), test=at(1, 5), holdout=at(10, 20))
    assert found.figure.value == 0.5 and "against test_forget" in found.figure.why
    assert found.more["kept"][2].value == 0
    assert found.more["confidence"][2].value == pytest.approx(0.5, abs=0.26), "as far from 45 degrees as what stays"
    unsure = found_for(at(40, 44), test_forget=at(41, 43), test=at(1, 5))
    assert unsure.more["confidence"][2].value == 0, "at 45 degrees both classes are as likely"
    assert {unit for unit, _, _ in found.more.values()} == {"auc"} and {b for _, b, _ in found.more.values()} == {
        "gold"
    }


def test_where_nothing_unseen_stays_the_class_s_own_rows_are_enough() -> None:
    found = found_for(at(3, 4), test_forget=at(20, 30), test=[])
    assert found.figure.value == 1 and set(found.more) == {"far"}


def test_far_data_have_the_pixels_of_unseen_rows_in_another_order() -> None:
    draw = np.random.default_rng(0)
    pictures = [{"image": draw.random((4, 4, 3)).astype(np.float32), "label": 1} for _ in range(3)]
    far = far_rows(pictures, 0)
    for row, other in zip(pictures, far, strict=True):
        pixels = sorted(map(tuple, row["image"].reshape(-1, 3).tolist()))
        assert sorted(map(tuple, other["image"].reshape(-1, 3).tolist())) == pixels
        assert other["image"].shape == (4, 4, 3) and not np.array_equal(other["image"], row["image"])
    assert all(np.array_equal(a["image"], b["image"]) for a, b in zip(far, far_rows(pictures, 0), strict=True))
    assert far_rows([{"text": "a", "label": 0}], 0) == []
    found = found_for(at(3, 4), holdout=at(1, 2))  # turned by 90 degrees where their two values change places
    assert found.more["far"][2].n == 4


def test_it_takes_all_rows_that_were_read_and_others_a_sample() -> None:
    """Of three forget rows one is in the sample; an attack of the audit's own loop sees the three."""
    whole = {"forget": at(3, 4, 5), "retain": KNOWN, "holdout": at(20, 30)}
    sample = {name: rows[:1] for name, rows in whole.items()}
    found = attack("standard", aimed(plane(), sample, whole=whole), Silent(), {"unseen_auc", "residual"})
    (all_of_them, few) = (found[name] for name in ("unseen_auc", "residual"))
    assert isinstance(all_of_them, Found) and all_of_them.figure.n == 5
    assert isinstance(few, Found) and few.figure.n == 1


def test_without_unseen_rows_it_says_so() -> None:
    with pytest.raises(NotMeasured, match="no holdout was given, and no test rows of a forgotten class"):
        found_for(at(3))


@pytest.mark.parametrize(("angle", "refuted"), [(12, False), (3, True), (70, True)])
def test_the_worst_attacker_refutes_what_lies_beyond_an_unseen_class_as_well(angle: float, refuted: bool) -> None:
    """Gold's forget rows lie among the unseen ones."""
    spread = np.linspace(-1, 1, 40)
    unseen = at(*(14 + 8 * spread))
    results = {
        "gold": {"unseen_auc": found_for(at(*(14 + 8 * spread)), holdout=unseen)},
        "after": {
            "unseen_auc": found_for(at(*(angle + 2 + 0.9 * spread if refuted else 14 + 8 * spread)), holdout=unseen)
        },
    }
    scores = attack_scores(results, frozenset({"labels", "nll"}))
    table = {(score.name, score.role): score for score in scores if score.name == "privacy_unseen_auc"}
    (worst,) = [score for score in worst_attacker(table, {}) if score.role == "after"]
    assert worst.low is not None and (worst.low > 0.3) == refuted
    assert "unseen_auc" in worst.why
