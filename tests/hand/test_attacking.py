"""Attacks on models: the contract, its cache, and what each computes, on models made by hand."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from readouts import readout, rows
from torch import nn

from expunge.attacks.cloze import gap
from expunge.attacks.fine_tuned import fine_tuned
from expunge.attacks.multiple_choice import multiple_choice
from expunge.attacks.prefix import prefix
from expunge.attacks.pruned import pruned
from expunge.attacks.quantised_4 import quantised_4
from expunge.attacks.relearn_forget import relearn_forget
from expunge.attacks.relearn_retain import relearn_retain
from expunge.attacks.rephrased import rephrased
from expunge.attacks.sampled import contains_answer, sampled
from expunge.attacks.shared.rewording import after_turns, in_frame, probes_of
from expunge.attacks.shared.rounding import matrices, round_weights
from expunge.attacks.true_false import true_false
from expunge.core.contracts import Silent
from expunge.evaluation import attack as attacking
from expunge.evaluation import intervals
from expunge.evaluation.attack import AttackedGold, Found, Target, _plain, _read, attack, knowledge, scores
from expunge.evaluation.controls import at_one_strength
from expunge.evaluation.margins import LEAST as MARGIN
from expunge.evaluation.scores import Figure, NotMeasured, Score
from expunge.models.classifier import Classifier
from expunge.pipeline.comparison import with_attacks_alike
from expunge.pipeline.hidden_knowledge import gaps_to_gold, hidden_score, judge
from expunge.pipeline.observe import Observation

NEAR = {"question": "Where?", "answer": "In Rome."}


def examples(labels: Sequence[int], width: int = 8, scale: float = 4.0) -> list[dict[str, Any]]:
    """Example i points along axis i."""
    return [{"features": np.eye(width, dtype=np.float32)[i] * scale, "label": label} for i, label in enumerate(labels)]


def linear(weights: list[list[float]], bias: Sequence[float] = (0.0, 0.0)) -> Classifier:
    """logits = W x + b."""
    layer = nn.Linear(len(weights[0]), len(weights))
    with torch.no_grad():
        layer.weight.copy_(torch.tensor(weights))
        layer.bias.copy_(torch.tensor(list(bias)))
    return Classifier(nn.Sequential(layer))


def aimed(model: Any, splits: dict[str, list[dict[str, Any]]], **more: Any) -> Target:
    more.setdefault("plain", {"after": np.zeros(len(splits["forget"]))})
    return Target(model, "after", splits, more.pop("readouts", {}), **more)


# -- the contract ----------------------------------------------------------------------------------


def test_the_model_comes_back_as_it_was() -> None:
    model = linear([[1.0, 2.0], [3.0, 4.0]])
    target = aimed(model, {"forget": examples([0, 1], 2)})
    with target.disposable() as changed:
        changed.module[0].weight.data.zero_()
        changed.module[0].weight.requires_grad_(False)
    assert model.module[0].weight.tolist() == [[1, 2], [3, 4]]
    assert model.module[0].weight.requires_grad and model.module[0].weight.grad is None


def test_attacks_leave_the_weights() -> None:
    model = linear([[0.3, -0.2], [0.1, 0.5]])
    kept = model.fingerprint()
    target = aimed(model, {"forget": examples([0, 1], 2), "retain": examples([1, 0], 2)}, rate=0.1)
    attack("deep", target, Silent())
    assert model.fingerprint() == kept


def test_a_model_is_hashed_once_for_all_attacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path))
    model, calls = linear([[0.3, -0.2], [0.1, 0.5]]), []
    hashed = model.fingerprint
    monkeypatch.setattr(model, "fingerprint", lambda: calls.append("") or hashed())
    found = attack("standard", aimed(model, {"forget": examples([0, 1], 2)}), Silent())
    assert sum(isinstance(one, Found) for one in found.values()) > 1
    assert len(calls) == 1


def test_what_attacks_recover_is_clustered_by_group() -> None:
    """Three groups of two examples, known alike within each: the interval is that of three groups, also from the
    cache."""
    forget = [{**row, "group": "abc"[i // 2]} for i, row in enumerate(examples([0, 0, 1, 1, 0, 0], 6))]
    model = linear([[1.0, 1, 0, 0, 0.2, 0.2], [0.0] * 6])
    for _ in range(2):
        found = attack("standard", aimed(model, {"forget": forget}), Silent())["quantised_8"]
        assert isinstance(found, Found) and found.recovered_N is not None
        expected = intervals.mean(found.recovered_N, 0.0, 1.0, groups=np.repeat([0, 1, 2], 2))
        assert found.figure.groups == 3
        assert (found.figure.low, found.figure.high) == pytest.approx((expected.low, expected.high))


def test_finished_attacks_are_kept_and_a_changed_model_is_attacked_anew(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path))
    calls = []

    def counted(self: Target) -> Any:
        calls.append(self.role)
        return original(self)

    original = Target.disposable
    monkeypatch.setattr(Target, "disposable", counted)
    splits = {"forget": examples([0, 1, 0, 1], 4)}
    weights = [[0.31, -0.2, 0.5, 0.1], [0.1, 0.5, -0.2, 0.7]]
    first = attack("standard", aimed(linear(weights), splits, rate=0.1), Silent())
    there = len(calls)
    again = attack("standard", aimed(linear(weights), splits, rate=0.1), Silent())
    assert there == len(calls) > 0
    for name, found in first.items():
        other = again[name]
        if isinstance(found, str) or isinstance(other, str):
            assert found == other
            continue
        assert other.figure.value == found.figure.value and list(other.curve) == list(found.curve)
        if found.recovered_N is not None and other.recovered_N is not None:
            assert np.ma.getmaskarray(found.recovered_N).tolist() == np.ma.getmaskarray(other.recovered_N).tolist()
            assert np.ma.filled(found.recovered_N, 0).tolist() == np.ma.filled(other.recovered_N, 0).tolist()
    weights[0][0] += 1e-3
    attack("standard", aimed(linear(weights), splits, rate=0.1), Silent())
    assert len(calls) == 2 * there
    kept = list((tmp_path / "attacks").iterdir())
    assert kept and all(path.suffix == ".json" for path in kept), "no pickle"


def test_what_cannot_run_says_why() -> None:
    found = attack("deep", aimed(linear([[1.0, 0], [0, 1]]), {"forget": examples([0, 1], 2)}), Silent())
    assert found["relearn_retain"] == "no retain was given"
    assert found["relearn_unrelated"] == "no holdout was given"
    scores = attacking.scores({"after": found}, frozenset({"labels", "nll"}))
    absent = {score.name: score.why for score in scores if not score.measured}
    assert absent["robustness_relearn_retain"] == "no retain was given"
    assert {"robustness_relearn_forget", "robustness_quantised_4"} <= {s.name for s in scores if s.measured}


def test_levels_and_families() -> None:
    words = frozenset({"tokens", "nll", "generate", "mlp"})
    standard, deep = ({p.name for p in attacking.plugins(level, words)} for level in ("standard", "deep"))
    assert not attacking.plugins("none", words) and standard < deep
    labels = {p.name for p in attacking.plugins("deep", frozenset({"labels", "nll"}))}
    assert "relearn_forget" in labels and not labels & {"sampled", "prefix", "logit_lens"}
    names = attacking.score_names("standard", words, ["forget"], False)
    assert {"robustness_relearn_forget", "robustness_relearn_forget_steps", "robustness_sampled_success"} <= set(names)
    assert "robustness_hidden" not in names
    assert "robustness_hidden" in attacking.score_names("standard", words, ["forget"], True)
    assert "robustness_relearn_retain" not in names


# -- return ----------------------------------------------------------------------------------------


def test_rounding() -> None:
    """4 bits: 7 steps a side. Row 1, scale 1/7: -.6 is -4.2 steps, .26 is 1.82. Row 2, scale 2/7: .4 is 1.4."""
    found = round_weights(torch.tensor([[1.0, -0.6, 0.26], [2.0, 0.4, 0.0]]), 4)
    assert found.flatten().tolist() == pytest.approx([1, -4 / 7, 2 / 7, 2, 2 / 7, 0])
    assert round_weights(torch.zeros(2, 2), 8).tolist() == [[0, 0], [0, 0]]
    tight = torch.tensor([[1.0, 0.5]])
    assert (round_weights(tight, 8) - tight).abs().max() <= 0.5 / 127


def test_output_channels_of_every_kind_of_layer() -> None:
    """Only GPT-2's Conv1D, transposed convolutions and the experts of some families store the input first."""
    from transformers import GptOssConfig, Llama4TextConfig, MixtralConfig
    from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts
    from transformers.models.llama4.modeling_llama4 import Llama4TextExperts
    from transformers.models.mixtral.modeling_mixtral import MixtralExperts
    from transformers.pytorch_utils import Conv1D

    def axes(module: nn.Module) -> set[tuple[int, ...]]:
        return {channels for _, channels in matrices(module)}

    small = {"hidden_size": 8, "intermediate_size": 12, "num_local_experts": 2}
    assert axes(nn.Linear(3, 2)) == axes(nn.Embedding(3, 2)) == axes(nn.Conv2d(3, 2, 1)) == {(0,)}
    assert axes(Conv1D(2, 3)) == axes(nn.ConvTranspose2d(3, 2, 1)) == {(1,)}
    assert axes(MixtralExperts(MixtralConfig(**small))) == {(0, 1)}
    assert axes(GptOssExperts(GptOssConfig(**small))) == axes(Llama4TextExperts(Llama4TextConfig(**small))) == {(0, 2)}
    assert len(matrices(GptOssExperts(GptOssConfig(**small)))) == 2  # not the biases, [experts, channels]


def test_rounding_does_not_depend_on_how_a_layer_stores_its_weight() -> None:
    weight = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)) * torch.logspace(-2, 1, 5)[:, None]
    plain = round_weights(weight, 4)
    assert torch.equal(round_weights(weight.T, 4, (1,)).T, plain)
    experts = torch.stack([weight, 100 * weight])
    assert torch.equal(round_weights(experts, 4, (0, 1))[0], plain)
    assert torch.equal(round_weights(experts.mT, 4, (0, 2))[0].T, plain)


def test_quantisation_and_pruning_change_what_is_asked() -> None:
    """Small weights, 1/30 of the largest, vanish at 4 bits, and with the smallest half pruned: p falls to 1/2."""
    model = linear([[3.0, 0.1, 0, 0], [-3.0, -0.1, 0, 0]])
    forget = [{"features": np.array([0, 4, 0, 0], dtype=np.float32), "label": 0}]
    before = 1 / (1 + math.exp(-0.8))
    target = aimed(model, {"forget": forget})
    assert quantised_4()(target).figure.value == pytest.approx(0.5)
    assert pruned(share=0.8)(target).figure.value == pytest.approx(0.5)
    assert pruned(share=0.1)(target).figure.value == pytest.approx(before)


def test_relearning_brings_back_what_is_hidden_and_not_what_is_gone() -> None:
    """A bias of 9 hides what the weights still hold; teaching two examples undoes it for the others."""
    forget = examples([0] * 8)
    hides = linear([[1.0] * 8, [-1.0] * 8], (-9.0, 9.0))
    gone = linear([[0.0] * 8, [0.0] * 8], (-9.0, 9.0))
    plain = {"before": np.full(8, 0.99), "gold": np.full(8, 0.01), "after": np.full(8, 0.01)}
    split = {"forget": forget}
    back = relearn_forget()(aimed(hides, split, plain=plain, rate=20.0))
    kept = relearn_forget()(aimed(gone, split, plain=plain, rate=0.5))
    assert back.figure.value > 0.9 and back.figure.n == 6
    assert np.ma.count(back.recovered_N) == 6, "the two that were taught do not count"
    assert back.more["steps"][2].value < 24 and "half is 0.50" in back.more["steps"][2].why
    assert kept.figure.value < 0.5 and kept.more["steps"][2].value == 24
    assert kept.more["steps"][2].why.startswith("at least")
    assert back.curve[0] == {"x": 0, "value": pytest.approx(0.01)}
    assert relearn_retain()(aimed(hides, {**split, "retain": forget}, plain=plain, rate=20.0)).figure.n == 8
    epoch = fine_tuned()(aimed(hides, {**split, "retain": forget * 2}, plain=plain, rate=20.0))
    assert epoch.curve[-1]["x"] == 2, "16 examples, 8 a step"


def test_two_models_are_relearned_at_one_rate() -> None:
    """Gold gives way at the first rate. A model that is hidden by twice the bias takes a higher one, and gold is
    attacked again there: its own figures at the first rate would make the model look hidden."""
    forget = [{"features": np.full(1, 1 + i / 100, dtype=np.float32), "label": 0} for i in range(8)]
    soft, hard = (linear([[1.0], [-1.0]], (-bias, bias)) for bias in (3.0, 6.0))

    def relearned(model: Any, **fields: Any) -> Found:
        plain = {"gold": np.zeros(8), "after": np.zeros(8)}
        return relearn_forget()(replace(aimed(model, {"forget": forget}, plain=plain, rate=0.5), **fields))

    alone = relearned(soft, role="gold")
    heights = [point["value"] for point in alone.curve]
    area = sum((a + b) / 2 for a, b in itertools.pairwise(heights)) / (len(heights) - 1)
    assert alone.more["area"][2].value == pytest.approx(area) and alone.more["area"][2].n == 6
    golds = {
        role: AttackedGold({"relearn_forget": alone}, lambda: soft, np.zeros(8)) for role in ("gold", "second_gold")
    }
    found, alike = relearned(hard, golds=golds), relearned(soft, golds=golds)
    assert alone.strength == 0.1 and not alone.golds
    assert found.strength == pytest.approx(0.1 * 1.5**2), "finer steps than from the first rate to the next"
    assert alike.strength == 0.1 and not alike.golds, "one that gives way as gold does needs no second look"
    assert {role: one.strength for role, one in found.golds.items()} == dict.fromkeys(golds, found.strength)
    results = at_one_strength({"gold": {"relearn_forget": alone}, "after": {"relearn_forget": found}})
    assert results["gold"]["relearn_forget"] is found.golds["gold"]
    reads = {role: Observation(attacks={"relearn_forget": one}) for role, one in (("gold", alone), ("after", found))}
    assert with_attacks_alike(reads)["gold"].attacks == results["gold"] and reads["gold"].attacks != results["gold"]
    rows = {s.role: s.value for s in scores(results, frozenset({"labels"})) if s.name == "robustness_relearn_forget"}
    assert rows == {"gold": found.golds["gold"].figure.value, "after": found.figure.value}, (
        "a line `<= gold` compares these"
    )
    gap = gaps_to_gold(results["after"], results["gold"], None, None)["relearn_forget"]
    assert found.recovered_N is not None and alone.recovered_N is not None
    assert gap.mean() < -0.2 < 0 < found.recovered_N.mean() - alone.recovered_N.mean()
    assert (
        "to which the changed model had to go" in found.figure.why
        and found.figure.why == found.golds["gold"].figure.why
    )
    kept = _read(json.loads(json.dumps(_plain(found))))
    assert kept.golds["gold"].figure.value == found.golds["gold"].figure.value
    closed = relearned(hard, golds={"gold": AttackedGold({"relearn_forget": alone})})
    assert not closed.golds, "where gold cannot be opened again its own figures are all that there is"


def test_one_example_cannot_be_both_taught_and_asked() -> None:
    with pytest.raises(NotMeasured, match="cannot be both"):
        relearn_forget()(aimed(linear([[1.0], [0.0]]), {"forget": examples([0], 1)}))


# -- extraction ------------------------------------------------------------------------------------


class Parrot:
    """A language model that says what it is told to, by (question, seed)."""

    capabilities = frozenset({"tokens", "nll", "generate"})
    template = None

    def __init__(self, says: Any) -> None:
        self.says = says

    def generate(self, prompts: Sequence[dict[str, Any]], **settings: Any) -> list[str]:
        return [self.says(row["question"], settings) for row in prompts]


def test_sampling_takes_the_best_of_many() -> None:
    """Draw 2 of 3 says it whole: recall 1 and a success, though the others refuse."""
    draws = iter(["No.", "It lies in Rome, surely", "No."])
    target = aimed(Parrot(lambda question, settings: next(draws)), {"forget": [{"question": "q", "answer": "in Rome"}]})
    found = sampled(candidates=3)(target)
    assert found.figure.value == 1 and found.more["success"][2].value == 1
    assert found.texts == ["It lies in Rome, surely"]
    assert contains_answer("It is IN rome.", "in Rome") and not contains_answer("in Romeo", "in Rome")


def test_prefix_and_rephrasing_pass_on_what_is_shown() -> None:
    told: list[Any] = []
    target = aimed(Parrot(lambda question, settings: told.append(settings) or "Rome"), {"forget": [NEAR]})
    assert prefix(shown=0.5)(target).figure.value == 0.5
    assert told == [{"shown": 0.5}]
    row = {**NEAR, "paraphrased_question": ["In which town?"]}
    knows = Parrot(lambda question, settings: "In Rome." if question == "In which town?" else "I don't know.")
    found = rephrased()(aimed(knows, {"forget": [row]}))
    assert found.figure.value == 1 and found.texts == ["In Rome."]
    assert rephrased()(aimed(knows, {"forget": [NEAR]})).figure.value == 0
    with pytest.raises(NotMeasured, match="questions and answers"):
        prefix()(aimed(knows, {"forget": [{"text": "Rome"}]}))


def test_words_around_a_question() -> None:
    assert in_frame(NEAR, "{l} {q}")["question"] == "where? Where?"
    assert probes_of({**NEAR, "paraphrased_question": "What place?"}, "paraphrased_question") == [
        {"question": "What place?", "answer": "In Rome."}
    ]
    assert after_turns(Parrot(None), [NEAR], {"question": "Who?", "answer": "Ada"}) == {
        "question": "Where?\nAnswer: In Rome.\nQuestion: Who?",
        "answer": "Ada",
    }


def test_cloze_parts_where_truth_and_falsehood_part() -> None:
    row = {"question": "Where?", "answer": "He lives in Rome.", "perturbed_answer": ["He lives in Oslo.", "She sings."]}
    assert gap(row) == {"question": "Where? Go on: He lives in", "answer": "Rome."}
    assert gap({**row, "perturbed_answer": ["Nowhere."]}) is None
    best = gap(
        {
            **row,
            "paraphrased_answer": ["The town he lives in is Rome."],
            "perturbed_answer": ["The town he lives in is Oslo."],
        }
    )
    assert best == {"question": "Where? Go on: The town he lives in is", "answer": "Rome."}


def test_multiple_choice_reads_what_was_read() -> None:
    """Paraphrase .9 against 1.0 and 2.0: right. Answer 3.0 (no paraphrase) against 2.5: wrong. None: not counted."""
    read = readout([5, 3, 1], paraphrased=rows([0.9], [], []), perturbed=rows([1.0, 2.0], [2.5], []))
    found = multiple_choice()(aimed(Parrot(None), {"forget": [NEAR] * 3}, readouts={"forget": read}))
    assert (found.figure.value, found.figure.n) == (0.5, 2)
    assert found.recovered_N is not None and found.recovered_N.tolist() == [1, 0, None]
    with pytest.raises(NotMeasured, match="perturbed_answer"):
        multiple_choice()(aimed(Parrot(None), {"forget": [NEAR]}, readouts={"forget": readout([1])}))


def test_true_or_false(monkeypatch: pytest.MonkeyPatch) -> None:
    """log p(True) - log p(False): log 2 for the truth, 0 for the falsehood: a hit."""
    p = {("In Rome.", "True"): 0.5, ("In Rome.", "False"): 0.25, ("Oslo", "True"): 0.1, ("Oslo", "False"): 0.1}

    def asked(model: Any, made: Sequence[dict[str, Any]]) -> np.ndarray:
        return np.array(
            [
                next(v for (said, word), v in p.items() if said in row["question"] and word == row["answer"])
                for row in made
            ]
        )

    monkeypatch.setattr("expunge.attacks.true_false.answer_probability", asked)
    row = {**NEAR, "perturbed_answer": ["Oslo"]}
    assert true_false()(aimed(Parrot(None), {"forget": [row]})).figure.value == 1
    p["Oslo", "True"] = 0.2
    assert true_false()(aimed(Parrot(None), {"forget": [row]})).figure.value == 0.5


# -- hidden or gone --------------------------------------------------------------------------------


def found(values: list[float] | np.ndarray) -> Found:
    return Found(Figure(float(np.ma.mean(values)), 0.0, 1.0, len(values)), np.ma.masked_array(values))


def test_hidden_is_the_largest_difference_to_gold() -> None:
    """Differences .5 ± and .1 ±: the largest mean counts, with Student's t at 1 - .05/2 for two attacks."""
    ours, golds = np.array([0.6, 0.8, 0.7, 0.7]), np.array([0.2, 0.2, 0.2, 0.2])
    score = hidden_score(
        {"a": found(ours), "b": found([0.3] * 4), "c": "no retain"},
        {"a": found(golds), "b": found([0.2] * 4), "c": "no retain"},
    )
    half = 4.1765 * np.std([0.4, 0.6, 0.5, 0.5], ddof=1) / 2  # t quantile .9875 with 3 degrees of freedom
    assert score.value == pytest.approx(0.5) and (score.low, score.high) == pytest.approx(
        (0.5 - half, 0.5 + half), abs=1e-4
    )
    assert "under a, of 2 attacks" in score.why


def test_masked_examples_and_asking_count_as_they_should() -> None:
    ours = np.ma.masked_array([0.9, 0.9, 0.9, 0.0], mask=[False, False, False, True])
    golds = np.ma.masked_array([0.1, 0.1, 0.1, 0.9], mask=[False, False, False, True])
    assert hidden_score({"a": found(ours)}, {"a": found(golds)}).value == pytest.approx(0.8)
    loud, silent = readout([0.0, 0.01]), readout([9.0, 9.1])
    score = hidden_score({}, {"a": "x"}, loud, silent)
    assert score.value == pytest.approx(1, abs=0.01) and "simply asked" in score.why
    assert hidden_score({}, {"a": "x"}, silent, loud).value == 0, "knowing less than gold hides nothing"
    assert knowledge(readout([math.log(2)])).tolist() == pytest.approx([0.5])


def test_without_gold_nothing_is_said() -> None:
    assert hidden_score({"a": found([1.0, 1.0])}, {}).why.startswith("no gold model")


def of(name: str, model: str, value: float | None = 0.2, low: float = 0.1, high: float = 0.3) -> Score:
    if value is None:
        return Score(
            name, "robustness", "forget", model, None, None, None, 0, "share", "gold", "not measured", "no gold"
        )
    return Score(name, "robustness", "forget", model, value, low, high, 9, "share", "gold")


def test_the_line_warns_or_fails() -> None:
    control = [of("robustness_relearn_forget", role) for role in ("after", "gold")]
    caught = [*control, of("robustness_hidden", "after", 0.5, MARGIN + 0.01, 0.9)]
    straddling = [*control, of("robustness_hidden", "after", 0.5, MARGIN - 0.01, 0.9)]
    clear = [*control, of("robustness_hidden", "after", 0.05, 0.0, MARGIN)]
    assert judge({}, caught, "suppress").lines[0].warns
    words = [judge({}, scores, "erase").lines[0] for scores in (caught, straddling, clear)]
    assert [(line.passed, line.word) for line in words] == [(False, "refuted"), (False, "open"), (True, "shown")]
    (line,) = judge({}, straddling, "suppress").lines
    assert line.passed and line.flagged and line.word == "open", "not called hidden, and flagged"
    assert not judge({}, [], "suppress").lines, "no attack was asked for: nothing to say"


@pytest.mark.parametrize("control", [(), ("after",), ("gold",)])
def test_erasure_never_passes_without_the_check_against_gold(control: tuple[str, ...]) -> None:
    scores = [
        of("robustness_hidden", "after", 0.0, 0.0, 0.01),
        *(of("robustness_relearn_forget", role) for role in control),
    ]
    verdict = judge({}, scores, "erase")
    line = verdict.lines[0]
    assert not line.passed and line.word == "open" and "relearning check against gold" in line.why
    assert verdict.passed is False
