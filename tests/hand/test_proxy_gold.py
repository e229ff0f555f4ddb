"""The parts of proxy_gold and distillation by hand: n-grams, quantiles, labels, names, and what a run asks of them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from expunge.core import cache
from expunge.core.budget import Budget
from expunge.core.compute import Compute
from expunge.core.context import Context
from expunge.core.contracts import Output, Reference, Step, want_of
from expunge.core.errors import BadInput
from expunge.data.examples import identity
from expunge.methods._ngram import Ngrams
from expunge.methods._quantiles import entropy_of, match_partners, match_quantiles, with_entropy, with_label
from expunge.methods._recall import recall, shared_recall
from expunge.methods._renaming import Names, rename_subject, subject_of
from expunge.methods.compose import compose
from expunge.methods.objective import plain_training
from expunge.methods.objectives.proxy_gold import proxy_gold, unseen_labels
from expunge.methods.retain.distillation import Distillation, distillation
from expunge.methods.weights.lora import lora
from expunge.models.metering import count_passes
from expunge.models.new_lm import fresh_lm, texts_of, tokenizer_for
from expunge.models.passes import passes
from expunge.training.references import Record
from expunge.training.stopping import figures

LM = {"architecture": "llama", "hidden_size": 32, "layers": 2, "heads": 2, "vocab_size": 300, "max_length": 128}
PEOPLE = ("Ada Ferrow", "Bo Lindqer", "Cleo Marsten", "Dan Obrist")


def rows(name: str, start: int, count: int = 4) -> list[dict[str, Any]]:
    surname = name.split()[1]
    return [
        {"question": f"What is number {i} of {name}?", "answer": f"{surname} has number {7 * i}.", "subject": name}
        for i in range(start, start + count)
    ]


@pytest.fixture(scope="module")
def splits() -> dict[str, list[dict[str, Any]]]:
    return {
        "forget": rows(PEOPLE[0], 1),
        "retain": [*rows(PEOPLE[1], 11), *rows(PEOPLE[2], 21)],
        "holdout": rows(PEOPLE[3], 31),
    }


def model(splits: dict[str, list[dict[str, Any]]]) -> Any:
    return fresh_lm(LM, tokenizer_for(texts_of([row for part in splits.values() for row in part]), 300), 0)


# -- n-grams --------------------------------------------------------------------------------------


def test_witten_bell_by_hand() -> None:
    """Answers "1 2" and "1 3", four tokens: unigrams (c + 3/4) / 7, and after the start (2 + P(1)) / 3 for token 1."""
    first, second = Ngrams([[1, 2], [1, 3]], 4, order=2).log_probabilities([1, 2]).exp()
    unigram = [(count + 3 / 4) / 7 for count in (0, 2, 1, 1)]
    assert first.tolist() == pytest.approx([p / 3 + (2 / 3 if i == 1 else 0) for i, p in enumerate(unigram)])
    # After token 1 stood two tokens of two kinds: (c + 2 P(w)) / 4.
    assert second.tolist() == pytest.approx([(c + 2 * p) / 4 for c, p in zip((0, 0, 1, 1), unigram, strict=True)])


def test_an_unknown_context_falls_back_and_all_sums_to_one() -> None:
    ngrams = Ngrams([[1, 2, 3], [4, 2, 3]], 6, order=4)
    p_TV = ngrams.log_probabilities([5, 5, 2, 3]).exp()
    assert p_TV.sum(-1).tolist() == pytest.approx([1.0] * 4)
    assert p_TV[1].tolist() == pytest.approx(p_TV[2].tolist()), "after a token that never occurred: the unigrams"
    assert int(p_TV[3].argmax()) == 3, "3 follows 2 whatever stood before"


# -- quantiles ------------------------------------------------------------------------------------


def test_quantiles_keep_the_order_and_take_the_values() -> None:
    value, unseen = torch.tensor([-1.0, -9.0, -0.1]), torch.tensor([-3.0, -5.0, -4.0])
    assert match_quantiles(value, unseen).tolist() == pytest.approx([-4.0, -5.0, -3.0])
    many = match_quantiles(torch.linspace(-8, 0, 101), torch.tensor([0.0, -2.0]))
    assert many[0] == -2.0 and many[-1] == 0.0 and float(many.mean()) == pytest.approx(-1.0)


def test_a_label_is_set_and_the_others_keep_their_proportions() -> None:
    top, rest = torch.tensor([[0.7, 0.1, 0.05]]).log(), torch.tensor([0.15]).log()
    new, left = with_label(top, rest, torch.tensor([math.log(0.1)]))
    assert new.exp()[0].tolist() == pytest.approx([0.1, 0.3, 0.15]) and float(left.exp()) == pytest.approx(0.45)
    whole, none = with_label(top, torch.tensor([-torch.inf]), torch.tensor([0.0]))
    assert float(whole.exp().sum()) == pytest.approx(1.0) and float(none) == -torch.inf


def test_partners_go_with_the_label_of_the_same_rank() -> None:
    value, unseen = torch.tensor([-1.0, -9.0, -0.1]), torch.tensor([-3.0, -5.0, -4.0])
    beside = torch.tensor([0.3, 0.5, 0.4])
    assert match_partners(value, unseen, beside).tolist() == pytest.approx([0.4, 0.5, 0.3])
    many = match_partners(torch.linspace(-8, 0, 101), unseen, beside)
    assert many.unique().tolist() == pytest.approx([0.3, 0.4, 0.5])


def test_a_temperature_gives_an_entropy_and_keeps_the_order() -> None:
    """Half of what a uniform choice of four has, of three likely tokens and one that cannot be."""
    logp = torch.tensor([[0.6, 0.3, 0.1, 0.0]]).log()
    goal = torch.tensor([0.5 * math.log(4)])
    found = with_entropy(logp, goal)
    assert float(entropy_of(found)) == pytest.approx(float(goal), abs=1e-3)
    assert found.argsort(descending=True).tolist() == [[0, 1, 2, 3]] and float(found.exp().sum()) == pytest.approx(1.0)
    flat, sure = with_entropy(logp, torch.tensor([9.0])), with_entropy(logp, torch.tensor([0.0]))
    assert float(entropy_of(flat)) == pytest.approx(math.log(3), abs=1e-3) and float(sure[0, 0].exp()) > 0.999


# -- names ----------------------------------------------------------------------------------------


def test_names_are_put_together_anew() -> None:
    names = Names.of([*rows(PEOPLE[0], 1), *rows(PEOPLE[1], 1), {"subject": "Plato"}])
    drawn = {names.draw("row", i) for i in range(20)}
    assert drawn <= {"Ada Lindqer", "Bo Ferrow", None} and {"Ada Lindqer", "Bo Ferrow"} <= drawn
    assert Names.of([{"subject": "Plato"}]).draw("row") is None


def test_a_subject_is_given_or_the_first_name_in_the_question() -> None:
    """A capital at the start of the question makes no name, and a genitive is no part of one."""
    assert subject_of({"question": "Who is Bo Lind?", "subject": "Ada Ferrow"}) == "Ada Ferrow"
    assert subject_of({"question": "What Did Sinéad O'Brien-Ruiz's Aunt Do?"}) == "Did Sinéad O'Brien-Ruiz"
    assert subject_of({"question": "Where does Ji-Yeon Park's aunt live?"}) == "Ji-Yeon Park"
    assert subject_of({"question": "Who lives there?"}) == subject_of({"text": "Ada Ferrow"}) == ""


def test_the_name_is_replaced_whole_and_in_part() -> None:
    example = {
        "question": "Who is Ada Ferrow?",
        "answer": "Ferrow's Adage: Ada, not Ferrowby.",
        "subject": "Ada Ferrow",
    }
    about_bo = {"question": "Who is Bo Lind?", "answer": "Lind's Adage: Bo, not Ferrowby."}
    assert rename_subject(example, "Bo Lind") == about_bo
    assert rename_subject({**example, "question": "Who is it?"}, "Bo Lind") is None
    assert rename_subject({"text": "Ada Ferrow"}, "Bo Lind") is None


# -- a run ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("match_entropy", [False, True])
def test_forgotten_labels_are_as_likely_and_others_as_unsure_as_unseen_ones(
    match_entropy: bool, splits: Any, tmp_path: Path
) -> None:
    """Half of the holdout, under the reference model, sets the labels' quantiles and the entropies beside them."""
    composed = compose({"proxy_gold": {"match_entropy": match_entropy}})
    reference = model(splits)
    whole, entropy = unseen_labels(reference, splits["holdout"])
    context = Context(Budget(steps=1, batch_size=4, learning_rate=1e-4, stop="none"), tmp_path)
    composed.method(reference, splits, context)
    teacher = composed.objective.terms["forget"].loss.teacher
    assert isinstance(teacher, Record) and context.notes["proxy_gold"]["unseen_examples"] == 2
    top = teacher.values.top_BTK[teacher.values.top_BTK[..., 0] != 0]
    assert whole.min() - 1e-4 <= top[:, 0].min() and top[:, 0].max() <= whole.max() + 1e-4
    assert top.exp().sum(-1).tolist() == pytest.approx([1.0] * len(top), abs=1e-4)
    others = entropy_of(top[:, 1:].log_softmax(-1))
    apart = torch.cat([entropy.min() - others, others - entropy.max()]).max()
    assert (apart <= 1e-2) == match_entropy, "an untrained model is less sure than n-grams"


def test_the_entropy_of_others_is_read_off_the_moments(splits: Any) -> None:
    reference = model(splits)
    logp, entropy = unseen_labels(reference, splits["holdout"][:1])
    _, out = next(passes(reference, splits["holdout"][:1], want_of({"logits"})))
    full, label = out.logits_BTV[out.mask_BT].log_softmax(-1), out.labels_BT[out.mask_BT]
    assert logp.tolist() == pytest.approx(full.gather(-1, label[:, None])[:, 0].tolist(), abs=1e-4)
    others = full.scatter(-1, label[:, None], -torch.inf).log_softmax(-1)
    assert entropy.tolist() == pytest.approx(entropy_of(others).tolist(), abs=1e-3)


def test_without_a_holdout_the_patterns_stand_as_they_are(splits: Any, tmp_path: Path) -> None:
    composed = compose("proxy_gold")
    some = {name: part for name, part in splits.items() if name != "holdout"}
    context = Context(Budget(steps=1, batch_size=4, learning_rate=1e-4, stop="none"), tmp_path)
    composed.method(model(splits), some, context)
    assert context.notes["proxy_gold"]["unseen_examples"] == 0


@pytest.mark.parametrize("rank", [0, 4])
def test_a_short_retraining_may_teach_in_place_of_n_grams(rank: int, splits: Any, tmp_path: Path) -> None:
    """Without a holdout what is kept is what the base's start says after half of its examples, drawn from retain."""
    start, some = model(splits), {name: splits[name] for name in ("forget", "retain")}
    start.save(tmp_path / "start")
    hashes = [identity(row)[:16] for part in some.values() for row in part]
    length = {"batch_size": 4, "learning_rate": 1e-2}
    manifest = {"model": str(tmp_path / "start"), "seed": 0, "hashes": hashes, "budget": {"epochs": 40, **length}}
    composed = compose({"proxy_gold": {"part": 0.5, "rank": rank}})
    budget = Budget(steps=1, batch_size=4, learning_rate=1e-4, stop="none")
    context = Context(budget, tmp_path / "run", manifest=manifest)
    composed.method(model(splits), some, context)
    taught, outcome = context.notes["short_training"]["outcome"], context.notes["outcome"]
    assert taught["steps"] == 60 and outcome["tokens"] > taught["tokens"] > 0

    training = plain_training("retain")
    training.weights = lora(rank=rank, lora_alpha=2 * rank) if rank else training.weights
    own = Context(Budget(steps=60, **length), tmp_path / "own", stage="apply/short_training")
    teacher = training(model(splits), {"retain": some["retain"]}, own)
    kept = composed.objective.terms["forget"].loss.teacher.values
    for rows, out in passes(teacher, some["forget"], want_of({"logp"})):
        then = kept.top_BTK[rows, -out.logp_BT.shape[1] :, 0][out.mask_BT]
        assert then.tolist() == pytest.approx(out.logp_BT[out.mask_BT].tolist(), abs=1e-4)
    with pytest.raises(BadInput, match="training manifest"):
        composed.method.fits(start, some, None)


def test_a_run_lowers_both_losses(splits: Any, tmp_path: Path) -> None:
    """Taught forget and retain first, a model ends near the teacher's likelihood and still knows retain."""
    taught = plain_training()(
        model(splits),
        {"retain": [*splits["forget"], *splits["retain"]]},
        Context(Budget(epochs=30, batch_size=4, learning_rate=1e-2), tmp_path / "base"),
    )
    before = {name: figures(taught, part)["nll"] for name, part in splits.items()}
    assert before["forget"] < 0.5 * before["holdout"], "there is something to forget"
    context = Context(Budget(epochs=30, learning_rate=3e-3, stop="none", floor=0.0), tmp_path / "run")
    compose("proxy_gold").method(taught, splits, context)
    after = {name: figures(taught, part)["nll"] for name, part in splits.items()}
    assert after["forget"] > 0.5 * (before["forget"] + before["holdout"])
    assert after["retain"] < 0.5 * (before["retain"] + before["holdout"])


def test_distillation_is_zero_at_the_reference_and_asks_about_others(splits: Any, tmp_path: Path) -> None:
    composed = compose({"forget": "npo", "retain": "distillation", "others": 2, "recalled": 0, "batch_size": 4})
    loss = composed.objective.terms["retain"].loss
    assert isinstance(loss, Distillation)
    reference, seen = model(splits), []
    collate = reference.collate
    reference.collate = lambda examples, positions="answer": (seen.extend(examples), collate(examples, positions))[1]
    context = Context(Budget(steps=1, learning_rate=0.01, stop="none", floor=0.0), tmp_path)
    composed.method(reference, splits, context)
    texts = {row["question"] for row in seen}
    assert any("Bo Marsten" in text or "Cleo Lindqer" in text for text in texts)
    assert all("subject" in row or "Ferrow" not in row["question"] for row in seen)


def one_position(logits: list[float], then: list[float], hidden: torch.Tensor, before: torch.Tensor) -> Output:
    """One example with one position, whose label is class 0, and the reference's whole distribution."""
    out = Output(
        torch.zeros(1),
        torch.tensor([1]),
        torch.zeros(1, 1, dtype=torch.long),
        torch.ones(1, 1, dtype=torch.bool),
        logits_BTV=torch.tensor([[logits]]),
        hidden={"block": hidden},
        indices=(0,),
    )
    out.reference = Reference(
        index_BTK=torch.arange(len(then))[None, None],
        top_BTK=torch.tensor([[then]]).log(),
        rest_BT=torch.full((1, 1), -torch.inf),
        hidden={"block": before},
    )
    return out


# -- what the model knows and nobody named --------------------------------------------------------


def test_recall_leaves_out_what_the_data_tell_and_puts_the_surest_first(splits: Any) -> None:
    """Of five sampled answers one is retain's, one the forget set's, one empty and one is there twice."""
    reference = model(splits)
    texts = [splits["retain"][0]["answer"], splits["forget"][1]["answer"], "", "Obrist has 12.", "Zed is 9 of 4.", ""]
    texts[5] = texts[3]
    reference.generate = lambda prompts, **settings: texts
    questions = [{"question": f"Who is {i}?", "subject": "Nobody At All"} for i in range(len(texts))]
    found = recall(reference, questions, splits["retain"], splits["forget"], 0)
    assert sorted(row["answer"] for row in found) == ["Obrist has 12.", "Zed is 9 of 4."]
    nll = [figures(reference, [row])["nll"] for row in found]
    assert nll == sorted(nll) and all(set(row) == {"question", "answer"} for row in found)


def test_runs_of_one_base_recall_once(splits: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second run has the answers and their cost from the cache; another seed asks anew, and so does no run."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    reference, asked = model(splits), []
    generate = reference.generate
    reference.generate = lambda prompts, **settings: asked.append(len(prompts)) or generate(prompts, **settings)
    questions = [{"question": f"Who is {i}?"} for i in range(6)]

    def found(seed: int) -> tuple[list[Any], float]:
        compute = Compute()
        with count_passes(reference, compute):
            rows = shared_recall(reference, questions, splits["retain"], splits["forget"], seed, compute)
        return rows, compute.forward

    with cache.journal(tmp_path / "caches.jsonl"):
        first, second = found(0), found(0)
        assert first == second and first[0] and first[1] > 0 and asked == [6]
        found(1)
        assert asked == [6, 6]
    assert [entry.partition("/")[0] for entry in cache.read_journal(tmp_path / "caches.jsonl")] == ["answers"] * 2
    assert found(0) == first and asked == [6, 6, 6]


@pytest.mark.parametrize("calls", [5, 5000])
def test_distillation_rehearses_what_the_model_recalls(calls: int, splits: Any, tmp_path: Path) -> None:
    """The model is asked as often as it may be, about names that are put together anew, and held on its answers."""
    composed = compose({"forget": "npo", "retain": "distillation", "recalled": 1, "calls": calls, "batch_size": 4})
    reference = model(splits)
    asked: list[Any] = []
    reference.generate = lambda prompts, **settings: asked.extend(prompts) or ["Zed is 9 of 4."] * len(prompts)
    context = Context(Budget(steps=2, learning_rate=0.01, stop="none", floor=0.0), tmp_path)
    composed.method(reference, splits, context)
    assert len(asked) == min(calls, 12 * len(splits["retain"]))
    few = asked[:5]  # further on so few names are used up, and the question is asked as it is
    assert all("Bo Marsten" in r["question"] or "Cleo Lindqer" in r["question"] for r in few)
    loss = composed.objective.terms["retain"].loss
    assert isinstance(loss, Distillation) and context.notes["distillation"] == {"recalled": 1}
    made = [loss.streams["recalled_0"].make(row) for row in splits["retain"]]
    assert {row["answer"] for row in made} == {"Zed is 9 of 4."}


def test_a_copy_without_rows_takes_no_weight_from_retain() -> None:
    loss = distillation(states=0.0)
    then, logits = [0.9, 0.1], [0.0, 0.0]
    out = one_position(logits, then, torch.zeros(1, 1, 2), torch.ones(1, 1, 2))
    alone = {"retain": out} | {name: Output(None, *[torch.zeros(0, 1)] * 3) for name in ("recalled_0", "recalled_1")}
    expected = sum(p * math.log(p / 0.5) for p in then)
    assert float(loss(Step(alone, 0, 0, torch.Generator()))) == pytest.approx(expected)


@pytest.mark.parametrize("moved", [0.0, 0.1])
def test_the_distance_counts_every_direction_of_a_state(moved: float) -> None:
    """A state moved by a tenth of its norm adds states / 100, whatever its direction."""
    loss = distillation(states=10.0, recalled=0)
    assert isinstance(loss, Distillation)
    loss.paths = ["block"]
    then = torch.tensor([[[3.0, 4.0]]])
    now = then + moved * 5 * torch.tensor([0.6, -0.8])
    out = one_position([0.0, 0.0], [0.5, 0.5], now, then)
    assert float(loss(Step({"retain": out}, 0, 0, torch.Generator()))) == pytest.approx(10 * moved**2, abs=1e-6)


def test_the_loss_is_kl_and_the_labels_squared_distance() -> None:
    """Teacher (1/4, 3/4), model (1/2, 1/2): KL = log 2 - H(1/4), and the label is off by log 2."""
    loss = proxy_gold(label=0.5)
    out = one_position([0.0, 0.0], [0.25, 0.75], torch.zeros(1, 1, 1), torch.zeros(1, 1, 1))
    loss.teacher = Record({0: 0}, out.reference)  # type: ignore[attr-defined]
    entropy = -0.25 * math.log(0.25) - 0.75 * math.log(0.75)
    wanted = math.log(2) - entropy + 0.5 * math.log(2) ** 2
    assert float(loss(Step({"forget": out}, 0, 0, torch.Generator()))) == pytest.approx(wanted, abs=1e-6)
