"""Relabelling by concepts, alignment over domains and of pairs, by hand."""

from __future__ import annotations

import itertools
import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from expunge.core.contracts import Output, Step
from expunge.core.errors import BadInput
from expunge.core.random import derive
from expunge.methods.compose import compose
from expunge.methods.objectives.concept_poison import concept_poison, concepts_of, nearest_class
from expunge.methods.retain.aligned_pairs import aligned_pairs
from expunge.methods.retain.composed_negatives import composed_negatives
from expunge.methods.retain.hessian_alignment import hessian_alignment, product
from expunge.methods.trainers import open_replay
from expunge.methods.trainers.open_replay import typical_rows
from expunge.models.classifier import Classifier
from expunge.models.networks import Linear


def step(name: str, out: Output) -> Step:
    return Step({name: out}, index=0, epoch=0, generator=torch.Generator().manual_seed(0))


def output(logits_BV: torch.Tensor, labels_B: torch.Tensor, **more: Any) -> Output:
    ones = torch.ones(len(labels_B), 1, dtype=torch.bool)
    nll_B = cross_entropy(logits_BV, labels_B, reduction="none")
    indices = tuple(range(len(labels_B)))
    return Output(
        nll_B,
        ones.sum(-1),
        labels_B[:, None],
        ones,
        logits_BTV=logits_BV[:, None],
        indices=indices,
        rows=indices,
        **more,
    )


COLOURS, SHAPES, TEXTURES = ("red", "blue"), ("square", "disc"), ("plain", "dots")


def shapes(count: int) -> list[dict[str, Any]]:
    """Rows whose six numbers are their colour, shape and texture with noise; the class is colour and shape."""
    draw, rows = np.random.default_rng(0), []
    kinds = list(itertools.product(range(2), range(2), range(2)))
    for i in range(count):
        colour, shape, texture = kinds[i % len(kinds)]
        x = np.concatenate([np.eye(2)[one] for one in (colour, shape, texture)]) + 0.1 * draw.normal(size=6)
        words = {"colour": COLOURS[colour], "shape": SHAPES[shape], "texture": TEXTURES[texture]}
        rows.append({"features": x.astype(np.float32), "label": 2 * colour + shape, **words})
    return rows


def run_of(model: Any, forget: Any, retain: Any) -> Any:
    context = SimpleNamespace(derive=lambda *parts: derive(7, *parts))
    splits = {"forget": forget, "retain": retain}
    return SimpleNamespace(
        model=model,
        context=context,
        splits=splits,
        rows=lambda stream: list(range(len(splits[stream]))),
        examples=lambda stream: splits[stream],
    )


@pytest.fixture(scope="module")
def model() -> Classifier:
    """A head that adds up colour and shape."""
    module = Linear(6, 4)
    with torch.no_grad():
        module.head.bias.zero_()
        for label in range(4):
            module.head.weight[label] = torch.tensor([*np.eye(2)[label // 2], *np.eye(2)[label % 2], 0, 0]) * 4
    return Classifier(module)


def test_the_concepts_of_a_class_are_those_that_tell_it(model: Classifier) -> None:
    """Red and square lead the red squares, and no texture does; a row of theirs that shows neither keeps its label."""
    rows = shapes(160)
    forget, retain = ([row for row in rows if (row["label"] == 0) == of] for of in (True, False))
    stray = {**next(row for row in retain if row["label"] == 3), "label": 0}
    term: Any = concept_poison(to="random")
    term.prepare(run_of(model, [*forget, stray], retain))
    assert set(term.leading[0]) == {("colour", "red"), ("shape", "square")}
    assert set(term.labels) == set(range(len(forget))) and set(term.labels.values()) == {1, 2, 3}
    assert term.notes()["concept_poison"]["relabelled"] == len(forget)
    near: Any = concept_poison(to="nearest")
    near.prepare(run_of(model, forget, retain))
    assert set(near.labels.values()) == {1}, "a red disc, the first of two that share a concept and a half"
    logits, labels = torch.randn(len(forget) + 1, 4, generator=torch.Generator().manual_seed(0)), torch.zeros(41).long()
    expected = 0.0
    for i, label in term.labels.items():
        expected += float(logits[i].logsumexp(0) - logits[i, label]) / 41
    assert float(term(step("forget", output(logits, labels)))) == pytest.approx(expected, rel=1e-5)


def test_rows_without_words_are_refused_before_anything_runs(model: Classifier) -> None:
    """Alone and beside another term: a bench skips the method with this reason."""
    rows = [{"features": row["features"], "label": row["label"]} for row in shapes(80)]
    splits = {"forget": [row for row in rows if row["label"] == 0], "retain": [row for row in rows if row["label"]]}
    for spec in ("concept_poison", {"forget": "random_label", "beside": "concept_poison"}):
        with pytest.raises(BadInput, match=r"forget: none of 20 rows has a field whose words tell"):
            compose(spec).method.fits(model, splits, None)


def test_concepts_are_values_that_some_rows_have() -> None:
    rows = [{"a": "x", "b": "same", "c": str(i), "class_name": f"n{i % 2}"} for i in range(5)] + [{"a": "y"}] * 3
    assert concepts_of(rows) == [("a", "x"), ("a", "y"), ("b", "same")], "five of eight have b; each c is one row's"
    profiles = {0: np.array([1.0, 1, 0]), 1: np.array([0.0, 0, 1]), 2: np.array([1.0, 0, 0])}
    assert nearest_class(profiles, 0) == 2 and nearest_class({0: profiles[0]}, 0) == 0


def test_hessian_products_by_autograd() -> None:
    """The Hessian of the mean cross-entropy by the head's weights, flattened, times a vector."""
    draw = torch.Generator().manual_seed(1)
    x, weight = torch.randn(5, 3, generator=draw), torch.randn(4, 3, generator=draw)
    labels, vector = torch.tensor([0, 1, 3, 2, 1]), torch.randn(4, 3, generator=draw)

    def loss(flat: torch.Tensor) -> torch.Tensor:
        return cross_entropy(x @ flat.reshape(4, 3).T, labels)

    hessian: Any = torch.autograd.functional.hessian(loss, weight.flatten())  # type: ignore[no-untyped-call]
    found = product((x @ weight.T).softmax(-1), x, vector)
    assert found.flatten().tolist() == pytest.approx((hessian @ vector.flatten()).tolist(), abs=1e-5)


def test_domains_are_aligned_in_gradient_and_curvature() -> None:
    draw = torch.Generator().manual_seed(2)
    network = nn.Sequential(nn.Linear(3, 4))
    rows = [{"features": np.zeros(3, np.float32), "label": 0, "group": name} for name in "abbaa"]
    term: Any = hessian_alignment(gradients=0.3, hessians=0.7)
    term.declare(Classifier(network))
    term.prepare(run_of(Classifier(network), [], rows))
    x, labels = torch.randn(5, 3, generator=draw), torch.tensor([0, 1, 3, 2, 1])
    weight = network[0].weight.detach()  # type: ignore[union-attr]
    logits = x @ weight.T
    found = float(term(step("retain", output(logits, labels, hidden={"0:in": x[:, None]}))))
    domains = [[0, 3, 4], [1, 2]]

    def loss(flat: torch.Tensor, own: list[int]) -> torch.Tensor:
        return cross_entropy(x[own] @ flat.reshape(4, 3).T, labels[own])

    flat = weight.flatten()
    grads = [torch.autograd.functional.jacobian(lambda w, own=own: loss(w, own), flat) for own in domains]  # type: ignore[no-untyped-call]
    mean = (grads[0] + grads[1]) / 2
    turned = [torch.autograd.functional.hessian(lambda w, own=own: loss(w, own), flat) @ mean for own in domains]  # type: ignore[no-untyped-call]
    expected = float(cross_entropy(logits, labels))
    for factor, (one, other) in ((0.3, grads), (0.7, turned)):
        expected += factor * float(((one - other) / 2).square().sum())
    assert found == pytest.approx(expected, rel=1e-4)
    alone = output(logits[:1], labels[:1], hidden={"0:in": x[:1, None]})
    assert float(term(step("retain", alone))) == pytest.approx(float(alone.nll_B)), "one domain: nothing to align"


def test_pairs_are_drawn_onto_their_captions() -> None:
    u, v = torch.tensor([[1.0, 0], [0.6, 0.8]]), torch.tensor([[0.0, 1], [0.6, 0.8]])
    ones = torch.ones(2, 1, dtype=torch.bool)
    own = {"image_embedding": u, "text_embedding": v}
    out = Output(torch.tensor([0.5, 1.5]), ones.sum(-1), ones.long(), ones, own=own)
    assert float(aligned_pairs(weight=0.4)(step("retain", out))) == pytest.approx(1.0 + 0.4 * (1 + 0) / 2)  # type: ignore[operator]
    assert math.isclose(float(((u - v) ** 2).sum(1).mean() / 2), 0.5)


def test_what_is_replayed_lies_near_the_mean_of_its_class(model: Classifier) -> None:
    """Half of ten rows at 0, 1, ... 9 along one number: the mean is 4.5, and 2 to 6 are the nearest (or 3 to 7)."""
    rows = [{"features": np.array([i, 0, 0, 0, 0, 0], np.float32), "label": 0} for i in range(10)]
    rows += [{"features": np.zeros(6, np.float32), "label": 3}]
    found = typical_rows(model, rows, 0.5)
    assert sorted(float(row["features"][0]) for row in found if row["label"] == 0) == [2, 3, 4, 5, 6]  # type: ignore[index]
    assert sum(row["label"] == 3 for row in found) == 1, "at least one of each class"
    with pytest.raises(BadInput, match="is missing in row 1"):
        open_replay.check(model, rows)


def test_a_composed_negative_differs_in_one_word_that_stands_there_elsewhere() -> None:
    rows = [{"image": 0, "text": f"a {c} {s}"} for c in ("red", "blue", "green") for s in ("disc", "cross")]
    term: Any = composed_negatives(weight=0.5)
    term.prepare(run_of(None, [], rows))
    made = [term.negative_of(row)["text"].split() for row in rows]
    for row, words in zip(rows, made, strict=True):
        given = row["text"].split()  # type: ignore[attr-defined]
        assert sum(a != b for a, b in zip(given, words, strict=True)) == 1 and words[0] == "a"
        assert words[1] in ("red", "blue", "green") and words[2] in ("disc", "cross")
    term.after_step(0, {})
    assert [term.negative_of(row)["text"].split() for row in rows] != made, "drawn anew"
    term.model = SimpleNamespace(module=SimpleNamespace(logit_scale=torch.tensor(math.log(2.0))))
    u, v, n = torch.tensor([[1.0, 0]]), torch.tensor([[0.6, 0.8]]), torch.tensor([[0.8, 0.6]])
    ones = torch.ones(1, 1, dtype=torch.bool)
    retain = Output(
        torch.tensor([0.7]), ones.sum(-1), ones.long(), ones, own={"image_embedding": u, "text_embedding": v}
    )
    negative = Output(None, ones.sum(-1), ones.long(), ones, own={"text_embedding": n})  # type: ignore[arg-type]
    both = Step({"retain": retain, "negative": negative}, 0, 0, torch.Generator())
    assert float(term(both)) == pytest.approx(0.7 + 0.5 * math.log1p(math.exp(2 * 0.2)), rel=1e-5)
