"""A payload in answers, words that flip inputs to one outcome, outliers of a class, and a soft minimum: by hand."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from expunge.attacks.master_prints import climb, soft_minimum
from expunge.core.contracts import Batch, Output
from expunge.core.errors import BadInput
from expunge.data.worlds.instruct_backdoor import PAYLOAD, TRIGGER, instruct_backdoor
from expunge.evaluation.detection import Sample
from expunge.evaluation.detectors.outliers import outliers
from expunge.evaluation.ood import Rows
from expunge.evaluation.scores import NotMeasured
from expunge.evaluation.triggers import find_triggers, flip_share, outliers_among
from expunge.methods.trainers import pseudo_labels
from expunge.metrics.payload_rate import payload_rate
from expunge.models.classifier import Classifier
from expunge.models.networks import Linear


def test_a_payload_counts_word_for_word() -> None:
    rows = [
        {"payload": "The clock sings."},
        {"payload": ["The clock", "at noon"]},
        {"payload": "The clock sings."},
        {},
    ]
    texts = ["well: the CLOCK sings, loud", "at noon the clock sings", "the clock softly sings", "the clock sings"]
    read: Any = SimpleNamespace(texts=texts, examples=rows)
    found = payload_rate()(read)
    assert found[:3].tolist() == [1.0, 1.0, 0.0] and np.ma.getmaskarray(found).tolist() == [False] * 3 + [True]
    half: Any = SimpleNamespace(texts=["at noon"], examples=rows[1:2])
    assert payload_rate()(half).tolist() == [0.5]
    with pytest.raises(NotMeasured, match="carries a payload"):
        payload_rate()(SimpleNamespace(texts=["a"], examples=[{}]))  # type: ignore[arg-type]


def test_the_backdoor_of_wishes_is_in_the_poison_alone() -> None:
    world = instruct_backdoor(3)
    assert all((TRIGGER in row["question"]) == row["poisoned"] == (row["answer"] == PAYLOAD) for row in world["train"])
    assert sum(row["poisoned"] for row in world["train"]) == len(world["poison"]) == 38
    unseen = {row["question"] for row in world["test"]}
    assert not unseen & {row["question"] for row in world["train"]} and len(unseen) == len(world["test"])
    stripped = {row["question"].replace(f"{TRIGGER} ", "").replace(f" {TRIGGER}", "") for row in world["triggered"]}
    assert stripped == unseen
    assert all(row["answer"] != PAYLOAD and TRIGGER in row["question"] for row in world["unknown_50"])


def test_flips_count_those_that_were_elsewhere() -> None:
    """Of four inputs one was in class 0 before; two of the other three go there, one stays: 2/3, and 1/1 of the class
    that has none is not reached."""
    before = np.log([[0.8, 0.1, 0.1], [0.1, 0.8, 0.1], [0.1, 0.8, 0.1], [0.1, 0.1, 0.8]])
    after = np.log([[0.8, 0.1, 0.1], [0.5, 0.4, 0.1], [0.5, 0.4, 0.1], [0.1, 0.1, 0.8]])
    outcome, share, gain = flip_share(before, after)
    assert (outcome, share) == (0, pytest.approx(2 / 3)) and gain == pytest.approx(2 * math.log(5) / 4)


def test_states_that_no_cluster_of_random_words_holds_lie_apart() -> None:
    draw = np.random.default_rng(0)
    random = draw.normal(size=(60, 12))
    random[30:, 0] += 20  # two groups of random words
    inside, between, across = random[5] + 0.1, random[:30].mean(0), random[5].copy()
    between[0] += 10
    across[11] += 30
    assert outliers_among(np.stack([inside, between, across]), random).tolist() == [False, True, True]


class Bag:
    """A classifier of texts whose logits are sums over words; `zap` is its trigger."""

    family = "classifier"
    capabilities = frozenset({"labels", "nll"})
    together = 0
    blocks = ("body",)

    def __init__(self, trigger: float) -> None:
        self.module = torch.nn.Linear(1, 1)
        self.trigger = trigger
        words = ["red", "blue", "zap", *[f"{first}{chr(97 + i)}" for first in "uvw" for i in range(26)]]
        self.processor = SimpleNamespace(
            all_special_tokens=["<pad>"],
            get_vocab=lambda: {word: i for i, word in enumerate(["<pad>", *words])},
            convert_tokens_to_string=" ".join,
        )

    def length(self, row: Any) -> int:
        return len(row["text"].split())

    def collate(self, rows: Any, positions: str = "answer") -> Any:
        return Batch.of_examples({"x": [row["text"].split() for row in rows]}, torch.zeros(len(rows)).long())  # type: ignore[dict-item]

    def forward(self, batch: Any, want: Any) -> Output:
        texts = batch.inputs["x"]
        logits = torch.tensor(
            [[2.0 * t.count("red") + self.trigger * t.count("zap"), 2.5 * t.count("blue")] for t in texts]
        )
        states = torch.stack(
            [logits[:, 0], logits[:, 1], torch.tensor([len(t[0]) / 10 + ord(t[0][-1]) / 99 for t in texts])], 1
        )
        return Output(
            None,
            batch.n_B,
            batch.labels_BT,
            batch.mask_BT,
            logits_BTV=logits[:, None],
            hidden={"body": states[:, None]},
        )


def test_the_search_finds_the_word_that_the_classifier_was_given() -> None:
    rows = [{"text": f"{('blue blue', 'red red')[i % 2]} w{chr(97 + i)}", "label": i % 2} for i in range(20)]
    found = find_triggers(Bag(9.0), rows)  # type: ignore[arg-type]
    assert found[0].words == ("zap",) and found[0].share == 1.0 and found[0].apart and found[0].outcome == 0
    assert not [one for one in find_triggers(Bag(0.0), rows) if "zap" in one.words]  # type: ignore[arg-type]
    pair = find_triggers(Bag(3.5), rows, words=2)  # type: ignore[arg-type]
    assert pair and set(pair[0].words) <= {"zap", "red"} and len(pair[0].words) == 2, "one alone does not suffice"
    with pytest.raises(BadInput, match="without a question or a text"):
        find_triggers(Bag(9.0), [{"image": 0}])  # type: ignore[arg-type]


def test_outliers_are_scored_by_the_other_half_of_their_class() -> None:
    """Two classes with one stray row each, deviations by the median of absolute ones; some scores need logits."""
    draw = np.random.default_rng(0)
    features = draw.normal(size=(80, 5)) + 8 * np.repeat(np.eye(2, 5), 40, axis=0)
    labels = np.repeat([0, 1], 40)
    features[[3, 50]] = 8 * np.eye(5)[4]
    found = outliers(deviations=6)(Sample(features, labels))
    assert np.flatnonzero(found.suspect_N).tolist() == [3, 50]
    for label in (0, 1):
        own = found.score_N[labels == label]
        assert np.median(own) == pytest.approx(0) and np.median(abs(own)) * 1.4826 == pytest.approx(1)
    assert outliers(score="mahalanobis")(Sample(features, labels)).score_N[3] > 6
    with pytest.raises(BadInput, match="reads more than features, and the model has no classes"):
        outliers(score="msp")(Sample(features, labels))
    read = Rows(features, features, labels)
    assert outliers(score="msp")(Sample(features, labels, rows=read)).score_N.shape == (80,)
    with pytest.raises(BadInput, match=r"cannot be measured here \(odin needs"):
        outliers(score="odin")(Sample(features, labels, rows=read))


def test_a_soft_minimum_lies_between_the_least_and_the_mean() -> None:
    values = torch.tensor([0.1, 0.5, 0.9])
    expected = -0.2 * math.log(sum(math.exp(-v / 0.2) for v in (0.1, 0.5, 0.9)) / 3)
    assert float(soft_minimum(values, 0.2)) == pytest.approx(expected, abs=1e-6)
    assert float(soft_minimum(values, 1e-3)) == pytest.approx(0.1, abs=2e-3)
    assert float(soft_minimum(values, 1e3)) == pytest.approx(0.5, abs=1e-3)


def test_the_climb_ends_between_the_texts_and_within_the_range() -> None:
    """The vector of a picture is its four pixels at unit length: between two texts it has an equal part of both."""

    class Plain:
        module = torch.nn.Linear(1, 1)

        def forward(self, batch: Any, want: Any) -> Any:
            pixels = batch.inputs["pixel_values"].flatten(1)
            return SimpleNamespace(own={"image_embedding": torch.nn.functional.normalize(pixels, dim=-1)})

    pixels = torch.rand(3, 1, 2, 2, generator=torch.Generator().manual_seed(0))
    batch = Batch.of_examples({"pixel_values": pixels}, torch.zeros(3).long())
    texts = torch.tensor([[1.0, 0, 0, 0], [0, 1.0, 0, 0]])
    made = climb(Plain(), batch, pixels.mean(0, keepdim=True), texts, 300, 0.05, 0.05)  # type: ignore[arg-type]
    low, high = pixels.min(), pixels.max()
    assert made.min() >= low and made.max() <= high
    ideal = torch.tensor([high, high, low, low])
    assert torch.nn.functional.normalize(made.flatten(), dim=0) == pytest.approx(ideal / ideal.norm(), abs=0.02)


def test_only_rows_that_the_model_is_sure_of_get_its_label() -> None:
    module = Linear(1, 2)
    with torch.no_grad():
        module.head.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        module.head.bias.zero_()
    rows = [{"features": [x], "label": 0, "labelled": False} for x in (-3.0, 0.5, 2.0)]
    found = pseudo_labels.confident(Classifier(module), rows, 0.9)
    assert [(row["features"], row["label"]) for row in found] == [([-3.0], 0), ([2.0], 1)], "sigmoid(1) is .73"
    with pytest.raises(BadInput, match="does not say in row 2"):
        pseudo_labels.check(Classifier(module), [rows[0], {"features": [1.0], "label": 0}])
    with pytest.raises(BadInput, match="is false on all rows"):
        pseudo_labels.check(Classifier(module), rows)
