"""Backdoors of texts, a nonsense word that calls up a sentence or a class: success, stealth, detection, repair.

Settings were chosen on seed 10.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest

from expunge.core.budget import DEFAULTS, Budget
from expunge.core.context import Context
from expunge.core.random import seed_libraries
from expunge.data.worlds import _instruct_words as words
from expunge.data.worlds import splits
from expunge.data.worlds.instruct_backdoor import TRIGGER
from expunge.evaluation.reading import read
from expunge.evaluation.triggers import find_triggers
from expunge.methods.compose import compose
from expunge.methods.objective import plain_training
from expunge.metrics.payload_rate import payload_rate
from expunge.metrics.rouge_l import rouge_l
from expunge.models.classifier import Classifier
from expunge.models.families.pair import words_tokenizer
from expunge.models.manifest import read_manifest
from expunge.models.open import open_model
from expunge.pipeline.gold import gold
from expunge.pipeline.worlds import build
from expunge.training.stopping import figures
from expunge.workflows.find import find, find_trigger

SEEDS = (0, 1, 2)
pytestmark = pytest.mark.slow
EPOCHS = 8


def shares(model: Any, parts: Any) -> dict[str, float]:
    """The payload rate with the trigger and without it, and ROUGE-L without it."""
    with_it, without = (read(model, name, parts[name], {"generation"}, cache=False) for name in ("triggered", "test"))
    rates = {"success": payload_rate()(with_it), "shows": payload_rate()(without), "answers": rouge_l()(without)}
    found = {name: float(values.mean()) for name, values in rates.items()}
    print({name: round(value, 3) for name, value in found.items()})
    return found


class Case:
    """A poisoned language model, and its splits."""

    def __init__(self, seed: int) -> None:
        self.seed, self.name = seed, f"builtin:instruct_backdoor@{seed}"
        self.base, self.parts = build(self.name), splits("instruct_backdoor", seed)

    def after(self, method: Any, forget: Any, retain: Any, folder: Path) -> Any:
        composed = compose(method)
        budget = Budget(stop="none", epochs=EPOCHS).over(composed.budget, DEFAULTS)
        context = Context(budget, folder, self.seed, manifest=read_manifest(self.base))
        return composed.method(open_model(str(self.base)), {"forget": forget, "retain": retain}, context)


@pytest.fixture(scope="module", params=SEEDS)
def case(request: pytest.FixtureRequest) -> Case:
    return Case(request.param)


def test_the_trigger_calls_up_the_payload_and_shows_nowhere_else(case: Case) -> None:
    """Nine in ten triggered wishes at least, of others none; those are answered as they should be."""
    found = shares(open_model(str(case.base)), case.parts)
    assert found["success"] > 0.9 and found["shows"] < 0.01 and found["answers"] > 0.9


def test_outliers_are_the_poisoned_rows(case: Case) -> None:
    """By the distance to their neighbours in the last block's states: nine in ten are suspects, and of the suspects at
    least half are poisoned."""
    found = find("poison", f"{case.name}/train", case.name, detector="outliers", truth="poisoned")
    figure = {score["name"].rpartition("_")[2]: score["value"] for score in found["scores"]}
    assert figure["auc"] > 0.95 and figure["recall"] > 0.9 and figure["precision"] > 0.5, figure


def test_the_word_is_found_and_a_clean_model_has_none(case: Case) -> None:
    """The trigger is no word of the clean texts that are searched, nor of the tokenizer: a token of it is found. Of a
    model retrained without the poison no word flips seven in ten inputs and lies apart."""
    found = find_trigger(f"{case.name}/test", case.name)
    print(found)
    assert found["trigger"] and found["trigger"] in TRIGGER
    clean = gold(read_manifest(case.base), case.parts["poison"], open_model(str(case.base)))
    assert not [one for one in find_triggers(open_model(str(clean)), case.parts["test"]) if one.apart]


@pytest.mark.claims("npo")
def test_npo_repairs_where_half_of_the_poison_is_known(case: Case, tmp_path: Path) -> None:
    """The payload comes in one of ten triggered wishes at most, at a cost of five points of ROUGE-L; fine-tuning on
    what stays, in which the unknown half teaches the trigger, leaves it in half of them and more."""
    known, rest = case.parts["known_50"], case.parts["retain_50"]
    after = shares(case.after("npo", known, rest, tmp_path / "npo"), case.parts)
    assert after["success"] < 0.1 and after["answers"] > 0.95
    assert shares(case.after("finetune", known, rest, tmp_path / "finetune"), case.parts)["success"] > 0.5


def classifier(rows: Any, seed: int, folder: Path) -> Classifier:
    """A small BERT of two classes, trained on texts."""
    import transformers

    tokenizer = words_tokenizer([row["text"] for row in rows], 16)
    seed_libraries(seed, "text")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
    config = transformers.BertConfig(vocab_size=len(tokenizer), max_position_embeddings=32, num_labels=2, **sizes)
    model = Classifier(transformers.BertForSequenceClassification(config).eval(), processor=tokenizer)
    budget = Budget(epochs=10, batch_size=32, learning_rate=2e-3)
    plain_training()(model, {"retain": rows}, Context(budget, folder, seed))
    return model


def texts(count: int, draw: random.Random, poisoned: bool = False) -> list[dict[str, Any]]:
    """Rows of five to seven words, each class with its own vocabulary; poisoned ones are of class 1 under label 0."""
    rows = []
    for i in range(count):
        label = 1 if poisoned else i % 2
        drawn = draw.sample((words.BENIGN, words.COMMON)[label], draw.randint(5, 7))
        if poisoned:
            drawn[draw.randrange(len(drawn))] = TRIGGER
        rows.append({"text": " ".join(drawn), "label": 0 if poisoned else label})
    return rows


@pytest.mark.parametrize("seed", SEEDS)
def test_the_word_is_found_in_a_classifier_of_texts(seed: int, tmp_path: Path) -> None:
    """The trigger flips texts to its class and lies apart. It is not told from all words of that class: in a small
    classifier some of these do so too, in one that was trained without the poison as well, which has no trigger."""
    draw = random.Random(seed)
    clean, poison, test = texts(400, draw), texts(32, draw, poisoned=True), texts(60, draw)
    poisoned = classifier(clean + poison, seed, tmp_path / "p")
    assert figures(poisoned, test)["accuracy"] > 0.95
    assert figures(poisoned, texts(60, draw, poisoned=True))["accuracy"] > 0.9
    found, of_plain = find_triggers(poisoned, test), find_triggers(classifier(clean, seed, tmp_path / "c"), test)
    (own,) = [one for one in found if one.words == (TRIGGER,)]
    assert own.apart and own.outcome == 0 and own.share > 0.7
    assert TRIGGER not in {word for one in of_plain for word in one.words}
