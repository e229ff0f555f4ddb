"""stand_in by hand: its loss on one batch, what its short retraining takes, and what it refuses."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.contracts import Output, Reference, Step
from expunge.core.errors import BadInput
from expunge.data.examples import identity
from expunge.methods.compose import compose
from expunge.methods.objectives.stand_in import StandIn, stand_in
from expunge.models.build import fresh
from expunge.training.references import Record

MODEL = {"factory": "expunge.models.networks:MLP", "arguments": {"inputs": 4, "classes": 3, "hidden": 8}}


def rows(start: int, count: int) -> list[dict[str, Any]]:
    draws = np.random.default_rng(start)
    return [{"features": draws.normal(size=4).astype(np.float32), "label": i % 3} for i in range(count)]


def test_the_loss_by_hand() -> None:
    """Model (1/2, 1/4, 1/4), teacher (1/8, 7/8 - e, e) on forget and the model's own on retain: nothing from retain."""
    ours, e = torch.tensor([0.5, 0.25, 0.25]), 0.125
    theirs = torch.tensor([0.125, 0.75, e])
    term = stand_in(squares=0.3)
    assert isinstance(term, StandIn)
    index = torch.tensor([[[0, 1, 2]]])
    rest = torch.full((1, 1), -60.0)
    for name, p in (("forget", theirs), ("retain", ours)):
        values = Reference(index_BTK=index, top_BTK=p.log()[None, None], rest_BT=rest)
        term.teacher[name] = Record({7: 0}, values)
    one = torch.ones(1, 1)
    out = Output(-ours.log()[:1], torch.ones(1), torch.zeros(1, 1, dtype=torch.long), one.bool())
    out.logits_BTV, out.indices = ours.log()[None, None] + 2.0, (7,)
    divergence = sum(q * math.log(q / p) for q, p in zip(theirs.tolist(), ours.tolist(), strict=True))
    squares = sum(math.log(q / p) ** 2 for q, p in zip(theirs.tolist(), ours.tolist(), strict=True)) / 3
    step = Step({"forget": out, "retain": out}, 0, 0, torch.Generator())
    assert float(term(step)) == pytest.approx(divergence + 0.3 * squares, rel=1e-5)


def test_the_short_retraining_counts_in_the_cost(tmp_path: Path) -> None:
    """A base of 6 epochs of 40 rows in batches of 10: a half is 120 rows, in batches of a fifth 60 steps of 2."""
    forget, retain = rows(1, 8), rows(2, 32)
    model = fresh(MODEL, [], 0)
    budget = Budget(epochs=6, batch_size=10, learning_rate=1e-2, stop="none")
    manifest = {"model": MODEL, "seed": 0, "hashes": [identity(row)[:16] for row in [*retain, *forget]]}
    manifest |= {"budget": budget.model_dump(exclude_unset=True), "tokens": 6 * 40}
    composed = compose({"stand_in": {"part": 0.5}})
    composed.method.fits(model, {"forget": forget, "retain": retain}, manifest)
    assert composed.ahead == 120, "the plan knows"
    own = Budget(epochs=2, batch_size=4, learning_rate=1e-3).over(composed.budget)
    context = Context(own, tmp_path, 0, manifest=manifest)
    composed.method(model, {"forget": forget, "retain": retain}, context)
    inner, outcome = context.notes["stand_in"]["outcome"], context.notes["outcome"]
    assert inner["steps"] == 60 and inner["tokens"] == 120
    assert outcome["steps"] == 4 and outcome["tokens"] == 120 + 4 * 8, "four of forget and four of retain a step"


def test_a_plan_counts_the_student_of_undo_too() -> None:
    """A quarter of 240 tokens for the teacher's teacher, and 3 passes over 32 rows, or 40, for the student."""
    data = {"forget": rows(1, 8), "retain": rows(2, 32)}
    hashes = [identity(row)[:16] for row in [*data["retain"], *data["forget"]]]
    manifest = {"model": MODEL, "seed": 0, "hashes": hashes, "budget": {"epochs": 6, "batch_size": 10}, "tokens": 240}
    for distil_forget, taught in ((False, 32), (True, 40)):
        options = {"inner": {"forget": {"stand_in": {"part": 0.25}}}, "passes": 3, "distil_forget": distil_forget}
        composed = compose({"undo": options})
        composed.method.fits(fresh(MODEL, [], 0), data, manifest)
        assert composed.ahead == 60 + 3 * taught


def test_a_model_without_a_manifest_is_refused() -> None:
    method, data = compose("stand_in").method, {"forget": rows(1, 4), "retain": rows(2, 12)}
    with pytest.raises(BadInput, match="training manifest"):
        method.fits(fresh(MODEL, [], 0), data, None)


def test_a_short_training_is_sharpened_to_the_models_own(tmp_path: Path) -> None:
    """The label's log-probability on forget is the teacher's times E / E_teacher; the odds of the others stay."""
    forget, retain = rows(1, 8), rows(2, 32)
    manifest = {"model": MODEL, "seed": 0, "hashes": [identity(row)[:16] for row in [*retain, *forget]]}
    manifest["budget"] = {"epochs": 6, "batch_size": 10, "learning_rate": 1e-2}
    found = {}
    for sharpen in (0.0, 0.5, 1.0):
        model = fresh(MODEL, [], 0)
        with torch.no_grad():
            for parameter in model.module.parameters():
                parameter.mul_(4.0)
        own = Context(Budget(epochs=1, batch_size=4, learning_rate=1e-3), tmp_path / str(sharpen), 0, manifest=manifest)
        term = stand_in(part=0.5, sharpen=sharpen)
        assert isinstance(term, StandIn)
        streams = {"forget": forget, "retain": retain}
        found[sharpen] = term._values(SimpleNamespace(context=own, model=model, splits=streams, examples=streams.get))
    plain, half, whole = (found[sharpen]["forget.top_BTK"] for sharpen in (0.0, 0.5, 1.0))
    own = found[0.0]["forget.index_BTK"] == torch.tensor([row["label"] for row in forget])[:, None, None]

    def odds(top_BTK: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Of each row the log-odds of one other class against the next, and of the label against the first of them."""
        others_BK = top_BTK[~own].reshape(8, 2)
        return others_BK[:, 0] - others_BK[:, 1], top_BTK[own] - others_BK[:, 0]

    (pair, first), (pair_half, half_way), (pair_whole, all_the_way) = map(odds, (plain, half, whole))
    assert pair_half == pytest.approx(pair, abs=1e-5) and pair_whole == pytest.approx(pair, abs=1e-5)
    factor, root = ((one - first) / plain[own] + 1 for one in (all_the_way, half_way))
    assert factor.std() < 1e-4 and factor.mean() > 1.1, "one for all rows, since this model is surer than its stand-in"
    assert root.mean() == pytest.approx(float(factor.mean()) ** 0.5, rel=1e-3)
    assert whole.exp().sum(-1) == pytest.approx(torch.ones(8, 1), abs=1e-5)
    assert torch.equal(found[0.0]["retain.top_BTK"], found[1.0]["retain.top_BTK"])
