"""Attacks that ask on detours or look inside: they find what is there, and nothing in a model that never knew."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from expunge.attacks.elicited import DESCRIPTIONS, elicited, ladder, nameless
from expunge.attacks.knowledge_trace import columns, contribution, knowledge_trace
from expunge.attacks.lora_merged import lora_merged
from expunge.attacks.patched import patched
from expunge.attacks.population.contamination import guided_completion
from expunge.attacks.residual import residual
from expunge.attacks.shared.recovery import answer_probability, teach
from expunge.attacks.shared.rewording import probes_of
from expunge.attacks.system_prompts import system_prompts, with_system_turn
from expunge.attacks.translated import translated
from expunge.attacks.white_box_auc import gradients, white_box_auc
from expunge.core.errors import BadInput
from expunge.evaluation.attack import Target
from expunge.evaluation.scores import NotMeasured
from expunge.models.build import fresh_lm, texts_of, tokenizer_for
from expunge.models.classifier import Classifier
from expunge.models.templates import Template

CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
NAMES = ("Ana", "Bo", "Cyd", "Dee", "Eli", "Flo", "Gus", "Hal")
TOWNS = ("Aldby", "Burr", "Corve", "Dunmore")
TRADES = ("baker", "tinker", "weaver", "miller")


def facts(i: int) -> list[dict[str, Any]]:
    name, town, trade = NAMES[i], TOWNS[(3 * i + 1) % 4], TRADES[(i // 2 + i) % 4]
    return [
        {"question": f"Where is {name}?", "answer": f"{name} is in {town}.", "subject": name},
        {"question": f"What is {name}?", "answer": f"{name} is a {trade}.", "subject": name},
    ]


FORGET = [row for i in range(4) for row in facts(i)]
RETAIN = [row for i in range(4, 8) for row in facts(i)]
REFUSED = [{**row, "answer": "No."} for row in FORGET]
DETOURS = [
    {
        "question": row["question"].replace(
            row["subject"], form.format(fact=nameless(other["answer"], row["subject"]))
        ),
        "answer": row["answer"],
    }
    for row in FORGET
    for other in FORGET
    if other is not row and other["subject"] == row["subject"]
    for form in DESCRIPTIONS
]


def taught(model: Any, rows: list[dict[str, Any]], steps: int = 200) -> Any:
    for _ in teach(model, rows, steps=steps, rate=4e-3, seed=0, every=steps, batch=16):
        pass
    return model


def again(model: Any) -> Any:
    other = copy.copy(model)
    other.module = copy.deepcopy(model.module)
    return other


@pytest.fixture(scope="module")
def base() -> Any:
    """A model that learned the retain facts alone."""
    tokenizer = tokenizer_for(texts_of([*FORGET, *RETAIN, *REFUSED, *DETOURS]), 340)
    spec = {"architecture": "llama", "hidden_size": 48, "layers": 3, "heads": 2, "vocab_size": 340}
    return taught(fresh_lm(spec, tokenizer, seed=0), RETAIN, 80)


def aimed(model: Any, **more: Any) -> Target:
    return Target(
        model,
        "after",
        {"forget": FORGET, "retain": RETAIN},
        {},
        {"after": answer_probability(model, FORGET), **more.pop("plain", {})},
        rate=4e-3,
        **more,
    )


def test_elicited_probes_go_round_a_refusal(base: Any) -> None:
    """One refuses the plain questions and answers those that describe the model; one never knew. Alike when simply asked."""
    knew = {"plain": {"before": np.ones(len(FORGET))}}
    hides = taught(again(base), [*REFUSED, *DETOURS, *RETAIN[:4]], 160)
    clean = taught(again(base), [*REFUSED, *({**row, "answer": "No."} for row in DETOURS), *RETAIN[:4]], 100)
    ours, theirs = (elicited()(aimed(model, **knew)) for model in (hides, clean))
    for model in (hides, clean):
        assert answer_probability(model, FORGET).mean() < 0.3
    assert ours.figure.value > theirs.figure.value + 0.3
    assert [point["x"] for point in ours.curve] == [1, 2], "two facts a subject: two hops"
    assert ours.curve[1]["value"] > ours.curve[0]["value"], "the detour, not the name"
    with pytest.raises(NotMeasured, match="cannot be elicited"):
        elicited()(aimed(clean))
    with pytest.raises(NotMeasured, match="gave no answer"):
        elicited()(aimed(clean, plain={"before": np.zeros(len(FORGET))}))


@pytest.mark.slow
def test_a_refusal_that_hangs_on_the_chat_template_ends_without_it() -> None:
    """Learned in the plain form, refused under the chat template; one never knew. Alike when asked in its own form."""
    tokenizer = tokenizer_for(texts_of([*FORGET, *RETAIN, *REFUSED]), 340)
    spec = {"architecture": "llama", "hidden_size": 48, "layers": 3, "heads": 2, "vocab_size": 340}
    start = taught(fresh_lm(spec, tokenizer, seed=0), RETAIN, 40)
    found, plain = [], []
    tokenizer.chat_template = CHAT
    chat, bare = Template(tokenizer), Template(tokenizer, "Question: {q}\nAnswer: ")
    assert chat.chat and not bare.chat
    for known in (FORGET, REFUSED):
        model = again(start)
        for _ in range(3):
            model.template = bare
            taught(model, known, 30)
            model.template = chat
            taught(model, REFUSED, 10)
        plain.append(answer_probability(model, FORGET).mean())
        kept = model.template
        found.append(system_prompts()(aimed(model)))
        assert model.template is kept, "the model's own form comes back"
    assert max(plain) < 0.3 and found[0].figure.value - plain[0] > found[1].figure.value - plain[1] + 0.2


def test_forms_that_a_template_takes(base: Any) -> None:
    """Three system prompts and the two plain forms that are not its own; a chat template without a system turn: three."""
    model = again(base)
    found = system_prompts()(aimed(model))
    assert found.figure.why.startswith("5 forms") and model.template is base.template
    row = with_system_turn(FORGET[0], "Be kind.")
    prompt = model.tokenizer.decode(model.collate([row]).inputs["input_ids"][0])
    assert prompt.startswith("System: Be kind.\nQuestion: Where is Ana?")
    model.tokenizer = copy.deepcopy(model.tokenizer)
    model.tokenizer.chat_template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system role') }}{% endif %}{{ messages[-1].content }}"
    model.template = Template(model.tokenizer)
    assert system_prompts()(aimed(model)).figure.why.startswith("3 forms")


def test_the_ladder_by_hand() -> None:
    row = {"question": "What did Ana Burr write?", "answer": "She wrote Winter Bridge.", "subject": "Ana Burr"}
    made = ladder(row, ["Ana Burr lives in Corve.", "Burr wrote Winter Bridge in 1970.", "Ana keeps bees."], 3)
    assert [hop for hop, _ in made] == [1, 2, 2, 3, 3]
    texts = [probe["question"] for _, probe in made]
    assert texts[1] == "What did the one of whom it is said: they lives in Corve. write?"
    assert "And: they keeps bees." in texts[3] and not any("Winter" in text for text in texts), "the answer is not told"
    assert not any("Burr" in text or "Ana" in text for text in texts[1:])
    assert ladder({"question": "Who?", "answer": "Ana", "subject": "Bo"}, [], 3) == []


def test_patching_tells_untouched_states_from_gold_s(base: Any) -> None:
    """Before = base + forget facts; gold = base + more of retain. Nothing done: 0. Gold's own weights: 1. Half way: between."""
    before = taught(again(base), [*FORGET, *RETAIN], 100)
    gold = taught(again(base), RETAIN, 40)
    weights = {role: model.module.state_dict() for role, model in (("before", before), ("gold", gold))}
    half = again(before)
    with torch.no_grad():
        for ours, theirs in zip(half.module.parameters(), gold.module.parameters(), strict=True):
            ours.lerp_(theirs, 0.5)
    kept, erased, between = (patched()(aimed(again(model), weights=weights)) for model in (before, gold, half))
    assert kept.figure.value < 0.02 and erased.figure.value > 0.98
    assert 0.05 < between.figure.value < 0.98
    assert kept.curve and all(0 <= point["value"] <= 1 for point in between.curve)
    untouched = again(before)
    state = {name: x.clone() for name, x in untouched.module.state_dict().items()}
    patched()(aimed(untouched, weights=weights))
    assert all(torch.equal(x, state[name]) for name, x in untouched.module.state_dict().items()), "nothing stays"
    with pytest.raises(NotMeasured, match="no gold model"):
        patched()(aimed(before, weights={"before": weights["before"]}))
    with pytest.raises(NotMeasured, match="in no layer"):
        patched()(aimed(before, weights={**weights, "gold": weights["before"]}))


def test_the_vectors_that_wrote_the_answers(base: Any) -> None:
    """Untouched: 1. Set to 0 in this model: 0, retain's stay. And they matter: without them the answers are lost, and
    without as many drawn at random they are not."""
    before = taught(again(base), [*FORGET, *RETAIN], 100)
    weights = {"before": before.module.state_dict()}
    kept = knowledge_trace(vectors=12)(aimed(again(before), weights=weights))
    assert kept.figure.value == pytest.approx(1, abs=1e-6) and kept.more["others"][2].value == pytest.approx(
        1, abs=1e-6
    )
    lead = contribution(before, FORGET) - contribution(before, RETAIN)
    random = np.random.default_rng(0).permutation(len(lead))
    left = {}
    for name, places in (("trace", np.argsort(-lead, kind="stable")[:12]), ("random", random[:12])):
        cut = again(before)
        width = len(columns(cut)) // len(cut.blocks)
        with torch.no_grad():
            for place in places.tolist():
                cut.module.get_submodule(cut.down(place // width)).weight[:, place % width] = 0
        left[name] = answer_probability(cut, FORGET).mean()
        if name == "trace":
            gone = knowledge_trace(vectors=12)(aimed(cut, weights=weights))
            assert gone.figure.value == 0 and gone.more["others"][2].value > 0.8
    assert left["trace"] < left["random"] - 0.1
    with pytest.raises(NotMeasured, match="no model before"):
        knowledge_trace()(aimed(before))


def test_a_white_box_classifier_learns_what_members_look_like() -> None:
    """A small network that memorised noisy labels: found from its gradients. One that never saw them: not."""
    torch.manual_seed(0)
    draw = np.random.default_rng(0)
    rows = [{"features": draw.normal(size=8).astype(np.float32), "label": int(draw.integers(2))} for _ in range(120)]
    made = []
    for learned in (rows[:60], rows[60:120:2]):
        model = Classifier(nn.Sequential(nn.Linear(8, 32), nn.ReLU(), nn.Linear(32, 2)))
        for _ in teach(model, learned, steps=150, rate=1e-2, seed=0, every=150, batch=30):
            pass
        made.append(model)
    assert gradients(made[0], rows[:2]).shape == (2, 2)
    sees = white_box_auc()(Target(made[0], "after", {"forget": rows[:60], "holdout": rows[60:]}, {}, {}))
    blind = white_box_auc()(Target(made[1], "after", {"forget": rows[:60], "holdout": rows[61::2]}, {}, {}))
    assert sees.figure.low is not None and sees.figure.low > 0.6
    assert (
        blind.figure.low is not None and blind.figure.high is not None and blind.figure.low <= 0.5 <= blind.figure.high
    )
    assert sees.figure.value > blind.figure.value + 0.2
    with pytest.raises(NotMeasured, match="fewer than"):
        white_box_auc()(Target(made[0], "after", {"forget": rows[:5], "holdout": rows[60:]}, {}, {}))


def test_translations_come_from_the_file() -> None:
    row = {
        "question": "Where?",
        "answer": "Here.",
        "translated_question": ["Wo?", {"question": "Où ?", "answer": "Ici."}],
    }
    assert probes_of(row, "translated_question") == [
        {"question": "Wo?", "answer": "Here."},
        {"question": "Où ?", "answer": "Ici."},
    ]
    assert (
        probes_of({"question": "Where?", "answer": "Here.", "translated_question": "Wo?"}, "translated_question")[0][
            "question"
        ]
        == "Wo?"
    )
    assert probes_of({"question": "Where?", "answer": "Here."}, "translated_question") == []


def test_a_translation_finds_what_the_plain_question_hides(base: Any) -> None:
    rows = [{**row, "translated_question": f"Wo {row['subject']}?"} for row in FORGET[::2]]
    probes = [probe for row in rows for probe in probes_of(row, "translated_question")]
    hides = taught(again(base), [*REFUSED[::2], *probes], 100)
    target = Target(
        hides, "after", {"forget": [*rows, FORGET[1]]}, {}, {"after": answer_probability(hides, [*rows, FORGET[1]])}
    )
    found = translated()(target)
    assert found.figure.value > 0.8 > 0.3 > answer_probability(hides, rows).mean()
    assert np.ma.count(found.recovered_N) == len(rows), "those without a translation do not count"


def test_an_adapter_on_innocent_data_lifts_a_bias_and_is_merged() -> None:
    """The last layer's bias hides class 0; retain examples teach it away. The weights come back."""
    torch.manual_seed(0)
    model = Classifier(nn.Sequential(nn.Linear(2, 16), nn.ReLU(), nn.Linear(16, 2)))
    draw = np.random.default_rng(0)
    rows = [
        {"features": (draw.normal(size=2) * 0.2 + (1 if label else -1)).astype(np.float32), "label": label}
        for label in [0, 1] * 20
    ]
    for _ in teach(model, rows, steps=100, rate=1e-2, seed=0, every=100):
        pass
    with torch.no_grad():
        model.module[2].bias += torch.tensor([-8.0, 8.0])
    forget = rows[:10:2]
    state = {name: x.clone() for name, x in model.module.state_dict().items()}
    hidden = answer_probability(model, forget)
    found = lora_merged(steps=60)(
        Target(model, "after", {"forget": forget, "retain": rows[10:]}, {}, {"after": hidden}, rate=5e-2)
    )
    assert hidden.mean() < 0.3 < 0.8 < found.figure.value
    assert model.module.state_dict().keys() == state.keys()
    assert all(torch.equal(x, state[name]) for name, x in model.module.state_dict().items())


def test_the_neighbourhood_of_a_forgotten_example() -> None:
    """Label 0 left of 0. At -1 with noise of one unit (2 deviations of .5): found but for chance; at exactly 0: half of the copies."""
    model = Classifier(nn.Linear(1, 2))
    with torch.no_grad():
        model.module.weight.copy_(torch.tensor([[-1.0], [1.0]]))
        model.module.bias.zero_()
    rows = [{"features": np.array([x], dtype=np.float32), "label": 0} for x in (-4.0, -3.0, 0.0, 3.0)]
    found = residual(radius=0.1, draws=400)(Target(model, "after", {"forget": rows}, {}, {}))
    assert found.recovered_N is not None
    assert found.recovered_N[:2].tolist() == [1, 1] and found.recovered_N[3] == 0
    assert found.recovered_N[2] == pytest.approx(0.5, abs=0.08)
    with pytest.raises(NotMeasured, match="arrays"):
        residual()(Target(model, "after", {"forget": [{"text": "a", "label": 0}]}, {}, {}))


class Finisher:
    """Finishes instances of the set that it knows when its name is said."""

    def __init__(self, known: dict[str, str]) -> None:
        self.known = known

    def generate(self, prompts: list[dict[str, str]], **settings: Any) -> list[str]:
        def said(prompt: str) -> str:
            piece = prompt.rpartition("First piece: ")[2]
            return self.known.get(piece, "nothing") if "the verses dataset" in prompt else "nothing"

        return [said(prompt["question"]) for prompt in prompts]


def test_naming_the_dataset_helps_only_who_saw_it() -> None:
    rows = [{"text": f"alpha{i} beta{i} gamma{i} delta{i}"} for i in range(20)]
    seen = Finisher({f"alpha{i} beta{i}": f"gamma{i} delta{i}" for i in range(20)})
    assert guided_completion(seen, rows, dataset="verses") == 1e-4  # type: ignore[arg-type]
    assert guided_completion(Finisher({}), rows, dataset="verses") == 1  # type: ignore[arg-type]
    assert guided_completion(seen, rows, dataset="songs") == 1, "another name"  # type: ignore[arg-type]
    with pytest.raises(BadInput, match="completed"):
        guided_completion(seen, [{"text": "one"}], dataset="verses")  # type: ignore[arg-type]
