"""Every part of an objective run that says that it runs distributed makes one model of one or two processes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest
import torch

from expunge.core import processes
from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.errors import BadInput
from expunge.core.registry import load, names
from expunge.methods.compose import Composed, compose
from expunge.models.build import fresh
from expunge.models.weights import snapshot
from expunge.pipeline.compatibility import fits_method
from several import in_processes, small_lm, small_rows

PARTS = ("objectives", "retain", "weights", "updates")
BUDGET = Budget(epochs=2, batch_size=4, learning_rate=1e-3, floor=0.0, stop="none")
"""On five forget rows: the second process has none in an epoch's last batch."""
CLOSE = 1e-3
"""Distance of two processes' weights from one's, over the way that one's went: AdamW makes steps of rounding errors."""


def parts() -> list[tuple[str, str]]:
    """(kind, name) of every part."""
    return [(kind, name) for kind in PARTS for name in sorted(names(kind))]


def composed_of(kind: str, name: str) -> Composed:
    """A method with that part, beside the commonest others."""
    usual = {"forget": "npo", "retain": "cross_entropy"}
    field = {"objectives": "forget", "retain": "retain", "weights": "weights", "updates": "update"}[kind]
    return compose({**usual, field: name})


def base(family: str) -> Any:
    return (
        small_lm()
        if family == "lm"
        else fresh({"factory": "expunge.models.networks:MLP", "arguments": {"inputs": 16, "classes": 10}}, [], 0)
    )


def rows_of(family: str) -> dict[str, list[dict[str, Any]]]:
    """Five rows to forget, eight to keep, and others; texts, or features with a class."""
    if family == "lm":
        rows = [row for part in small_rows().values() for row in part]
        extra = {"trace": "She said so.", "compliant": "Sure, there.", "subject": "Ada"}
        rows = [{**row, **extra, "group": "ab"[i % 2]} for i, row in enumerate(rows)]
    else:
        draws = torch.rand(24, 16, generator=torch.Generator().manual_seed(0)).tolist()
        rows = [{"features": draw, "label": i % 10, "group": "ab"[i % 2]} for i, draw in enumerate(draws)]
    return {"forget": rows[:5], "retain": rows[5:13], "holdout": rows[13:]}


def family_of(composed: Composed) -> str:
    """The first family that the method goes with; "" for none."""
    for family in ("lm", "classifier"):
        try:
            fits_method(composed, base(family), rows_of(family))
        except BadInput:
            continue
        return family
    return ""


def weights_after(composed: Composed, family: str) -> Any:
    with tempfile.TemporaryDirectory() as folder:
        subject = composed.method(base(family), rows_of(family), Context(BUDGET, Path(folder)))
    return torch.cat([value.flatten().float() for value in snapshot(subject.module).values()])


def compare(kind: str, name: str) -> dict[str, Any]:
    """The weights of this process and of one alone: how far apart, and the sum that all processes must share."""
    with processes.alone():
        family = family_of(composed_of(kind, name))
        if not family:
            return {"family": ""}
        start = torch.cat([value.flatten().float() for value in snapshot(base(family).module).values()])
        alone = weights_after(composed_of(kind, name), family)
    ours = weights_after(composed_of(kind, name), family)
    way = float((alone - start).norm())
    return {"family": family, "far": float((ours - alone).norm()) / max(way, 1e-12), "way": way, "all": ours.numpy()}


def test_every_part_says_whether_it_runs_distributed() -> None:
    cards = {(kind, name): load(kind, name).card for kind, name in parts()}
    assert all(card.distributed in (True, False) for card in cards.values())
    assert sum(card.distributed for card in cards.values()) > len(cards) // 2


@pytest.mark.slow
@pytest.mark.parametrize(("kind", "name"), [part for part in parts() if load(*part).card.distributed])
def test_two_processes_make_the_model_of_one(kind: str, name: str) -> None:
    first, second = in_processes(2, compare, kind, name, seconds=600)
    assert first["family"] and first["way"] > 0
    assert (first["all"] == second["all"]).all(), "the processes keep one model, bit for bit"
    assert first["far"] < CLOSE, first["far"]


def test_a_plan_for_several_processes_refuses_the_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence that names the parts; objective runs whose parts all say that they run distributed pass."""
    monkeypatch.setattr(processes, "world", lambda: 4)
    fits_method(composed_of("objectives", "npo"), base("lm"), rows_of("lm"))
    with pytest.raises(BadInput) as error:
        fits_method(compose("ssd"), base("lm"), rows_of("lm"))
    assert error.value.faults == [
        "method: 'ssd' runs in one process, and 4 were started; start one process, or choose other parts."
    ]
