"""The closed forms of the edits, by hand. Each docstring works the expected figure out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.contracts import NLL, Batch, Example, Output, Want
from expunge.core.errors import BadInput
from expunge.methods import _line_search as search
from expunge.methods import _statistics as statistics
from expunge.methods._head import linear_head
from expunge.methods._keys import second_moment
from expunge.methods.edits._redirect import redirect
from expunge.methods.edits.certified import Loss, certified, secret_normal
from expunge.methods.edits.fisher import fisher
from expunge.methods.edits.influence import conjugate_gradient, influence
from expunge.methods.edits.ssd import dampen, ssd
from expunge.models.base import BaseModel
from expunge.models.classifier import Classifier


def rows(*pairs: tuple[list[float], int]) -> list[dict[str, Any]]:
    return [{"features": x, "label": y} for x, y in pairs]


def logistic(weight: list[list[float]], bias: bool = False) -> Classifier:
    """Two classes, two features, logits x Wᵀ."""
    layer = nn.Linear(2, 2, bias=bias)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weight))
        if bias:
            layer.bias.zero_()
    return Classifier(nn.Sequential(layer))


def context(folder: Path, seed: int = 0) -> Context:
    return Context(Budget(floor=0.0), folder, seed)


def test_ssd_dampens_where_forget_needs_more() -> None:
    """alpha 2, lambda 1. F_f (8, 3, 1), F_all (2, 2, 0): 8 > 4, factor 2/8; 3 < 4 stays; 1 > 0, factor 0."""
    found = dampen(torch.tensor([4.0, 5.0, 6.0]), torch.tensor([8.0, 3.0, 1.0]), torch.tensor([2.0, 2.0, 0.0]), 2, 1)
    assert found.tolist() == [1.0, 5.0, 0.0]


@pytest.mark.parametrize(("alpha", "factor"), [(None, 0.25), (0.25, 1.0)])
def test_the_search_of_ssd_lowers_the_dampening_with_the_ratio(
    alpha: float | None, factor: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Strength 4 is a ratio of 1/4: a searched edit dampens by 1/4 of F_all / F_forget, one with alpha by 1 of it."""
    monkeypatch.setattr("expunge.methods.edits.ssd.edit", lambda prepare, strength, start: prepare)
    model = logistic([[1.0, 0.5], [-1.0, 2.0]])
    splits = {"forget": rows(([1.0, 0.2], 1)), "retain": rows(([0.1, 1.0], 1), ([0.3, 2.0], 0), ([1.0, 0.1], 1))}
    before = model.module[0].weight.detach().clone()
    diagonal = {name: statistics.fisher(model, splits[name], 1)["0.weight"] for name in splits}
    everything = 0.25 * diagonal["forget"] + 0.75 * diagonal["retain"]
    prepare: Any = ssd(alpha=alpha)
    torch.no_grad()(prepare(model, splits, context(tmp_path)))(4.0)
    wanted = dampen(before, diagonal["forget"], everything, 0.25, factor)
    torch.testing.assert_close(model.module[0].weight.detach(), wanted)
    assert not torch.equal(wanted, before)


def test_ssd_never_grows_a_weight() -> None:
    """lambda 10: 10 * 2/8 = 2.5, cut to 1."""
    found = dampen(torch.tensor([4.0]), torch.tensor([8.0]), torch.tensor([2.0]), 2, 10)
    assert found.tolist() == [4.0]


def test_gradient_and_fisher_of_a_logistic_model() -> None:
    """At W = 0 both classes have 1/2. x = (1, 2), label 0: d nll/d W_0 = (1/2 - 1) x = (-.5, -1), W_1 = (.5, 1).

    x = (2, 0), label 1: W_0 = (1, 0), W_1 = (-1, 0). Mean gradient of W_0: ((-.5 + 1)/2, -1/2) = (.25, -.5).
    Mean square: ((.25 + 1)/2, 1/2) = (.625, .5). Squared together, over two: (.5² / 2, 1² / 2) / 2 = (.0625, .25).
    """
    model, data = logistic([[0.0, 0.0], [0.0, 0.0]]), rows(([1.0, 2.0], 0), ([2.0, 0.0], 1))
    assert statistics.gradient(model, data)["0.weight"].tolist() == [[0.25, -0.5], [-0.25, 0.5]]
    assert statistics.fisher(model, data)["0.weight"].tolist() == [[0.625, 0.5], [0.625, 0.5]]
    assert statistics.fisher(model, data, batch=2)["0.weight"].tolist() == [[0.0625, 0.25], [0.0625, 0.25]]


def test_conjugate_gradient_solves_in_as_many_steps_as_there_are_unknowns() -> None:
    """((2, 1), (1, 3)) x = (3, 5): x = (4/5, 7/5)."""
    matrix = torch.tensor([[2.0, 1.0], [1.0, 3.0]], dtype=torch.float64)
    right = torch.tensor([3.0, 5.0], dtype=torch.float64)
    assert conjugate_gradient(lambda v: matrix @ v, right, 2).tolist() == pytest.approx([0.8, 1.4])


def test_conjugate_gradient_stops_at_negative_curvature() -> None:
    """diag(1, -1) and (2, 1): the first direction has curvature 4 - 1 = 3, x = 5/3 (2, 1); the residual
    (2, 1) - (10/3, -5/3) = (-4/3, 8/3) leads to the direction (-4/3, 8/3) + 16/9 (2, 1) = (20/9, 40/9), whose
    curvature is below zero: x stays."""
    matrix = torch.tensor([1.0, -1.0], dtype=torch.float64)
    right = torch.tensor([2.0, 1.0], dtype=torch.float64)
    assert conjugate_gradient(lambda v: matrix * v, right, 9).tolist() == pytest.approx([10 / 3, 5 / 3])


def test_influence_diagonal(tmp_path: Path) -> None:
    """One forgotten, one retained, W = 0. Gradient of x = (1, 2), label 0: W_0 (-.5, -1). Fisher of x = (2, 0),
    label 1: W_0 (1, 0), W_1 the same: mean (1 + 0 + 1 + 0)/4 = .5; damping .1 adds .05. n_f/n_r = 1, scale 1:
    W_0 = (-.5/1.05, -1/.05) = (-.476190, -20)."""
    model = logistic([[0.0, 0.0], [0.0, 0.0]])
    splits = {"forget": rows(([1.0, 2.0], 0)), "retain": rows(([2.0, 0.0], 1))}
    influence(scale=1.0, damping=0.1)(model, splits, context(tmp_path))
    assert model.module[0].weight[0].tolist() == pytest.approx([-0.5 / 1.05, -20.0], rel=1e-5)
    assert model.module[0].weight[1].tolist() == pytest.approx([0.5 / 1.05, 20.0], rel=1e-5)


def test_influence_by_conjugate_gradients(tmp_path: Path) -> None:
    """W = 0, retained x = (2, 0): H = p(1 - p) x xᵀ ⊗ ((1, -1), (-1, 1)), on W_0 - W_1 along x_0 2 * (1/4) * 4 = 2.

    Forgotten (1, 0), label 0: gradient (-.5, .5) along x_0, an eigenvector. Damping .5: step (-.5, .5)/2.5 = -+.2;
    scale .5, n_f/n_r = 1: W_00 = -.1."""
    model = logistic([[0.0, 0.0], [0.0, 0.0]])
    splits = {"forget": rows(([1.0, 0.0], 0)), "retain": rows(([2.0, 0.0], 1))}
    influence(solver="conjugate_gradient", scale=0.5, damping=0.5)(model, splits, context(tmp_path))
    assert model.module[0].weight.flatten().tolist() == pytest.approx([-0.1, 0.0, 0.1, 0.0], abs=1e-4)


class Regression(BaseModel):
    """Linear regression in float64: the loss of an example is half of its squared error."""

    family = "classifier"
    capabilities = frozenset({"nll"})

    def __init__(self, w_D: Tensor) -> None:
        self.module = nn.Linear(len(w_D), 1, bias=False, dtype=torch.float64)
        with torch.no_grad():
            self.module.weight.copy_(w_D[None])

    def collate(self, examples: Sequence[Example], positions: str = "answer") -> Batch:
        x_BD = torch.tensor([example["features"] for example in examples], dtype=torch.float64)
        y_B = torch.tensor([example["target"] for example in examples], dtype=torch.float64)
        return Batch.of_examples({"x": x_BD, "y": y_B}, torch.zeros(len(examples), dtype=torch.long))

    def forward(self, batch: Batch, want: Want = NLL) -> Output:
        error_B = self.module(batch.inputs["x"])[:, 0] - batch.inputs["y"]
        return Output(error_B.square() / 2, batch.n_B, batch.labels_BT, batch.mask_BT)


@pytest.mark.parametrize("removed", [2, 10])
def test_influence_is_exact_for_a_quadratic_loss(removed: int, tmp_path: Path) -> None:
    """Least squares on 20 rows: the step from their solution leads to that of the rows that are left."""
    drawn = torch.Generator().manual_seed(3)
    x_ND = torch.randn(20, 3, generator=drawn, dtype=torch.float64)
    y_N = x_ND @ torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    y_N = y_N + torch.randn(20, generator=drawn, dtype=torch.float64)
    whole, left = (torch.linalg.lstsq(x_ND[n:], y_N[n:]).solution for n in (0, removed))
    data = [{"features": x.tolist(), "target": float(y)} for x, y in zip(x_ND, y_N, strict=True)]
    model: Any = Regression(whole)
    influence(solver="conjugate_gradient", scale=1.0, damping=1e-12, iterations=9)(
        model, {"forget": data[:removed], "retain": data[removed:]}, context(tmp_path)
    )
    assert float((whole - left).norm()) > 0.01
    assert float((model.module.weight[0].detach() - left).norm()) < 1e-6


def test_fisher_noise_follows_the_inverse_fourth_root(tmp_path: Path) -> None:
    """F = (1, 0, 1, 0) by retained x = (2, 0); in units of the mean .5: (2, 0). Damping 1/16: deviations
    sigma (2.0625)^(-1/4) = .834455 sigma and (1/16)^(-1/4) = 2 sigma, each times the same standard normal."""
    splits = {"forget": rows(([1.0, 2.0], 0)), "retain": rows(([2.0, 0.0], 1), ([2.0, 0.0], 0))}
    model = logistic([[0.0, 0.0], [0.0, 0.0]])
    fisher(sigma=0.1, damping=1 / 16)(model, splits, context(tmp_path))
    normal = torch.randn((2, 2), generator=context(tmp_path).generator("noise", "0.weight"))
    expected = 0.1 * normal * torch.tensor([0.834455, 2.0])
    assert model.module[0].weight.flatten().tolist() == pytest.approx(expected.flatten().tolist(), rel=1e-5)


# -- redirected keys -----------------------------------------------------------------------------


def test_redirect_by_the_pseudo_inverse() -> None:
    """Keys (1, 0, 0) and (0, 2, 0), changes (3,) and (4,): Delta = (3, 2, 0); the third key direction stays."""
    key, change = torch.tensor([[1.0, 0, 0], [0, 2.0, 0]]), torch.tensor([[3.0], [4.0]])
    assert redirect(key, change, None, 0).tolist() == [pytest.approx([3.0, 2.0, 0.0])]
    assert redirect(key, change, torch.eye(3).double(), 0).tolist() == [pytest.approx([3.0, 2.0, 0.0])]


def test_redirect_preserves_other_keys() -> None:
    """One key (1, 1), change 1; other keys' second moment diag(0, 2), weight 1, no ridge. Minimise
    (a + b - 1)² + 2 b²: b = 0, a = 1. Without preserving the minimum-norm answer would be (1/2, 1/2)."""
    key, change = torch.tensor([[1.0, 1.0]]), torch.tensor([[1.0]])
    moment = torch.diag(torch.tensor([0.0, 2.0], dtype=torch.float64))
    assert redirect(key, change, moment, 1.0, ridge=0).tolist() == [pytest.approx([1.0, 0.0])]
    assert redirect(key, change, None, 0).tolist() == [pytest.approx([0.5, 0.5])]


def test_redirect_of_one_key_is_rome_s_rank_one_update() -> None:
    """Sherman-Morrison: Delta = v kᵀC⁻¹ / (preserve + kᵀC⁻¹k); k = (1, 2), C = diag(1, 4), v = (6,), preserve 1.

    kᵀC⁻¹ = (1, .5), kᵀC⁻¹k = 2: Delta = 6/3 (1, .5) = (2, 1)."""
    moment = torch.diag(torch.tensor([1.0, 4.0], dtype=torch.float64))
    found = redirect(torch.tensor([[1.0, 2.0]]), torch.tensor([[6.0]]), moment, 1.0, ridge=0)
    assert found.tolist() == [pytest.approx([2.0, 1.0])]


def test_redirect_of_low_rank_reads_the_leading_directions_alone() -> None:
    """Keys (3, 0) and (0, 1), changes 3 and 1: of rank 1 only (1, 0) is read: Delta = (1, 0)."""
    key, change = torch.tensor([[3.0, 0.0], [0.0, 1.0]]), torch.tensor([[3.0], [1.0]])
    assert redirect(key, change, None, 0).tolist() == [pytest.approx([1.0, 1.0])]
    assert redirect(key, change, None, 0, rank=1).tolist() == [pytest.approx([1.0, 0.0], abs=1e-6)]


def test_second_moment() -> None:
    """Keys (1, 2) and (3, 0): mean of the outer products ((1 + 9)/2, 2/2; 2/2, 4/2)."""
    assert second_moment(torch.tensor([[1.0, 2.0], [3.0, 0.0]])).tolist() == [[5.0, 1.0], [1.0, 2.0]]


# -- certified removal ---------------------------------------------------------------------------


def test_certified_loss_and_its_derivatives() -> None:
    """One example x = 1 of class 0, W = (0, 0), penalty 2, noise (1, 3): ln 2; gradient (-.5 + 1, .5 + 3).

    Hessian .25 ((1, -1), (-1, 1)) + 2: of (1, 1) 2, of (1, -1) 2.5. (.5, 3.5) = 2 (1, 1) - 1.5 (1, -1), so that
    H⁻¹ gives (1, 1) - .6 (1, -1) = (.4, 1.6)."""
    loss = Loss(
        torch.ones(1, 1, dtype=torch.float64), torch.tensor([0]), 2.0, torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    )
    w = torch.zeros(2, 1, dtype=torch.float64)
    assert loss.value(w) == pytest.approx(math.log(2))
    assert loss.gradient(w).flatten().tolist() == pytest.approx([0.5, 3.5])
    assert loss.solve(w, loss.gradient(w)).flatten().tolist() == pytest.approx([0.4, 1.6])
    assert float(loss.gradient(loss.minimum(w)).norm()) < 1e-7


def test_certified_bound_and_notes(tmp_path: Path) -> None:
    """sigma 2, epsilon .5, delta .015: 2 * .5 / sqrt(2 ln 100) = .329505."""
    data = rows(*[([i % 3 - 1.0, i % 2 - 0.5], i % 2) for i in range(20)])
    model = logistic([[0.0, 0.0], [0.0, 0.0]], bias=True)
    where = context(tmp_path)
    certified(sigma=2.0, epsilon=0.5, delta=0.015, regularisation=1.0)(
        model, {"forget": data[:2], "retain": data[2:]}, where
    )
    note = where.notes["certified"]
    assert note["bound"] == pytest.approx(0.329505, abs=1e-6)
    assert 0 < note["residual"] <= note["bound"] and note["newton_steps"] >= 1 and note["below"] == 0


def test_certified_noise_is_standard_normal() -> None:
    """20,000 values: mean within 5 standard errors of 0, variance of 1, a third quartile of .6745; no two alike."""
    drawn = secret_normal((100, 200))
    assert drawn.shape == (100, 200) and drawn.dtype == torch.float64
    assert abs(float(drawn.mean())) < 5 / math.sqrt(20_000)
    assert abs(float(drawn.var()) - 1) < 5 * math.sqrt(2 / 20_000)
    assert abs(float(drawn.flatten().quantile(0.75)) - 0.6745) < 0.05
    assert len(drawn.unique()) == 20_000


def test_certified_refuses_what_is_no_linear_head() -> None:
    class Doubled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(2, 2)

        def forward(self, x: Tensor) -> Tensor:
            return 2 * self.layer(x)

    with pytest.raises(BadInput, match="does not end in a linear layer"):
        linear_head(Classifier(Doubled()), rows(([1.0, 2.0], 0)), "the bound holds for linear heads alone")
    assert linear_head(logistic([[0.0, 1.0], [1.0, 0.0]], bias=True), rows(([1.0, 2.0], 0)), "")[0] == "0"


def test_certified_refuses_a_bound_that_cannot_be_met(tmp_path: Path) -> None:
    data = rows(*[([i % 3 - 1.0, i % 2 - 0.5], i % 2) for i in range(20)])
    with pytest.raises(BadInput, match="cannot be certified"):
        certified(sigma=1e-12, epsilon=1e-6, steps=1)(
            logistic([[0.0, 0.0], [0.0, 0.0]], bias=True), {"forget": data[:2], "retain": data[2:]}, context(tmp_path)
        )


# -- line search ---------------------------------------------------------------------------------


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> Any:
    """A model that is its strength s: forget NLL 1 + s, retain accuracy 1 - s/8."""
    model = SimpleNamespace(at=0.0, seen=[], family="classifier")

    def figures(model: Any, given: Any) -> dict[str, float]:
        return {"nll": 1 + model.at, "accuracy": 1.0} if given == ["f"] else {"nll": 0.1, "accuracy": 1 - model.at / 8}

    monkeypatch.setattr(search, "figures", figures)
    monkeypatch.setattr(search, "_target", lambda *given: model.level)
    monkeypatch.setattr(search, "_classes", lambda *given: 10)
    return model


@pytest.mark.parametrize(("level", "floor", "expected"), [(3.0, 0.5, 2.0), (99.0, 0.5, 4.0), (0.5, 0.75, 2.0)])
def test_strength_stops_at_the_level_or_the_floor(world: Any, level: float, floor: float, expected: float) -> None:
    """Level 3 is reached by s = 2 with 3/4 kept; level 99 never, and a floor of a half allows s = 4. Where the model
    is past the level from the start, the floor alone decides: 3/4 at s = 2."""
    world.level = level

    def put(value: float) -> None:
        world.at = value

    where = Context(Budget(floor=floor), Path("."))
    chosen = search.line_search(world, {"forget": ["f"], "retain": ["r"]}, where, put, start=1.0)
    assert chosen == pytest.approx(expected, rel=0.1) and world.at == chosen
    assert chosen <= expected + 1e-9 if level != 3.0 else True
    assert where.notes["strength"]["kept"] >= floor


def test_strength_shrinks_where_the_start_is_too_strong(world: Any) -> None:
    """Floor .9 allows s = .8; from 64 down."""
    world.level = 99.0

    def put(value: float) -> None:
        world.at = value

    where = Context(Budget(floor=0.9), Path("."))
    chosen = search.line_search(world, {"forget": ["f"], "retain": ["r"]}, where, put, start=64.0)
    assert 0.7 <= chosen <= 0.8
