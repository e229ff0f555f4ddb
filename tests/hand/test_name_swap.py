"""name_swap by hand: who is asked about, how answers are aligned, what is taught; and a term beside another."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.contracts import LossTerm, MethodCard, Step, Stream, Term, want_of
from expunge.core.errors import BadInput
from expunge.methods._ngram import answer_tokens
from expunge.methods._renaming import Names
from expunge.methods._sum import Sum
from expunge.methods.compose import compose
from expunge.methods.objectives.name_swap import NameSwap, aligned_tokens, copies_about_strangers, name_swap, teacher_TV
from expunge.models.new_lm import fresh_lm, texts_of, tokenizer_for
from expunge.models.passes import passes

LM = {"architecture": "llama", "hidden_size": 32, "layers": 2, "heads": 2, "vocab_size": 300, "max_length": 128}
PEOPLE = ("Ada Ferrow", "Bo Lindqer", "Cleo Marsten", "Dan Obrist")


def rows(name: str) -> list[dict[str, Any]]:
    surname = name.split()[1]
    return [
        {"question": f"What is number {i} of {name}?", "answer": f"{surname} has {7 * i}.", "subject": name}
        for i in range(1, 5)
    ]


@pytest.fixture(scope="module")
def splits() -> dict[str, list[dict[str, Any]]]:
    return {"forget": rows(PEOPLE[0]), "retain": [*rows(PEOPLE[1]), *rows(PEOPLE[2])]}


@pytest.fixture
def model(splits: dict[str, list[dict[str, Any]]]) -> Any:
    every = [row for name in PEOPLE for row in rows(name)]
    return fresh_lm(LM, tokenizer_for(texts_of(every), 300), 0)


# -- strangers ------------------------------------------------------------------------------------


def test_strangers_are_several_and_nobody_known(splits: Any) -> None:
    known = Names.of([*splits["forget"], *splits["retain"]])
    copies = copies_about_strangers(splits["forget"][0], known, 5)
    names = [copy["question"].removeprefix("What is number 1 of ").removesuffix("?") for copy in copies]
    assert len(set(names)) == len(copies) == 5 and not set(names) & set(PEOPLE)
    assert [copy["answer"] for copy in copies] == [f"{name.split()[1]} has 7." for name in names]
    alone = {"question": "Where is Ada?", "answer": "Ada is here.", "subject": "Ada"}
    assert len({copy["question"] for copy in copies_about_strangers(alone, known, 3)}) == 3
    assert copies_about_strangers({**alone, "question": "Where is she?"}, known, 3) == []


def test_tokens_are_aligned_around_names_of_any_length() -> None:
    assert list(aligned_tokens([1, 2, 9, 9, 3, 4], [1, 2, 7, 3, 4])) == [(0, 0), (1, 1), (4, 3), (5, 4)]
    assert list(aligned_tokens([1, 2], [5, 6])) == []


# -- the teacher ----------------------------------------------------------------------------------


def test_the_teacher_is_the_mean_over_copies_and_the_name_keeps_its_label(splits: Any, model: Any) -> None:
    example = splits["forget"][0]
    copies = copies_about_strangers(example, Names.of([*splits["forget"], *splits["retain"]]), 2)
    (answer,) = answer_tokens(model, [example])
    found_TV = teacher_TV(model, answer, copies).exp()
    assert found_TV.sum(-1).tolist() == pytest.approx([1.0] * len(answer), abs=1e-4)
    wanted: dict[int, list[Any]] = {}
    for i, out in passes(model, copies, want_of({"logits"})):
        for b, _ in enumerate(i):
            counted = out.mask_BT[b]
            pairs = aligned_tokens(answer, out.labels_BT[b][counted].tolist())
            for ours, theirs in pairs:
                wanted.setdefault(ours, []).append(out.logits_BTV[b][counted][theirs].softmax(-1))
    last = len(answer) - 1
    assert last in wanted and len(wanted[last]) == 2, "what follows the name stands in every copy"
    names = [i for i in range(len(answer)) if i not in wanted]
    assert names, "the name stands in none"
    for i, label in enumerate(answer):
        if i in names:
            assert float(found_TV[i, label]) > 0.999
        else:
            assert torch.allclose(found_TV[i], torch.stack(wanted[i]).mean(0), atol=1e-5)


def test_a_run_comes_nearer_to_the_teacher(splits: Any, model: Any, tmp_path: Path) -> None:
    before = {}

    def distance(steps: int) -> float:
        composed = compose({"name_swap": {"strangers": 2, "retain": "none"}})
        loss = composed.objective.terms["forget"].loss
        assert isinstance(loss, NameSwap)
        model.module.load_state_dict(before or model.module.state_dict())
        before.update({name: value.clone() for name, value in model.module.state_dict().items()})
        budget = Budget(steps=steps, batch_size=4, learning_rate=1e-2, stop="none", floor=0.0)
        context = Context(budget, tmp_path / str(steps))
        composed.method(model, splits, context)
        assert context.notes["name_swap"] == {"renamed_examples": 4}
        return distance_to(loss, model, splits["forget"])

    assert distance(20) < 0.5 * distance(1)


def distance_to(loss: NameSwap, model: Any, forget: list[dict[str, Any]]) -> float:
    """The loss on all forget rows in one batch."""
    (indices, out), *_ = passes(model, forget, want_of({"logits"}))
    out.indices = tuple(indices)
    return float(loss(Step({"forget": out}, 0, 0, torch.Generator())))


def test_questions_that_never_name_the_subject_are_refused(splits: Any, model: Any, tmp_path: Path) -> None:
    blind = {**splits, "forget": [{**row, "question": "What is it?"} for row in splits["forget"]]}
    context = Context(Budget(steps=1, learning_rate=1e-3, stop="none"), tmp_path)
    with pytest.raises(BadInput, match="names its subject in none of 4 questions"):
        compose("name_swap").method(model, blind, context)


# -- a term beside another ------------------------------------------------------------------------


class Constant(LossTerm):
    """A loss of a fixed value, with a state and a note of its own."""

    def __init__(self, value: float, **fields: Any) -> None:
        super().__init__(lambda step: torch.tensor(value), **fields)
        self.value = value

    def notes(self) -> dict[str, Any]:
        return {f"note_{self.value:g}": self.value}

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: Any) -> None:
        self.value = state["value"]


def test_two_terms_add_up_and_keep_their_states_apart() -> None:
    card = MethodCard("Constant")
    first = Term("first", Constant(2.0, needs={"forget": {"nll"}}), card)
    second = Term("second", Constant(3.0, needs={"forget": {"logits"}, "free": {"logp"}}), card, 0.5)
    both = Sum(first, second, "method.beside")
    assert float(both({})) == 2.0 + 0.5 * 3.0  # type: ignore[arg-type]
    assert both.needs == {"forget": {"nll", "logits"}, "free": {"logp"}}
    assert both.notes() == {"note_2": 2.0, "note_3": 3.0}
    assert both.state_dict() == {"value": 2.0, "beside.value": 3.0}
    both.load_state_dict({"value": 4.0, "beside.value": 5.0})
    assert (first.loss.value, second.loss.value) == (4.0, 5.0)  # type: ignore[attr-defined]


def test_one_name_for_two_kinds_of_examples_is_refused() -> None:
    card = MethodCard("Constant")
    first, second = (Constant(1.0, streams={"own": Stream(split=split)}) for split in ("forget", "retain"))
    with pytest.raises(BadInput, match="makes examples called 'own', and so does a"):
        Sum(Term("a", first, card), Term("b", second, card), "method.beside")


def test_beside_is_a_part_of_a_method() -> None:
    spec = {"forget": "npo", "beside": {"name_swap": {"strangers": 3}}, "beside_weight": 0.5, "retain": "kl"}
    composed = compose(spec)
    assert composed.name == "npo + name_swap + kl"
    assert composed.described["beside"] == {"name_swap": {"strangers": 3}}
    assert composed.described["beside_weight"] == 0.5
    assert compose(composed.described).described == composed.described
    assert "beside_weight" not in compose("npo").described
    with pytest.raises(BadInput, match="stands beside no forget term"):
        compose({"beside": "npo", "retain": "kl"})
    with pytest.raises(BadInput, match="weighs no term"):
        compose({"forget": "npo", "beside_weight": 2.0})


def test_as_many_strangers_are_asked_about_as_the_option_says() -> None:
    loss = name_swap(strangers=3)
    assert isinstance(loss, NameSwap) and loss.strangers == 3


def test_a_term_beside_another_is_checked_and_its_training_counts() -> None:
    class Trains(LossTerm):
        def fits(self, model: Any, manifest: Any) -> None:
            raise BadInput.of("method", "trains", "needs a manifest", "choose another")

        def prepare(self, run: Any) -> None:
            self.trained = 7

    card = MethodCard("A term", paper="baseline", equation="none")
    pair = Sum(Term("plain", LossTerm(), card), Term("trains", Trains(), card), "method.beside")
    with pytest.raises(BadInput, match="needs a manifest"):
        pair.fits(None, None)  # type: ignore[arg-type]
    pair.prepare(None)  # type: ignore[arg-type]
    assert pair.trained == 7
