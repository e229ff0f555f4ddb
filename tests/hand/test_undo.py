"""UNDO by hand: what the student starts from, and what it is taught."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.contracts import Method, Model, Output, Reference, Step, want_of
from expunge.core.errors import BadInput
from expunge.data.worlds.digits import digits
from expunge.methods._head import linear_head
from expunge.methods._level import class_levels, forgotten_classes, set_class_levels
from expunge.methods.compose import compose
from expunge.methods.wrappers.undo import Student, Undo, undo
from expunge.models.build import fresh
from expunge.training.references import Record, record

DIGITS = {"factory": "expunge.models.networks:Digits", "arguments": {"width": 8}}
MANIFEST = {"model": DIGITS, "seed": 5}


@pytest.fixture(scope="module")
def splits() -> dict[str, list[dict[str, Any]]]:
    rows = digits()["train"][:64]
    return {"forget": rows[:16], "retain": rows[16:]}


def unchanged(model: Model, splits: Mapping[str, Any], context: Context) -> Model:
    return model


def context(folder: Path, **fields: Any) -> Context:
    return Context(Budget(learning_rate=1e-3), folder, manifest={**MANIFEST, "learning_rate": 1e-3}, **fields)


def begin(model: Any, alpha: float, towards: Any, folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The weights before, and those with which the student begins."""
    before = {name: value.detach().clone() for name, value in model.module.named_parameters()}
    method = undo(inner=Method(unchanged), alpha=alpha, towards=towards)
    assert isinstance(method, Undo)
    student = Student(method._start(model, context(folder)), alpha)

    class Run:
        """No rows: the teacher's values are not looked at here."""

        def __init__(self) -> None:
            self.model = model

        examples = rows = staticmethod(lambda stream: [])
        record = staticmethod(lambda rows, want: None)

    student.prepare(Run())  # type: ignore[arg-type]
    return before, dict(model.module.named_parameters())


def test_a_share_of_each_matrix_is_its_first_weights(tmp_path: Path) -> None:
    """(1 - alpha) of its own and alpha of what the training began with; vectors stay."""
    model, first = fresh(DIGITS, [], 1), dict(fresh(DIGITS, [], 5).module.named_parameters())
    before, now = begin(model, 0.25, "start", tmp_path)
    for name, value in before.items():
        wanted = 0.75 * value + 0.25 * first[name] if value.dim() > 1 else value
        assert torch.allclose(now[name], wanted, atol=1e-6), name
    assert any(value.dim() > 1 for value in before.values())


def test_noise_has_the_matrix_own_deviation(tmp_path: Path) -> None:
    """At alpha 1 nothing of a matrix is left but its scale."""
    before, now = begin(fresh(DIGITS, [], 1), 1.0, "noise", tmp_path)
    large = max(before, key=lambda name: before[name].numel())
    one, other = before[large].flatten(), now[large].detach().flatten()
    assert float(other.std()) == pytest.approx(float(one.std()), rel=0.1)
    assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.2


def test_squares_see_what_the_divergence_hardly_does() -> None:
    """Model (1/2, 1/2 - e, e), teacher (1/2, 1/2 - d, d): the KL is about d, the squares a third of log(e/d)^2."""
    e, d = 1e-3, 1e-6
    ours, theirs = torch.tensor([0.5, 0.5 - e, e]), torch.tensor([0.5, 0.5 - d, d])
    student = Student({}, 0.3, squares=0.02)
    values = Reference(index_BTK=torch.tensor([[[0, 1, 2]]]), rest_BT=torch.full((1, 1), -60.0))
    values.top_BTK = theirs.log()[None, None]
    student.teacher = Record({7: 0}, values)
    out = Output(-ours.log()[:1], torch.ones(1), torch.zeros(1, 1, dtype=torch.long), torch.ones(1, 1).bool())
    out.logits_BTV, out.indices = ours.log()[None, None] + 1.0, (7,)
    pairs = list(zip(theirs.tolist(), ours.tolist(), strict=True))
    divergence = sum(q * math.log(q / p) for q, p in pairs)
    squares = sum(math.log(q / p) ** 2 for q, p in pairs) / 3
    loss = float(student(Step({"undo": out}, 0, 0, torch.Generator())))
    assert loss == pytest.approx(divergence + 0.02 * squares, rel=1e-3)
    assert divergence < 0.01 * 0.02 * squares


def test_first_weights_need_a_manifest() -> None:
    method = compose({"undo": {"inner": "ga", "towards": "start"}}).method
    with pytest.raises(BadInput, match=r"method\.undo\.towards.*needs the model's training manifest"):
        method.fits(fresh(DIGITS, [], 1), {}, None)


def test_the_student_learns_what_the_teacher_says(splits: Any, tmp_path: Path) -> None:
    """With an inner method that changes nothing the student comes back to the model; without a pass it is far off."""

    def distance(passes: int) -> float:
        model = fresh(DIGITS, [], 1)
        rows = [*splits["retain"], *splits["forget"]]
        said = record(model, rows, want_of({"nll"})).nll_B
        method = undo(inner=Method(unchanged), alpha=0.5, passes=passes, share=5.0)
        changed = method(model, splits, context(tmp_path / str(passes)))
        return float((record(changed, rows, want_of({"nll"})).nll_B - said).abs().mean())

    assert distance(30) < 0.5 * distance(1)


@pytest.mark.parametrize(("distil_forget", "rows"), [(True, 64), (False, 48)])
def test_the_student_may_be_taught_on_all_rows_but_those_to_forget(
    distil_forget: bool, rows: int, splits: Any, tmp_path: Path
) -> None:
    own = context(tmp_path)
    undo(inner=Method(unchanged), passes=2, distil_forget=distil_forget)(fresh(DIGITS, [], 1), splits, own)
    assert own.notes["outcome"]["tokens"] == 2 * rows


def test_a_run_without_steps_keeps_the_inner_model(splits: Any, tmp_path: Path) -> None:
    model = fresh(DIGITS, [], 1)
    before = {name: value.clone() for name, value in model.module.state_dict().items()}
    still = Context(Budget(steps=0), tmp_path)
    undo(inner=Method(unchanged))(model, splits, still)
    assert all(torch.equal(value, before[name]) for name, value in model.module.state_dict().items())


def test_a_class_is_as_unlikely_as_the_teacher_finds_it(tmp_path: Path) -> None:
    """The median NLL of the class that forget alone has is the teacher's; the bias of no other class moves."""
    rows = digits()["train"][:200]
    parts = {"forget": [row for row in rows if row["label"] == 3], "retain": [row for row in rows if row["label"] != 3]}

    def excluded(model: Any, splits: Mapping[str, Any], context: Context) -> Any:
        with torch.no_grad():
            model.module.get_submodule(linear_head(model, rows[:2], "")[0]).bias[3] -= 9
        return model

    def median(model: Any) -> float:
        return class_levels(model, parts["forget"], [3])[3]

    wanted = median(excluded(fresh(DIGITS, [], 1), parts, context(tmp_path)))
    found = {}
    for level in (False, True):
        own = context(tmp_path / str(level))
        method = undo(inner=Method(excluded), alpha=0.5, passes=1, level=level)
        changed = method(fresh(DIGITS, [], 1), parts, own)
        found[level], moves = median(changed), own.notes.get("level")
    assert found[True] == pytest.approx(wanted, abs=1e-3) and abs(found[False] - wanted) > 0.05
    assert moves is not None and list(moves) == ["3"]
    assert forgotten_classes({"forget": rows, "retain": rows}) == [], "a class that retain has is left as it is"
    assert set_class_levels(fresh(DIGITS, [], 1), parts["forget"], {}) == {}


def test_a_level_needs_classes() -> None:
    method = compose({"undo": {"inner": "ga", "level": True}}).method
    with pytest.raises(BadInput, match=r"method\.undo\.level.*there are none"):
        method.fits(fresh(DIGITS, [], 1), {"forget": [{"question": "Who?", "answer": "He."}]}, None)
