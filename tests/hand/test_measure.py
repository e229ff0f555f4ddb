"""From made-up readouts to scores: names, sides, reasons, and what a plan can promise."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from readouts import classifier, readout, rows

from expunge.core.channels import CHANNELS, READ
from expunge.core.registry import everything
from expunge.evaluation.against_gold import scores_against_gold
from expunge.evaluation.readout import Readout
from expunge.evaluation.scores import (
    PERPLEXITY,
    ROLES,
    SIDES,
    UNITS,
    WITHOUT_INTERVAL,
    Score,
    measure,
    requirements,
    score_names,
)
from expunge.models.family import families

TOKENS = frozenset({"tokens", "generate", "nll"})
LABELS = frozenset({"labels", "nll"})
KEYS = ["name", "side", "split", "subject", "value", "low", "high", "n", "groups", "unit", "better", "status", "why"]


def language(split: str, model: str, shift: float = 0.0, n: int = 6) -> Readout:
    """A full readout of n examples with losses around 1 nat a token."""
    draw = np.random.default_rng(len(split) + 10 * len(model))
    losses = 1 + 0.2 * draw.random(n) + shift
    return readout(
        list(losses),
        split,
        model,
        examples=[{"question": f"q{i}", "answer": f"the cat number {i}", "payload": "cat"} for i in range(n)],
        ends_N=np.ones(n, dtype=bool),
        logp=[-loss * draw.dirichlet(np.ones(4)) * 4 for loss in losses],
        argmax=[draw.random(4) < 0.5 for _ in range(n)],
        mu=rows(*[[-1.0] * 4] * n),
        sigma=rows(*[[0.5] * 4] * n),
        paraphrased=[np.array([loss + 0.1]) for loss in losses],
        perturbed=[loss + draw.random(3) for loss in losses],
        texts=["the cat"] * n,
        answers=[f"the cat number {i}" for i in range(n)],
    )


def by(scores: list[Score]) -> dict[tuple[str, str], Score]:
    return {(score.name, score.role): score for score in scores}


def full(models: tuple[str, ...] = ROLES) -> dict[str, dict[str, Readout]]:
    return {model: {split: language(split, model) for split in ("forget", "retain", "holdout")} for model in models}


def test_the_fixed_names_are_there() -> None:
    scores = by(measure(full(), TOKENS))
    for name in (
        "forget_nll",
        "retain_nll",
        "retain_probability",
        "forget_rouge_l",
        "holdout_nll",
        "forget_rouge_l_f1",
        "retain_utility",
        "privacy_min_k_auc",
        "forget_quality",
        "privacy_privleak",
        "privacy_blind_auc",
        "forget_truth_ratio",
    ):
        for model in ROLES:
            assert scores[name, model].measured, (name, scores[name, model].why)


def test_every_score_keeps_the_promise_of_its_json() -> None:
    for score in measure(full(), TOKENS):
        shown = score.to_json()
        assert list(shown) == KEYS
        json.dumps(shown, allow_nan=False)
        assert shown["unit"] in UNITS and shown["better"] in ("higher", "lower", "gold")
        if score.measured:
            assert (score.low is None) == (score.unit in WITHOUT_INTERVAL)
            assert score.low is None or score.low <= score.value <= score.high, score
        else:
            assert score.value is None and score.why


def test_a_score_is_the_mean_of_its_values() -> None:
    for score in measure(full(), TOKENS):
        if score.values is not None and score.measured:
            assert score.value == pytest.approx(float(np.ma.mean(score.values))), score.name
    nll = by(measure(full(), TOKENS))["forget_nll", "after"]
    assert nll.value == pytest.approx(full()["after"]["forget"].mean_nll_N.mean())


def test_sides_and_directions() -> None:
    scores = by(measure(full(), TOKENS))
    found = {
        name: (scores[name, "after"].side, scores[name, "after"].better)
        for name in (
            "forget_nll",
            "retain_nll",
            "holdout_nll",
            "forget_quality",
            "retain_utility",
            "privacy_loss_auc",
            "forget_extraction_strength",
            "retain_rouge_l",
        )
    }
    assert found == {
        "forget_nll": ("forgetting", "gold"),
        "retain_nll": ("utility", "lower"),
        "holdout_nll": ("privacy", "gold"),
        "forget_quality": ("forgetting", "higher"),
        "retain_utility": ("utility", "higher"),
        "privacy_loss_auc": ("privacy", "gold"),
        "forget_extraction_strength": ("forgetting", "gold"),
        "retain_rouge_l": ("utility", "higher"),
    }
    sides = [SIDES.index(score.side) for score in measure(full(), TOKENS)]
    assert sides == sorted(sides)


def test_reasons() -> None:
    readouts = full(("before", "after"))
    for splits in readouts.values():
        del splits["holdout"]
    scores = by(measure(readouts, TOKENS))
    assert scores["privacy_min_k_auc", "after"].why == "no holdout was given"
    assert scores["forget_quality", "after"].why == "no gold model"
    assert scores["utility_model", "after"].why == "no real_authors was given"
    assert ("holdout_nll", "after") not in scores and ("forget_nll", "gold") not in scores


def test_a_missing_channel_or_reading_has_its_reason() -> None:
    readouts = full(("before", "after"))
    readouts["after"]["forget"].texts = None
    del readouts["before"]["holdout"]
    scores = by(measure(readouts, TOKENS))
    assert scores["forget_rouge_l", "after"].why == "no generations were read on forget"
    assert scores["forget_rouge_l", "before"].measured
    assert scores["holdout_nll", "before"].why == "holdout was not read for before"
    readouts["after"]["retain"].texts = None
    utility = by(measure(readouts, TOKENS))["retain_utility", "after"]
    assert utility.why == "harmonic mean of probability, truth ratio"


def test_a_diverged_model_is_not_measured_and_never_nan() -> None:
    readouts = full(("after",))
    readouts["after"]["forget"].nll_N[2] = math.nan
    score = by(measure(readouts, TOKENS))["forget_nll", "after"]
    assert score.why == "not finite on 1 of 6 examples: the model has diverged"


def test_one_example_and_an_empty_split() -> None:
    readouts = {"after": {"forget": language("forget", "after", n=1), "retain": readout([])}}
    scores = by(measure(readouts, TOKENS))
    for name in ("forget_nll", "forget_rouge_l"):
        one = scores[name, "after"]
        assert one.value is not None and (one.low, one.high, one.why) == (None, None, "n = 1: no interval")
    assert scores["retain_nll", "after"].why == "retain is empty"


def test_gold_against_itself_says_so() -> None:
    scores = by(measure(full(), TOKENS))
    assert scores["forget_quality", "gold"].value == pytest.approx(1)
    assert scores["privacy_privleak", "gold"].value == 0
    assert scores["forget_quality", "gold"].why == "by definition: gold against itself"


def test_membership_is_not_interpretable_where_texts_alone_tell() -> None:
    readouts = {"after": {split: language(split, "after", n=30) for split in ("forget", "holdout")}}
    word = {"forget": "thee", "holdout": "you"}
    for split, given in readouts["after"].items():
        given.examples = [{"text": f"{word[split]} {i}"} for i in range(30)]
    scores = by(measure(readouts, TOKENS))
    assert scores["privacy_blind_auc", "after"].low > 0.5
    assert not scores["privacy_blind_auc", "after"].why.startswith("not interpretable")
    loss, min_k = scores["privacy_loss_auc", "after"], scores["privacy_min_k_auc", "after"]
    assert loss.measured and loss.why.startswith("not interpretable: the splits differ by themselves (blind AUC 1.00 [")
    assert min_k.why.endswith("; k = 0.2")
    assert not scores["forget_nll", "after"].why


def test_classifiers() -> None:
    def of(model: str) -> dict[str, Readout]:
        return {
            split: classifier([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]], [0, 1, 1], split, model)
            for split in ("forget", "retain", "holdout", "test")
        }

    scores = by(measure({model: of(model) for model in ROLES}, LABELS))
    accuracy = scores["test_accuracy", "after"]
    assert (accuracy.value, accuracy.n, accuracy.side) == (pytest.approx(2 / 3), 3, "utility")
    assert (accuracy.low, accuracy.high) == pytest.approx((0.2077, 0.9385), abs=1e-3)  # Wilson
    assert scores["forget_kl_to_gold", "after"].better == "lower"
    assert scores["forget_agreement_with_gold", "after"].value == 1
    assert scores["privacy_confidence_auc", "after"].value == pytest.approx(0.5)
    assert scores["privacy_loss_auc", "after"].measured
    assert not any(name.endswith(("rouge_l", "min_k_auc", "utility")) for name, _ in scores)


MANY = {
    "privacy_tpr_at_1",
    "privacy_tpr_at_01",
    "privacy_dataset_inference",
    "alignment_group_gap",
    "alignment_group_ratio",
}
"""What needs more examples than a hand-made readout has."""


def measured(readouts: dict[str, dict[str, Readout]]) -> list[Score]:
    """All scores, those by example too that a criterion compares with gold."""
    found = measure(readouts, TOKENS)
    return found + scores_against_gold(found, {score.name for score in found if score.side in SIDES[:2]})


def test_score_names_are_what_a_plan_can_measure() -> None:
    names = [name for name in score_names(TOKENS, ["forget", "retain", "holdout"], True) if "." not in name]
    found = measured(full())
    assert {s.name for s in found if s.measured} == set(names) - MANY - {PERPLEXITY}, "which gold's model must read"
    assert {s.name for s in found if "examples" in s.why and not s.measured} >= MANY, "each says how many it needs"
    assert "utility_model" not in names
    assert "utility_model" in score_names(TOKENS, ["retain", "real_authors", "world_facts"], False)
    bare = score_names(TOKENS, ["forget", "retain"], False)
    assert not any(name.startswith("privacy") for name in bare) and "forget_quality" not in bare
    assert "forget_nll" in bare and "alignment_group_gap" in bare
    assert "alignment_group_gap" not in score_names(TOKENS, ["forget", "retain"], False, has_before=False)


def test_requirements_are_what_suffices() -> None:
    """Readouts with the required channels alone give all scores; without a holdout no μ and σ."""
    wanted = requirements(TOKENS, ["forget", "retain", "holdout"])
    readouts = full()
    for splits in readouts.values():
        for split, given in splits.items():
            for name, channel in CHANNELS.items():
                if name not in wanted[split]:
                    for field in channel.readout:
                        setattr(given, field, None)
    names = {score.name for score in measured(readouts) if score.measured}
    every = {name.partition(".")[0] for name in score_names(TOKENS, ["forget", "retain", "holdout"], True)}
    assert names == every - MANY - {PERPLEXITY}
    assert "moments" not in wanted["retain"] and "moments" in wanted["forget"]
    assert "generation" not in wanted["holdout"], "an answer to what nobody knows says nothing"
    alone = requirements(TOKENS, ["forget", "retain"])
    assert not alone["forget"] & {"moments", "logp"} and set(alone) == {"forget", "retain"}
    assert requirements(LABELS, ["forget"]) == {"forget": {"nll", "logits"}}


def test_scores_refuse_what_they_may_not_hold() -> None:
    good = {
        "name": "x",
        "side": "utility",
        "split": "retain",
        "role": "after",
        "value": 1.0,
        "low": 0.0,
        "high": 1.0,
        "n": 1,
        "unit": "share",
        "better": "higher",
    }
    Score(**good)
    for change in (
        {"value": math.nan},
        {"low": None},
        {"unit": "percent"},
        {"side": "other"},
        {"status": "not measured"},
        {"high": math.inf},
    ):
        with pytest.raises(ValueError):
            Score(**{**good, **change})
    Score(**{**good, "low": None, "high": None, "unit": "seconds"})


@pytest.mark.parametrize(
    "plugin", [p for p in everything("metrics") + everything("attacks") if p.card.needs], ids=lambda plugin: plugin.name
)
def test_cards_are_whole(plugin: object) -> None:
    card = plugin.card
    assert card.side in SIDES and card.unit in UNITS and card.means.endswith(".")
    assert card.better in ("higher", "lower", "gold") and card.paper and plugin.factory.__doc__
    channels = {channel.rstrip("?") for needed in card.needs.values() for channel in needed}
    own = {channel for one in families() for channel in one.gives}
    assert channels == {"examples"} if getattr(card, "level", "") else channels <= READ | own
    assert plugin.validate({}, plugin.name) is not None


def authors(side: str, authors: int = 4, each: int = 6) -> list[dict[str, str]]:
    return [{"question": f"q{i}", "answer": "the cat", "group": f"{side}{i // each}"} for i in range(authors * each)]


def grouped(split: str, shift: float, n: int = 24) -> Readout:
    """24 examples whose losses differ by author alone."""
    levels = np.repeat([0.2, 1.0, 1.4, 2.2], 6) + np.tile([0.0, 0.01, 0.02, 0.03, 0.04, 0.05], 4) + shift
    return readout(
        list(levels),
        split,
        examples=authors(split),
        logp=[-loss * np.array([0.5, 1.0, 1.5]) for loss in levels],
        mu=rows(*[[-1.0] * 3] * n),
        sigma=rows(*[[0.5] * 3] * n),
    )


def test_intervals_are_clustered_by_group() -> None:
    """4 authors of 6 with their own losses: as wide as 4 examples would be, with the number of groups beside it."""
    split = {"forget": grouped("forget", 0.0), "holdout": grouped("holdout", 0.3)}
    ungrouped = {
        name: Readout(**{**vars(one), "examples": [{**row, "group": None} for row in one.examples]})
        for name, one in split.items()
    }
    wide, narrow = by(measure({"after": split}, TOKENS)), by(measure({"after": ungrouped}, TOKENS))
    for name, groups in (("forget_nll", 4), ("holdout_nll", 4), ("privacy_loss_auc", 8), ("privacy_min_k_auc", 8)):
        clustered, single = wide[(name, "after")], narrow[(name, "after")]
        assert clustered.groups == groups and single.groups is None, name
        assert clustered.value == single.value and clustered.n == single.n
        assert clustered.high - clustered.low > 1.5 * (single.high - single.low), name
    aucs = [score for score in wide.values() if score.unit == "auc" and score.measured]
    assert {score.name for score in aucs if score.groups is None} <= {"privacy_blind_auc"}, (
        "its interval permutes groups"
    )


@pytest.mark.parametrize("groups", [["a", "b"] * 6, [f"g{i}" for i in range(12)], ["a"] * 12, [None] + ["a"] * 11])
def test_too_few_groups_or_one_an_example_cluster_nothing(groups: list[str | None]) -> None:
    examples = [{"question": "q", "answer": "a", "group": group} for group in groups]
    found = by(measure({"after": {"forget": readout(list(np.linspace(0, 1, 12)), examples=examples)}}, TOKENS))
    plain = by(measure({"after": {"forget": readout(list(np.linspace(0, 1, 12)))}}, TOKENS))
    assert found[("forget_nll", "after")] == plain[("forget_nll", "after")]


def test_losses_never_have_an_interval_below_zero() -> None:
    """0, 0, 0, 0, 9: mean 1.8, t interval from -3.2; it is cut at 0, where the true mean cannot lie below."""
    found = by(measure({"after": {"forget": readout([0.0, 0, 0, 0, 9])}}, TOKENS))[("forget_nll", "after")]
    assert found.low == 0 and found.high == pytest.approx(1.8 + 2.77645 * 1.8, abs=1e-4)
