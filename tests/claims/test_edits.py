"""The edits' claims on the language model of authors, world 1 (their defaults were set on worlds 0 and 2).

Each edit gets the strength that its factory finds by itself: the strongest that leaves 90 % of the retain
probability (up to the level of the holdout). What is compared is what that buys.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from rouge_score.rouge_scorer import RougeScorer

from expunge.core.budget import DEFAULTS, Budget
from expunge.core.context import Context
from expunge.core.errors import BadInput
from expunge.data.worlds import splits as world_splits
from expunge.methods._keys import states
from expunge.methods.compose import compose
from expunge.models.manifest import read_manifest
from expunge.models.open import open_model
from expunge.pipeline.gold import gold
from expunge.pipeline.worlds import build
from expunge.training.stopping import figures

pytestmark = pytest.mark.slow  # the world and its gold alone take two minutes
SEED, KEPT = 7, 0.87
"""KEPT: the floor is held on the sample that the edit reads; on others a little less is left."""


@dataclass(frozen=True)
class Figures:
    """Nats a token, retain probability, ROUGE-L recall of the forgotten and of the retained answers, and notes."""

    forget_nll: float
    retain_nll: float
    retain_probability: float
    rouge_l: float
    retain_rouge_l: float
    notes: dict[str, Any]


@pytest.fixture(scope="module")
def data() -> dict[str, Any]:
    return world_splits("authors", 1)


@pytest.fixture(scope="module")
def measured(data: dict[str, Any]) -> Callable[..., Figures]:
    """model, notes -> Figures; sixteen forget and twenty-four retain questions are answered."""
    scorer = RougeScorer(["rougeL"], use_stemmer=True)

    def recall(model: Any, rows: Any) -> float:
        texts = model.generate(rows, max_new_tokens=32)
        return math.fsum(
            scorer.score(row["answer"], text)["rougeL"].recall for row, text in zip(rows, texts, strict=True)
        ) / len(rows)

    def measure(model: Any, notes: Any = None) -> Figures:
        retain = figures(model, data["retain"][::3])
        return Figures(
            figures(model, data["forget"])["nll"],
            retain["nll"],
            retain["probability"],
            recall(model, data["forget"][::3]),
            recall(model, data["retain"][::18]),
            notes or {},
        )

    return measure


@pytest.fixture(scope="module")
def base(cache: Path) -> Path:
    return build("builtin:authors@1")


@pytest.fixture(scope="module")
def before(base: Path, measured: Callable[..., Figures]) -> Figures:
    return measured(open_model(str(base)))


@pytest.fixture(scope="module")
def retrained(base: Path, data: dict[str, Any], measured: Callable[..., Figures]) -> Figures:
    folder = gold(read_manifest(base), data["forget"], open_model(str(base)))
    return measured(open_model(str(folder)))


@pytest.fixture(scope="module")
def after(
    base: Path, data: dict[str, Any], measured: Callable[..., Figures], tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Figures]:
    """method as JSON -> Figures, run once."""

    @functools.cache
    def make(method: str) -> Figures:
        composed, notes = compose(json.loads(method)), {}
        budget = Budget().over(composed.budget, Budget(stop="holdout"), DEFAULTS)
        context = Context(budget, tmp_path_factory.mktemp("edit"), SEED, notes=notes)
        return measured(composed.method(open_model(str(base)), data, context), notes)

    return lambda method: make(json.dumps(method))


def selectivity(found: Figures, before: Figures) -> float:
    """How much more the forget NLL rose than retain's."""
    return (found.forget_nll - before.forget_nll) / max(1e-6, found.retain_nll - before.retain_nll)


def test_the_world_is_one_to_learn_from(before: Figures, retrained: Figures) -> None:
    assert before.forget_nll < 0.2 and before.rouge_l > 0.8 and before.retain_probability > 0.85
    assert retrained.forget_nll > 1.0 and retrained.rouge_l < 0.5


@pytest.mark.claims("fisher")
def test_fisher_noise_aims_at_nothing(before: Figures, after: Callable[..., Figures]) -> None:
    """Under the floor the noise raises the forget NLL hardly more than retain's: in a language model, whose facts
    share their weights, Fisher forgetting is the baseline and not the remedy. Here the paper's effect is not shown."""
    noise = after("fisher")
    assert noise.retain_probability >= KEPT * before.retain_probability
    assert selectivity(noise, before) < 2
    assert noise.forget_nll > before.forget_nll


@pytest.mark.claims("ssd")
def test_ssd_aims(before: Figures, after: Callable[..., Figures]) -> None:
    """Under the same floor SSD raises the forget NLL at least twice as far as noise by the same Fisher information,
    and more than three times as far as retain's. It stays far from gold: ROUGE-L falls by a fifth at least."""
    found = after("ssd")
    assert found.retain_probability >= KEPT * before.retain_probability
    assert found.forget_nll >= 2 * after("fisher").forget_nll
    assert selectivity(found, before) > 3
    assert found.rouge_l <= 0.8 * before.rouge_l


@pytest.mark.claims("influence")
def test_influence_takes_the_answers(before: Figures, retrained: Figures, after: Callable[..., Figures]) -> None:
    """One Newton step: ROUGE-L at most gold's + .1 and a fifth of gold's NLL at least, where 90 % of the retain
    probability are kept. Written freely, retained answers lose more than that, and still twice as much of them
    is left as of the forgotten."""
    found = after("influence")
    assert found.retain_probability >= KEPT * before.retain_probability
    assert found.rouge_l <= retrained.rouge_l + 0.1
    assert found.forget_nll >= 0.2 * retrained.forget_nll
    assert selectivity(found, before) > 5
    assert found.retain_rouge_l >= 2 * found.rouge_l


@pytest.mark.claims("stamp")
def test_stamp_takes_the_answers_and_keeps_the_rest(
    before: Figures, retrained: Figures, after: Callable[..., Figures]
) -> None:
    """ROUGE-L at most gold's + .1 with 90 % of the retain probability kept and three times as much left of retained
    answers as of forgotten ones. What the paper does not tell: read under teacher forcing, past the first token,
    most of the answer is still there (a quarter of gold's NLL at most). Nor are retained answers as safe as
    its 0.88: an edit of prompts' last tokens spoils some of their beginnings."""
    found = after("stamp")
    assert found.retain_probability >= KEPT * before.retain_probability
    assert found.rouge_l <= retrained.rouge_l + 0.1
    assert found.forget_nll <= 0.25 * retrained.forget_nll
    assert found.retain_rouge_l >= 3 * found.rouge_l


def test_stamp_s_plain_pseudo_inverse_costs_more(before: Figures, after: Callable[..., Figures]) -> None:
    """The paper's own form, which sees no retain data, at the layer where it bites: answers go, and more of retain
    with them than where retain's activations are spared."""
    plain, spared = after({"stamp": {"preserve": 0, "layer": 0}}), after({"stamp": {"layer": 0}})
    assert plain.rouge_l <= 0.5 * before.rouge_l and spared.rouge_l <= 0.5 * before.rouge_l
    assert plain.retain_probability < spared.retain_probability - 0.03


def test_stamp_of_low_rank_does_most_of_it(before: Figures, after: Callable[..., Figures]) -> None:
    """A third of the prompts' directions: ROUGE-L at most a half of before's."""
    found = after({"stamp": {"rank": 16}})
    assert found.retain_probability >= KEPT * before.retain_probability
    assert found.rouge_l <= 0.5 * before.rouge_l


@pytest.mark.claims("unierase")
def test_unierase_covers_the_answers(before: Figures, retrained: Figures, after: Callable[..., Figures]) -> None:
    """ROUGE-L at most gold's + .1, three times as much left of retained answers, and the old answer still likely
    behind the token. A base that has never refused does not learn to by one embedding: refusals are not shown."""
    found = after("unierase")
    assert found.retain_probability >= KEPT * before.retain_probability
    assert found.rouge_l <= retrained.rouge_l + 0.1
    assert found.retain_rouge_l >= 3 * found.rouge_l
    assert found.forget_nll <= 0.25 * retrained.forget_nll


@pytest.mark.claims("concept_vectors")
def test_concept_vectors_are_peculiar(before: Figures, after: Callable[..., Figures]) -> None:
    """A few per cent of the columns: the forget NLL rises by more than 1.3 times what retain's does, and no column
    is one author's own: in a model of three layers wiping under the floor takes a tenth of the answers at least,
    not, as in the paper's models, the concept."""
    found = after("concept_vectors")
    assert found.notes["strength"]["strength"] <= 0.15
    assert found.retain_probability >= KEPT * before.retain_probability
    assert selectivity(found, before) > 1.3
    assert found.rouge_l <= 0.9 * before.rouge_l


@pytest.mark.claims("neuron_adjust")
def test_neuron_adjust_shifts_the_skill(before: Figures, after: Callable[..., Figures]) -> None:
    """Under the floor the forget NLL rises by more than twice what retain's does. The paper's 80 % drop is of a skill
    (mathematics, a language) that neurons tell apart; one author's facts from another's they tell less well."""
    found = after("neuron_adjust")
    assert found.retain_probability >= KEPT * before.retain_probability
    assert selectivity(found, before) > 2
    assert found.forget_nll > 3 * before.forget_nll


@pytest.mark.claims("rocr")
def test_rocr_redirects_the_concept_in_questions_that_it_never_saw(
    base: Path, data: dict[str, Any], before: Figures, measured: Callable[..., Figures], tmp_path: Path
) -> None:
    """Keys from half of each author's questions. There the layer's output at the name's last token ends at the
    harmless concept (at most a tenth of the distance is left); on the other half it goes a fifth of the way at
    least, while the retained authors stay where they are (within 3 %).

    What small scale does not show is the answers' going: with three layers and names of several tokens the
    answer is read off the name's other tokens, and the forget NLL hardly moves.
    """
    model = open_model(str(base))
    block = (model.blocks[1],)
    halves = {"seen": data["forget"][::2], "unseen": data["forget"][1::2], "retain": data["retain"]}
    target = states(model, data["retain"], block, "subject")[0].mean(0)

    def distance() -> dict[str, float]:
        """Of the authors' mean outputs from the harmless concept's, summed over authors."""
        found = {}
        for name, rows in halves.items():
            x = states(model, rows, block, "subject")[0]
            role = {
                row["subject"]: [i for i, other in enumerate(rows) if other["subject"] == row["subject"]]
                for row in rows
            }
            found[name] = math.fsum(float((x[places].mean(0) - target).norm()) for places in role.values())
        return found

    then = distance()
    context = Context(DEFAULTS, tmp_path, SEED)
    compose("rocr").method(model, {**data, "forget": halves["seen"]}, context)
    now = distance()
    assert now["seen"] <= 0.1 * then["seen"]
    assert now["unseen"] <= 0.8 * then["unseen"]
    assert now["retain"] == pytest.approx(then["retain"], rel=0.03)
    assert measured(model).retain_probability >= 0.97 * before.retain_probability


def test_rocr_says_what_it_lacks(base: Path, data: dict[str, Any], tmp_path: Path) -> None:
    context = Context(DEFAULTS, tmp_path, SEED)
    nameless = {**data, "forget": [{k: v for k, v in row.items() if k != "subject"} for row in data["forget"]]}
    with pytest.raises(BadInput, match="'subject' is missing in 48 of 48"):
        compose("rocr").method(open_model(str(base)), nameless, context)
    with pytest.raises(BadInput, match="is the subject of no retain example"):
        compose({"rocr": {"to": "Nobody"}}).method(open_model(str(base)), data, context)
    elsewhere = {**data, "forget": [{**data["forget"][0], "subject": "Nobody Else"}]}
    with pytest.raises(BadInput, match="does not stand in the prompt"):
        compose("rocr").method(open_model(str(base)), elsewhere, context)
