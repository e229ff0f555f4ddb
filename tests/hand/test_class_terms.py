"""Methods for classifiers by hand: their losses on small nets, and what they read and put back."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.special import softmax
from torch import nn

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.contracts import Batch, Method, Model, Output, Reference, Step, Term, Trainable, want_of
from expunge.core.errors import BadInput
from expunge.core.registry import load
from expunge.data.examples import identity
from expunge.methods._inputs import array_field, numeric, put_array, step_up, unit_array
from expunge.methods.compose import compose
from expunge.methods.edits.lfssd import sensitivity
from expunge.methods.objectives.bad_teacher import WHOLE, bad_teacher
from expunge.methods.objectives.laf import laf
from expunge.methods.updates.plain import plain
from expunge.methods.wrappers.soup import mean_of, soup
from expunge.models.build import fresh
from expunge.models.classifier import Classifier
from expunge.models.weights import snapshot
from expunge.training.loop import Trainer
from expunge.training.references import Record, record

MODEL = {"factory": "expunge.models.networks:MLP", "arguments": {"inputs": 4, "classes": 3, "hidden": 8}}
Rows = list[dict[str, Any]]


def rows(start: int, count: int) -> Rows:
    draws = np.random.default_rng(start)
    return [{"features": draws.normal(size=4).astype(np.float32), "label": i % 3} for i in range(count)]


def linear(weights: list[list[float]]) -> Classifier:
    """A classifier of two numbers by these weights, a row for each class, and no bias that counts."""
    layer = nn.Linear(2, len(weights))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights))
        layer.bias.zero_()
    return Classifier(nn.Sequential(layer))


def run(spec: Any, folder: Path, forget: Rows, retain: Rows, model: Model | None = None, steps: int = 6) -> Model:
    """The model after a short run of a method, from one base."""
    composed = compose(spec)
    own = Budget(steps=steps, batch_size=4, learning_rate=1e-2).over(composed.budget)
    made = {"model": MODEL, "seed": 0, "hashes": [identity(row)[:16] for row in [*retain, *forget]]}
    manifest = {**made, "budget": Budget(epochs=1, batch_size=4, learning_rate=1e-2).model_dump(exclude_unset=True)}
    context = Context(own, folder, 0, manifest=manifest)
    start = fresh(MODEL, [], 0) if model is None else model
    return composed.method(start, {"forget": forget, "retain": retain}, context)


# -- labels that nobody reads -----------------------------------------------------------------------


def equal(one: Model, other: Model) -> bool:
    first, second = snapshot(one.module), snapshot(other.module)
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("spec", "blind"), [("laf", True), ("jit", True), ({"lfssd": {"alpha": 0.5}}, True), ("graddiff", False)]
)
def test_other_labels_change_no_bit_of_a_method_that_reads_none(spec: Any, blind: bool, tmp_path: Path) -> None:
    """Every row of forget and retain gets another label; gradient difference, which learns them, ends elsewhere."""
    spec = {spec: {"floor": 0.0}} if isinstance(spec, str) else spec
    forget, retain = rows(1, 8), rows(2, 32)
    wrong = [[{**row, "label": (row["label"] + 1) % 3} for row in part] for part in (forget, retain)]
    before = fresh(MODEL, [], 0)
    after = run(spec, tmp_path / "own", forget, retain)
    assert not equal(after, before)
    assert equal(after, run(spec, tmp_path / "wrong", *wrong)) == blind


# -- the numbers that a network reads ---------------------------------------------------------------


def test_a_step_goes_up_the_loss_and_stays_within_the_range() -> None:
    """Logits (x0, x1), label 0: the loss falls with x0 and rises with x1, so that x moves by (-, +) a half of the range
    of 2; what would leave [-1, 1] is clipped."""
    model = linear([[1.0, 0.0], [0.0, 1.0]])
    data = [{"features": np.float32([1.0, -1.0]), "label": 0}, {"features": np.float32([-0.5, 0.5]), "label": 0}]
    ((indices, batch),) = step_up(model, data, 0.5, "boundary_shrink")
    assert indices == [0, 1]
    assert batch.inputs["x"].tolist() == [[0.0, 0.0], [-1.0, 1.0]]
    assert all(p.grad is None for p in model.module.parameters())


def test_words_have_no_slope() -> None:
    tokens = Batch.of_examples({"input_ids": torch.ones(1, 3, dtype=torch.long)}, torch.zeros(1, dtype=torch.long))
    with pytest.raises(BadInput, match="method: 'unsir' changes the numbers that a network reads"):
        numeric(tokens, "unsir")
    with pytest.raises(BadInput, match="method: 'jit' changes the numbers that a network reads"):
        array_field({"text": "one", "label": 1}, "jit")


def test_bytes_stay_bytes() -> None:
    row = {"label": 1, "image": np.array([[0, 51], [255, 102]], dtype=np.uint8)}
    assert array_field(row, "jit") == "image"
    own = unit_array(row, "image")
    assert own.tolist() == [[0.0, pytest.approx(0.2)], [1.0, pytest.approx(0.4)]]
    put = put_array(row, "image", own + 0.5)["image"]
    assert put.dtype == np.uint8 and put.tolist() == [[128, 178], [255, 230]]


# -- losses -----------------------------------------------------------------------------------------


@pytest.fixture
def prepared(tmp_path: Path) -> Callable[..., Any]:
    """(method, model, forget rows, options) -> (its term, a loss of one step on all of these rows)."""

    def make(name: str, model: Model, forget: Rows, **options: Any) -> tuple[Any, float]:
        plugin = load("objectives", name)
        term = Term.of(name, plugin.factory(**options), plugin.card)
        term.loss.declare(model)
        context = Context(Budget(steps=1, batch_size=len(forget)), tmp_path / name, 0)
        moving = Trainable(dict(model.module.named_parameters()))
        trainer = Trainer(model, {"forget": forget}, {"forget": term}, context, moving, plain(), "forget")
        term.loss.prepare(trainer)
        trainer._fill_records()
        (micro,) = trainer._losses(0)
        return term.loss, float(micro()["forget"].detach())

    return make


def test_a_neighbour_is_never_the_true_class(prepared: Callable[..., Any]) -> None:
    """Logits (2 x0, x1, 0) at (1, -1), true class 0: the step to (.5, -.5) crosses no boundary, and of the others class
    2 is ahead there. Its cross-entropy at (1, -1) is log(e^2 + e^-1 + 1)."""
    data = [{"features": np.float32([1.0, -1.0]), "label": 0}, {"features": np.float32([-1.0, 1.0]), "label": 1}]
    term, _ = prepared("boundary_shrink", linear([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]]), data, bound=0.25)
    assert term.labels == {0: 2, 1: 2}
    model = linear([[2.0, 0.0], [0.0, 1.0], [0.0, 0.0]])
    _, loss = prepared("boundary_shrink", model, data, bound=0.25)
    first, second = np.log(np.exp(2) + np.exp(-1) + 1), np.log(np.exp(-2) + np.exp(1) + 1)
    assert loss == pytest.approx((first + second) / 2, rel=1e-5)


def test_the_slope_of_a_scaled_identity_is_its_factor(prepared: Callable[..., Any]) -> None:
    """f(x) = 3 x: |f(x + e) - f(x)| / |e| is 3, whatever was drawn."""
    data = [{"features": np.float32([0.3, -0.2]), "label": 0}, {"features": np.float32([1.0, 2.0]), "label": 1}]
    term, loss = prepared("jit", linear([[3.0, 0.0], [0.0, 3.0]]), data, copies=3)
    assert loss == pytest.approx(3.0, rel=1e-4)
    assert len({length for lengths in term.lengths.values() for length in lengths}) == 6, "each its own draw"


def test_noise_is_what_the_model_takes_for_another_class(prepared: Callable[..., Any]) -> None:
    """Under the labels to forget the noise costs over a nat more than rows of standard normal numbers; the inputs
    themselves change nothing."""
    model = linear([[1.0, 0.0], [0.0, 1.0]])
    data = [{"features": np.float32([1.0 + i, 0.0]), "label": i % 2} for i in range(8)]
    term, loss = prepared("unsir", model, data)
    draws = np.random.default_rng(0).standard_normal((8, 2), dtype=np.float32)
    drawn = [{"features": value, "label": i % 2} for i, value in enumerate(draws)]
    assert loss > float(model.forward(model.collate(drawn)).nll) + 1
    other = [{**row, "features": -row["features"]} for row in data]
    assert prepared("unsir", model, other)[1] == pytest.approx(loss, rel=1e-6) and len(term.noise) == 8


def test_representations_of_forget_turn_and_those_of_retain_are_held() -> None:
    """Forget has turned by a right angle, retain by half of one: 1 - cos 45 degrees, less 1 / temperature."""

    def output(now: list[float]) -> Output:
        hidden, then = torch.tensor([[now]]), torch.tensor([[[1.0, 0.0]]])
        one_B, one_B1 = torch.ones(1), torch.ones(1, 1, dtype=torch.bool)
        states = Reference(hidden={"p": then})
        return Output(one_B, one_B, one_B1.long(), one_B1, hidden={"p": hidden}, reference=states)

    term = laf(temperature=4.0, push=0.0)
    term.path = "p"
    step = Step({"forget": output([0.0, 3.0]), "retain": output([2.0, 2.0])}, 0, 0, torch.Generator())
    assert float(term(step)) == pytest.approx(1 - 0.5**0.5 - 1 / 4, rel=1e-6)


def test_the_bad_teacher_is_met_in_its_whole_distribution() -> None:
    """The mean over examples of KL(untrained || now), in nats: not over classes as well."""
    data = [{"features": np.float32([1.0, -1.0]), "label": 0}, {"features": np.float32([0.5, 2.0]), "label": 1}]
    model, untrained = linear([[2.0, 0.0], [0.0, 1.0]]), linear([[0.0, 1.0], [-1.0, 0.5]])
    term = bad_teacher(temperature=1.0)
    term.teacher = Record({0: 0, 1: 1}, record(untrained, data, WHOLE))
    now = dataclasses.replace(model.forward(model.collate(data), want_of({"logits"})), indices=(0, 1))
    p, q = (
        softmax(one.forward(one.collate(data), want_of({"logits"})).logits_BTV[:, 0].detach().numpy(), axis=1)
        for one in (untrained, model)
    )
    by_hand = (p * np.log(p / q)).sum(1).mean()
    assert float(term(Step({"forget": now}, 0, 0, torch.Generator()))) == pytest.approx(by_hand, rel=1e-5)


def test_sensitivity_by_hand() -> None:
    """Logits w x, one weight a class: the slope of (w0 x)^2 + (w1 x)^2 by w is 2 w x^2, averaged over rows."""
    layer = nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[1.0], [-3.0]]))
    data = [{"features": np.float32([1.0]), "label": 0}, {"features": np.float32([2.0]), "label": 1}]
    found = sensitivity(Classifier(nn.Sequential(layer)), data, 1, lambda count: None)
    assert found["0.weight"].flatten().tolist() == [5.0, 15.0]


# -- heads and averages -----------------------------------------------------------------------------


def test_the_further_class_is_gone_afterwards(tmp_path: Path) -> None:
    """The head is the same layer with as many rows as before, moved; also where the training fails."""
    model = fresh(MODEL, [], 0)
    head, before = model.module.head, model.module.head.weight.clone()
    changed = run("boundary_expand", tmp_path / "run", rows(1, 8), rows(2, 16), model)
    assert changed.module.head is head and head.weight.shape == before.shape
    assert not torch.equal(head.weight, before)
    with pytest.raises(KeyError):
        run("boundary_expand", tmp_path / "broken", [{"features": np.zeros(4, np.float32)}] * 8, rows(2, 16), model)
    assert changed.module.head is head and head.weight.shape == before.shape


def test_a_mean_of_weights_keeps_their_types() -> None:
    one = {"w": torch.tensor([1.0, 2.0], dtype=torch.bfloat16), "seen": torch.tensor(3)}
    other = {"w": torch.tensor([3.0, 6.0], dtype=torch.bfloat16), "seen": torch.tensor(4)}
    mean = mean_of([one, other])
    assert mean["w"].tolist() == [2.0, 4.0] and mean["w"].dtype == torch.bfloat16 and int(mean["seen"]) == 4


def test_members_start_from_the_same_weights_with_other_draws(tmp_path: Path) -> None:
    """An inner method that adds its own draw: the soup lies the mean of the draws away from the start."""
    drawn: list[float] = []

    def add(model: Any, splits: Any, context: Context) -> Any:
        drawn.append(float(torch.rand(1, generator=context.generator("draw"))))
        with torch.no_grad():
            model.module[0].weight += drawn[-1]
        return model

    model = linear([[1.0, 0.0], [0.0, 1.0]])
    soup(inner=Method(add), members=3)(model, {"forget": []}, Context(Budget(), tmp_path, 0))
    assert len(set(drawn)) == 3
    assert float(model.module[0].weight[0, 1]) == pytest.approx(np.mean(drawn), rel=1e-5)


def test_noise_that_the_model_would_change_is_refused(prepared: Callable[..., Any]) -> None:
    """A model that halves its inputs as it collates them, as image processors rescale theirs."""

    class Halving(Classifier):
        def _inputs(self, examples: Any) -> dict[str, torch.Tensor]:
            return {name: value / 2 for name, value in super()._inputs(examples).items()}

    model = Halving(linear([[1.0, 0.0], [0.0, 1.0]]).module)
    with pytest.raises(BadInput, match="this model changes them before it reads them"):
        prepared("unsir", model, [{"features": np.float32([1.0, 2.0]), "label": 0}])
