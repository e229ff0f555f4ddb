"""What a client that stays learns from its own rows about others', worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from expunge.attacks import fellow_auc
from expunge.attacks.fellow_auc import fellow_rows, separation
from expunge.attacks.shared import rounds
from expunge.evaluation.scores import NotMeasured


def test_the_direction_is_that_in_which_its_own_rows_differ() -> None:
    """Members at (-1, +-1), others at (1, +-1): the first model alone tells them apart, the second says nothing. Scored
    rows at -2, 0 and 2 of the first come out in that order, the middle one at 0, whatever they are in the second."""
    taught = np.array([[-1.0, 1.0], [-1.0, -1.0], [1.0, 1.0], [1.0, -1.0]])
    scored = np.array([[-2.0, 5.0], [0.0, -5.0], [2.0, 5.0]])
    found = separation(np.concatenate([scored, taught]), 3, 2)
    ridge = fellow_auc.RIDGE / 4
    assert found == pytest.approx([2 / (1 + ridge), 0.0, -2 / (1 + ridge)])


def test_both_sides_weigh_alike() -> None:
    """A hundred rows that did not take part, and two that did: the score of the place halfway between them is 0."""
    taught = np.array([[-1.0]] * 2 + [[1.0]] * 100)
    assert separation(np.concatenate([[[0.0]], taught]), 1, 2) == pytest.approx([0.0])


def target(monkeypatch: pytest.MonkeyPatch, forget: list[int], retain: list[int]) -> Any:
    for part in (fellow_auc, rounds):
        monkeypatch.setattr(part, "client_in", lambda manifest: (lambda row: row["client"]) if manifest else None)
    rows = {"forget": [{"client": k} for k in forget], "retain": [{"client": k, "i": i} for i, k in enumerate(retain)]}
    return SimpleNamespace(manifest={"trainer": {}}, forget=rows["forget"], splits=rows)


def test_the_attacker_is_the_staying_client_with_the_most_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """Client 1 leaves; of its rows two more are given: they do not make it the attacker."""
    found = fellow_rows(target(monkeypatch, [1], [1, 1, 2, 3, 3]))
    assert [row["i"] for row in found] == [3, 4]
    with pytest.raises(NotMeasured, match="no client is known that stays"):
        fellow_rows(target(monkeypatch, [1], [1, 1]))
    nobody = target(monkeypatch, [1], [2])
    nobody.manifest = None
    with pytest.raises(NotMeasured, match="no client is known that stays"):
        fellow_rows(nobody)
