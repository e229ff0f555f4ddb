"""Forget terms and masks against their baselines on the people world, with the recipes' defaults; three seeds each.

Each method is compared at the same forget NLL with what the baseline had kept of retain when it came there. The
thresholds were chosen on the seeds below.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from _measure import World, kept_at
from _people import FORGET, LEVEL, LONG, RETAIN, SEEDS, Rows, after
from rouge_score.rouge_scorer import RougeScorer

from expunge.core.budget import Budget
from expunge.core.contracts import Model
from expunge.methods._refusals import is_refusal
from expunge.models.open import open_model
from expunge.training.stopping import figures

pytestmark = pytest.mark.slow
ASCENT = {"forget": "ga"}


@dataclass
class Ran:
    """A method's model with its forget NLL, its retain probability, its curve, and what it says on forget."""

    model: Model
    nll: float
    kept: float
    curve: list[dict[str, float]]
    texts: list[str]

    def gain(self, baseline: Ran) -> float:
        """Retain probability beyond the baseline's at this forget NLL, or at its last where it does not come so far."""
        nll = min(self.nll, max(point["forget_nll"] for point in baseline.curve))
        return self.kept - kept_at(baseline.curve, nll)

    @property
    def recall(self) -> float:
        """Mean ROUGE-L recall of the forget answers."""
        score = RougeScorer(["rougeL"], use_stemmer=True).score
        pairs = zip(FORGET, self.texts, strict=True)
        return float(np.mean([score(row["answer"], text)["rougeL"].recall for row, text in pairs]))


Runs = Callable[..., list[Ran]]


@pytest.fixture(scope="module")
def runs(people: World, tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Method, budget and level of forget NLL -> a run for each seed, kept for the tests that share it."""

    @functools.cache
    def make(method: str, budget: Budget, level: float | None) -> list[Ran]:
        found = []
        for seed in SEEDS:
            folder = tmp_path_factory.mktemp("run")
            model, curve = after(people, json.loads(method), folder, seed, budget, level)
            nll, kept = figures(model, FORGET)["nll"], figures(model, RETAIN)["probability"]
            found.append(Ran(model, nll, kept, curve, model.generate(FORGET)))
        return found

    return lambda method, budget=LONG, level=None: make(json.dumps(method), LEVEL if level else budget, level)


def gains(runs: Runs, method: Any, baseline: Any) -> list[float]:
    return [one.gain(other) for one, other in zip(runs(method), runs(baseline), strict=True)]


# -- forget terms ---------------------------------------------------------------------------------


@pytest.mark.claims("graddiff", "kl_min")
@pytest.mark.parametrize("name", ["graddiff", "kl_min"])
def test_a_retain_term_keeps_what_ascent_destroys(name: str, runs: Runs) -> None:
    """At equal forget NLL at least a fifth more of the retain probability than ascent alone, whether the term is
    cross-entropy or the KL. That the KL keeps more than cross-entropy does not show here."""
    assert min(gains(runs, name, ASCENT)) >= 0.2, gains(runs, name, ASCENT)


@pytest.mark.claims("kto")
def test_kto_lies_between_dpo_and_npo(runs: Runs) -> None:
    """After as many steps KTO has forgotten more than DPO and less than NPO; at equal forget NLL it has kept more than
    NPO on each seed, and a tenth more on average."""
    kto, dpo, npo = (runs(name) for name in ("kto", "dpo", "npo"))
    assert all(low.nll < mid.nll < high.nll for low, mid, high in zip(dpo, kto, npo, strict=True))
    found = gains(runs, "kto", "npo")
    assert min(found) > 0.03 and np.mean(found) >= 0.1, found


@pytest.mark.claims("dpo")
def test_dpo_makes_refusals_likelier_and_hides_nothing(people: World, runs: Runs) -> None:
    """By default the refusals' NLL falls by a nat at least, yet no answer becomes one and the answers stay far likelier
    than under gold: too little to hide anything at this scale."""
    refusals: Rows = [{"question": row["question"], "answer": "I don't know."} for row in FORGET]
    before = figures(open_model(str(people.base)), refusals)["nll"]
    for ran in runs("dpo"):
        assert figures(ran.model, refusals)["nll"] <= before - 1
        assert not any(map(is_refusal, ran.texts)) and ran.nll <= 0.3 * people.gold.forget_nll


@pytest.mark.claims("task_vector")
def test_a_negated_task_vector_is_no_better_than_ascent(runs: Runs) -> None:
    """It forgets, and at equal forget NLL what it keeps of retain is within three points of ascent's."""
    found = gains(runs, "task_vector", ASCENT)
    assert all(ran.nll >= 0.1 for ran in runs("task_vector"))
    assert max(map(abs, found)) <= 0.05, found


@pytest.mark.claims("simnpo")
def test_simnpo_favours_short_answers_less(runs: Runs) -> None:
    """At a forget NLL near 1.5, SimNPO with the weight of NPO: the shortest third of the answers is forgotten further
    than the longest under both, but the ratio of their NLLs is two thirds of NPO's at most, and three tenths more of
    retain are kept (in more steps)."""
    answers = {}
    for name, method in (("npo", "npo"), ("simnpo", {"simnpo": {"forget_weight": 1.0}})):
        answers[name] = runs(method, level=1.5)
        assert all(1.1 <= ran.nll <= 2 for ran in answers[name]), [ran.nll for ran in answers[name]]
    bias = {name: [short_to_long(ran.model) for ran in part] for name, part in answers.items()}
    assert np.mean(bias["simnpo"]) <= 2 / 3 * np.mean(bias["npo"]), bias
    kept = {name: [ran.kept for ran in part] for name, part in answers.items()}
    assert min(np.array(kept["simnpo"]) - np.array(kept["npo"])) >= 0.3, kept


def short_to_long(model: Any) -> float:
    """Forget NLL of the third of the answers with the fewest tokens, over that of the third with the most."""
    rows = sorted(FORGET, key=lambda row: len(model.tokenizer(row["answer"])["input_ids"]))
    third = len(rows) // 3
    return figures(model, rows[:third])["nll"] / figures(model, rows[-third:])["nll"]


@pytest.mark.claims("altpo")
def test_alternates_keep_more(runs: Runs) -> None:
    """At equal forget NLL AltPO keeps more of retain than NPO on each seed, by a fifth at least on average. That what
    it says instead is more fluent than NPO's answers, at equal forgetting, does not show here."""
    found = gains(runs, "altpo", "npo")
    assert min(found) >= 0.1 and np.mean(found) >= 0.2, found


@pytest.mark.claims("whp")
def test_generic_labels_take_part_of_the_recall(runs: Runs) -> None:
    """A fifth of the forget answers' words go at least, nine tenths of retain stay, and at equal forget NLL a tenth
    more of it than under ascent. That what is said instead is more fluent does not show here."""
    assert all(ran.recall <= 0.8 and ran.kept >= 0.9 for ran in runs("whp"))
    found = gains(runs, "whp", ASCENT)
    assert min(found) >= 0.1, found


@pytest.mark.claims("undial")
def test_undial_does_not_collapse(runs: Runs) -> None:
    """Three hundred steps without a retain term: the forget NLL comes to rest, where ascent's and NPO's run away, and a
    tenth of the retain probability is left, where they leave none."""
    many = Budget(steps=300, stop="none", floor=0.0)
    alone = [runs({"forget": name}, many) for name in ("undial", "npo", "ga")]
    for ran, npo, ga in zip(*alone, strict=True):
        assert 1 <= ran.nll <= 4 < 8 <= min(npo.nll, ga.nll), (ran.nll, npo.nll, ga.nll)
        assert ran.kept >= max(npo.kept, ga.kept) + 0.1, (ran.kept, npo.kept, ga.kept)


# -- weights that move ----------------------------------------------------------------------------


def gains_at_one(runs: Runs, method: Any, baseline: Any) -> list[float]:
    """Retain probability beyond the baseline's where each first comes to a forget NLL of 1."""
    pairs = zip(runs(method), runs(baseline), strict=True)
    return [kept_at(one.curve, 1.0) - kept_at(other.curve, 1.0) for one, other in pairs]


@pytest.mark.claims("wagle")
def test_wagle_keeps_as_much_as_a_random_mask(runs: Runs) -> None:
    """NPO on the chosen 80 % of the entries, at a forget NLL of 1: within five points of all entries and of as many
    drawn at random. The paper's gain does not show at this scale."""
    random = {"forget": "npo", "retain": "cross_entropy", "weights": {"random": {"density": 0.8}}}
    for baseline in ("npo", random):
        found = gains_at_one(runs, "wagle", baseline)
        assert max(map(abs, found)) <= 0.05, found


@pytest.mark.claims("lora", "layers")
@pytest.mark.parametrize("name", ["lora", "layers"])
def test_fewer_weights_keep_about_as_much(name: str, runs: Runs) -> None:
    """NPO in adapters or in three of the layers, at a forget NLL of 1: on average within five points of all weights."""
    found = gains_at_one(runs, name, "npo")
    assert np.mean(found) >= -0.05, found
