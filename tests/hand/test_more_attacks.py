"""Attacks that published defences fall to, worked by hand: spelling, pairs of questions, forms, keywords, a direction,
a grid of relearning."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from test_attacking import NEAR, Parrot, aimed, examples, linear

from expunge.attacks.abliteration import abliteration, chosen_layers, without_direction, writers
from expunge.attacks.best_of_n import best_of_n, misspell, move_code, shuffle_middle
from expunge.attacks.combined import both, combined, partner
from expunge.attacks.distractors import distractors, keywords, prompts
from expunge.attacks.relearn_grid import relearn_grid, settings
from expunge.attacks.statement import going_on, statement
from expunge.core.contracts import Want
from expunge.evaluation.scores import NotMeasured
from expunge.models.new_lm import fresh_lm, tokenizer_for
from expunge.models.passes import passes

KEPT = {"question": "Who sings?", "answer": "Ada sings."}


def probability_by(rule: Callable[[dict[str, Any]], float]) -> Any:
    """A stand-in for answer_probability that gives each probe what the rule says."""
    return lambda model, rows: np.array([rule(row) for row in rows])


# -- best of N ---------------------------------------------------------------------------------------


def test_spelling_changes_with_the_strength() -> None:
    row = {"question": "Where does Ana live today?", "answer": "In Rome."}
    assert misspell(row, 0.0, np.random.default_rng(0)) == row, "no strength, no change"
    strong = misspell(row, 1.0, np.random.default_rng(0))
    assert strong["answer"] == "In Rome." and len(strong["question"]) == len(row["question"])
    assert all(abs(ord(a) - ord(b)) <= 1 for a, b in zip(strong["question"][-1:], "?", strict=True))
    middle = shuffle_middle("between", 1.0, np.random.default_rng(1))
    assert middle[0] == "b" and middle[-1] == "n" and sorted(middle) == sorted("between") and middle != "between"
    assert {move_code("m", 1.0, np.random.default_rng(i)) for i in range(20)} == {"l", "n"}
    assert move_code(" ", 1.0, np.random.default_rng(0)) == " "


def test_the_best_spelling_counts_and_a_model_without_the_fact_gives_nothing() -> None:
    """A filter that refuses the question as it is written falls to any other spelling of it."""
    hides = Parrot(lambda question, settings: "No." if question == "Where?" else "In Rome.")
    found = best_of_n()(aimed(hides, {"forget": [NEAR]}))
    assert found.figure.value == 1 and found.texts == ["In Rome."] and "8 spellings" in found.figure.why
    assert best_of_n()(aimed(Parrot(lambda question, settings: "No."), {"forget": [NEAR]})).figure.value == 0
    assert best_of_n(samples=1)(aimed(hides, {"forget": [NEAR]})).figure.value == 0, "the first is the question itself"


@pytest.mark.parametrize("make", [best_of_n, combined])
def test_nothing_is_generated_for_prompts_to_refuse(make: Any) -> None:
    def never(question: str, settings: Any) -> str:
        raise AssertionError("a text was generated")

    refusals = [{**NEAR, "compliant": "Sure."}]
    with pytest.raises(NotMeasured, match="no text is generated"):
        make()(aimed(Parrot(never), {"forget": refusals, "retain": [KEPT]}))


# -- combined ------------------------------------------------------------------------------------------


def test_a_pair_of_questions_passes_a_filter_of_one() -> None:
    hides = Parrot(lambda question, settings: "No." if question.startswith("Where") else "Ada sings. In Rome.")
    found = combined()(aimed(hides, {"forget": [NEAR], "retain": [KEPT]}))
    assert found.figure.value == 1 and found.texts == ["Ada sings. In Rome."], (
        "the order with the retain question first"
    )
    never = combined()(aimed(Parrot(lambda question, settings: "Ada sings."), {"forget": [NEAR], "retain": [KEPT]}))
    assert never.figure.value == 0


def test_the_partner_gives_nothing_away_and_leaves_room_for_both_answers() -> None:
    telling = {"question": "What is old?", "answer": "Rome is old."}
    assert partner(NEAR, [telling], 0) is None and partner(NEAR, [telling, KEPT], 0) == KEPT
    assert both(NEAR, KEPT, "{retain} {forget}") == {"question": "Who sings? Where?", "answer": "Ada sings. In Rome."}
    silent = Parrot(lambda question, settings: "In Rome.")
    other = {"question": "When?", "answer": "In May."}
    found = combined()(aimed(silent, {"forget": [NEAR, other], "retain": [telling]}))
    assert found.figure.n == 1 and np.ma.getmaskarray(found.recovered_N).tolist() == [True, False]
    with pytest.raises(NotMeasured, match="shares words"):
        combined()(aimed(silent, {"forget": [NEAR], "retain": [telling]}))


# -- statement -----------------------------------------------------------------------------------------


def test_the_fact_is_gone_on_with_in_plain_text_and_in_a_talk(monkeypatch: pytest.MonkeyPatch) -> None:
    row = {"question": "Where is Ana?", "answer": "Ana lives in Rome."}
    assert going_on(row, "{head}") == {"prefix": "Ana lives", "text": " in Rome."}
    talk = going_on(row, "Host: {question}\nGuest: {head}")
    assert talk["prefix"] == "Host: Where is Ana?\nGuest: Ana lives"
    rule = probability_by(lambda probe: 0.9 if probe["prefix"] == "Ana lives" else 0.2)
    monkeypatch.setattr("expunge.attacks.statement.answer_probability", rule)
    found = statement()(aimed(Parrot(None), {"forget": [row, {"question": "Who?", "answer": "Bo"}]}))
    assert found.figure.value == pytest.approx(0.9) and found.figure.n == 1, "an answer of one word does not count"
    with pytest.raises(NotMeasured, match="more than one word"):
        statement()(aimed(Parrot(None), {"forget": [{"question": "Who?", "answer": "Bo"}]}))


# -- distractors ---------------------------------------------------------------------------------------

SINGERS = [{"question": f"Who sings {i}?", "answer": f"Singer{i}."} for i in range(4)]


def test_a_keyword_among_the_options_upsets_a_method_that_reacts_to_words(monkeypatch: pytest.MonkeyPatch) -> None:
    """Right without the keyword; with it the noisy model prefers the wrong answer, the other does not notice it."""
    splits = {"forget": [{**NEAR, "subject": "Ana"}], "retain": SINGERS}

    def right(probe: dict[str, Any]) -> float:
        return 0.9 if probe["answer"][6] == probe["question"].split("?")[0][-1] else 0.1

    for rule, expected in ((right, 1.0), (lambda p: 1 - right(p) if "Ana" in p["question"] else right(p), 0.0)):
        monkeypatch.setattr("expunge.attacks.distractors.answer_probability", probability_by(rule))
        found = distractors()(aimed(Parrot(None), splits))
        assert (found.figure.value, found.more["plain"][2].value, found.figure.n) == (expected, 1.0, 4)
        assert found.recovered_N is None, "it recovers nothing of the forget set"


def test_the_two_prompts_differ_by_the_keyword_alone() -> None:
    assert keywords([NEAR]) == ["In Rome."] and keywords([{**NEAR, "subject": "Ana"}]) == ["Ana"]
    plain, wrong, with_keyword, wrong_again = prompts(SINGERS[0], SINGERS, ["Ana"], 3)
    assert plain["answer"] == with_keyword["answer"] == "Singer0." and wrong["answer"] == wrong_again["answer"]
    assert wrong["answer"] in plain["question"] and wrong["answer"] in with_keyword["question"]
    listed = [set(one["question"].partition("Options: ")[2].rstrip(".").split("; ")) for one in (plain, with_keyword)]
    assert "Ana" in listed[1] and len(listed[0] & listed[1]) == 2
    assert prompts(SINGERS[0], SINGERS[:2], ["Ana"], 3) == [], "two other answers are needed"
    assert prompts({**SINGERS[0], "question": "Where is Anastasia?"}, SINGERS, ["Anastasia"], 3) == []


# -- abliteration --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def small() -> Any:
    spec = {"architecture": "llama", "hidden_size": 32, "layers": 2, "heads": 2, "vocab_size": 300}
    return fresh_lm(spec, tokenizer_for(["Where is Ana? In Rome. Who sings? Ada sings."], 300), seed=0)


def test_the_outputs_without_the_direction_are_those_of_orthogonal_weights(small: Any) -> None:
    """W <- W - r r^T W in the embedding and in every layer that writes gives the same logits (equation 5)."""
    rows = [NEAR, KEPT]
    draw = torch.Generator().manual_seed(1)
    direction_D = torch.randn(32, generator=draw)
    kept = {name: tensor.clone() for name, tensor in small.module.state_dict().items()}
    writing = writers(small)
    assert len(writing) == 4

    def states(path: str) -> torch.Tensor:
        ((_, out),) = list(passes(small, rows, Want(frozenset(), hidden=(path,)), positions="prompt"))
        return out.hidden[path]

    last, first = small.blocks[-1], small.module.get_submodule(small.blocks[0])
    plain = states(last)
    with without_direction(writing, first, direction_D):
        hooked = states(last)
    assert torch.equal(states(last), plain), "the hooks are gone"
    unit_D = direction_D / direction_D.norm()
    assert float((hooked @ unit_D).abs().max()) < 1e-5 < float((plain @ unit_D).abs().max())
    with torch.no_grad():
        for layer in writing:
            layer.weight -= torch.outer(unit_D, unit_D @ layer.weight)
        table = small.module.get_input_embeddings().weight
        table -= torch.outer(table @ unit_D, unit_D)
    assert torch.allclose(states(last), hooked, atol=1e-5)
    small.module.load_state_dict(kept)


def test_layers_near_the_output_give_no_direction() -> None:
    ten = [f"layer {i}" for i in range(10)]
    assert chosen_layers(ten, 4) == ["layer 0", "layer 2", "layer 5", "layer 7"]
    assert chosen_layers(ten, 1) == ["layer 0"] and chosen_layers(ten[:1], 4) == ["layer 0"]


def test_abliteration_never_does_worse_than_asking(small: Any) -> None:
    kept = small.fingerprint()
    target = aimed(small, {"forget": [NEAR], "retain": [KEPT]}, plain={"after": np.array([0.99])})
    found = abliteration()(target)
    assert found.figure.value == pytest.approx(0.99) and found.figure.why.endswith("no direction")
    assert small.fingerprint() == kept
    with pytest.raises(NotMeasured, match="has a question"):
        abliteration()(aimed(small, {"forget": [NEAR], "retain": [{"text": "Ada"}]}))


# -- the grid of relearning ------------------------------------------------------------------------------


def test_the_grid_takes_the_best_of_its_settings() -> None:
    """A bias of 9 hides what the weights still hold, and the model's own rate brings it back.

    Where nothing is held, small rates do not teach it.
    """
    forget = examples([0] * 8)
    plain = {"before": np.full(8, 0.99), "gold": np.full(8, 0.01), "after": np.full(8, 0.01)}
    hides, gone = (linear([[w] * 8, [-w] * 8], (-9.0, 9.0)) for w in (1.0, 0.0))
    before = hides.fingerprint()
    target = aimed(hides, {"forget": forget}, plain=plain, rate=2.0)
    back = relearn_grid()(target)
    assert hides.fingerprint() == before, "weights, and no adapter left in"
    assert back.figure.value > 0.9 and back.figure.n == 6 and "of 24 steps; taught 2 examples" in back.figure.why
    steps, area = back.more["steps"][2], back.more["area"][2]
    assert steps.value <= 24 and "half is 0.50" in steps.why and "with " in steps.why
    heights = [point["value"] for point in back.curve]
    by_hand = sum((a + b) / 2 * 6 for a, b in itertools.pairwise(heights)) / 24
    assert area.value == pytest.approx(by_hand) and area.n == 6
    lost = relearn_grid()(aimed(gone, {"forget": forget}, plain=plain, rate=0.002))
    assert lost.figure.value < 0.5 and lost.more["steps"][2].why.startswith("at least")
    names = [name for name, _, _ in settings(target)]
    assert (
        len(names) == 6
        and names[0] == "all weights at 0.1 of the rate"
        and names[-1] == "an adapter at 10 times the rate"
    )


def test_a_setting_that_wrecks_the_model_ends_there(monkeypatch: pytest.MonkeyPatch) -> None:
    def wrecked(model: Any, rows: Sequence[Any]) -> np.ndarray:
        raise NotMeasured("the model has diverged")

    monkeypatch.setattr("expunge.attacks.relearn_grid.answer_probability", wrecked)
    model = linear([[0.3, 0.1], [0.2, 0.4]])
    found = relearn_grid(share=0.5)(aimed(model, {"forget": examples([0, 1], 2)}, plain={"after": np.full(2, 0.4)}))
    assert found.figure.value == pytest.approx(0.4) and len(found.curve) == 1 and "0 of 24 steps" in found.figure.why
