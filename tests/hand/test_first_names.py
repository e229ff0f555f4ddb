"""rocr with `parts`: the words that a name begins with are read as another's too; and the ways that forget tries."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from expunge.core.budget import DEFAULTS
from expunge.core.context import Context
from expunge.methods._keys import all_prompt_states, states
from expunge.methods.auto import options_of
from expunge.methods.compose import compose
from expunge.methods.edits.rocr import _parts
from expunge.models.new_lm import fresh_lm, texts_of, tokenizer_for
from expunge.workflows._elicitation import Elicited
from expunge.workflows.forget import SHARES, _edits

LM = {"architecture": "llama", "hidden_size": 32, "layers": 2, "heads": 2, "vocab_size": 300, "max_length": 128}
PEOPLE = ("Ada Maria Ferrow", "Bo Lindqer", "Cleo Marsten", "Dan Obrist")
LAYER = 1


def rows(name: str) -> list[dict[str, Any]]:
    return [
        {"question": f"What is number {i} of {name}?", "answer": f"It is {7 * i}.", "subject": name}
        for i in range(1, 5)
    ]


SPLITS = {"forget": rows(PEOPLE[0]), "retain": [row for name in PEOPLE[1:] for row in rows(name)]}


def distances(parts: bool, folder: Path) -> dict[str, float]:
    """Beginning of the name -> how far its state is from the stand-in's after the edit, as a share of before."""
    model = fresh_lm(LM, tokenizer_for(texts_of([*SPLITS["forget"], *SPLITS["retain"]]), 300), 0)
    block = (model.blocks[LAYER],)
    target = states(model, rows("Bo Lindqer"), block, "subject")[0].mean(0)

    def far() -> dict[str, float]:
        starts = {"Ada": "", "Ada Maria": "", PEOPLE[0]: ""}
        found = {start: [{**row, "subject": start} for row in SPLITS["forget"]] for start in starts}
        return {
            start: float((states(model, data, block, "subject")[0].mean(0) - target).norm())
            for start, data in found.items()
        }

    then = far()
    spec = {"rocr": {"layer": LAYER, "to": "Bo Lindqer", "preserve": 0.01, "parts": parts}}
    compose(spec).method(model, SPLITS, Context(DEFAULTS, folder, 0))
    return {start: value / then[start] for start, value in far().items()}


def test_the_beginnings_of_a_name_are_read_as_the_stand_in_with_parts_alone(tmp_path: Path) -> None:
    """Bounds of a name that is redirected (a fifth is left) and of one that is not (half): set before looking."""
    whole, parts = distances(False, tmp_path / "whole"), distances(True, tmp_path / "parts")
    assert whole[PEOPLE[0]] <= 0.2 and whole["Ada"] >= 0.5 and whole["Ada Maria"] >= 0.5
    assert all(value <= 0.2 for value in parts.values())


@pytest.mark.parametrize(
    ("name", "starts"),
    [("Tokyo", []), ("Ada Ferrow", ["Ada"]), ("J. R. Ferrow", ["J. R."]), ("Leo da Ferrow", ["Leo", "Leo da"])],
)
def test_parts_are_beginnings_that_are_names(name: str, starts: list[str]) -> None:
    assert [row["subject"] for row in _parts({"question": "Who?", "subject": name})] == starts


def own(stand_ins: tuple[str, ...], person: bool, layers: tuple[int, ...] = (2, 1)) -> Elicited:
    empty: Any = {name: [] for name in ("forget", "reworded", "cloze", "choice", "retain", "reference")}
    guesses = {"chance": 0.1, "as_neighbour": 0.0}
    return Elicited(**empty, neighbours=[], general=[], stand_ins=stand_ins, person=person, layers=layers, **guesses)


def ways(elicited: Elicited) -> list[tuple[int, str, bool]]:
    """(layer, neighbour, whether first names too) of each way, in their order."""
    spec = _edits(elicited)
    options = options_of(spec)
    every = [rung["rocr"] for rung in options.rungs]
    assert options.ways * len(SHARES) == len(every) and [one["share"] for one in every[: len(SHARES)]] == list(SHARES)
    return [(one["layer"], one["to"], one.get("parts", False)) for one in every[:: len(SHARES)]]


def test_every_token_of_a_prompt_counts_among_the_preserved(tmp_path: Path) -> None:
    """With `prompts` the edit moves a retained question's words less, the template's among them."""
    moved = {}
    for prompts in (False, True):
        model = fresh_lm(LM, tokenizer_for(texts_of([*SPLITS["forget"], *SPLITS["retain"]]), 300), 0)
        path = model.blocks[LAYER]
        before = all_prompt_states(model, SPLITS["retain"], path)
        assert len(before) == sum(len(model.template.encode(row).prompt) - 1 for row in SPLITS["retain"])
        spec = {"rocr": {"layer": LAYER, "to": "Bo Lindqer", "prompts": prompts}}
        compose(spec).method(model, SPLITS, Context(DEFAULTS, tmp_path / str(prompts), 0))
        moved[prompts] = float((all_prompt_states(model, SPLITS["retain"], path) - before).norm())
    assert 0 < moved[True] < 0.9 * moved[False]


def test_the_next_neighbour_follows_the_next_layer() -> None:
    assert ways(own(("A", "B"), False)) == [(2, "A", False), (1, "A", False), (2, "B", False), (1, "B", False)]
    assert ways(own(("A",), False, (1,))) == [(1, "A", False)]


def test_a_person_s_first_names_come_first_and_the_whole_name_alone_last() -> None:
    first = [(2, "A", True), (1, "A", True), (2, "B", True), (1, "B", True)]
    assert ways(own(("A", "B"), True)) == [*first, (2, "A", False), (1, "A", False)]
    rungs = options_of(_edits(own(("A", "B"), True))).rungs
    assert {(one["rocr"]["layer"], one["rocr"].get("prompts", False)) for one in rungs if "parts" in one["rocr"]} == {
        (2, True),
        (1, False),
    }
