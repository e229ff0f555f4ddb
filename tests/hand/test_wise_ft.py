"""WiSE-FT by hand: the share of the change that is kept."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.contracts import Method, Model
from expunge.core.errors import BadInput
from expunge.data.worlds.digits import digits
from expunge.methods.compose import compose
from expunge.methods.wrappers.wise_ft import Answers, interpolate, wise_ft
from expunge.models.build import fresh
from expunge.pipeline.partition import method_splits
from expunge.training.stopping import figures

DIGITS = {"factory": "expunge.models.networks:Digits", "arguments": {"width": 8}}


@pytest.fixture(scope="module")
def splits() -> dict[str, list[dict[str, Any]]]:
    rows = digits()["train"]
    forget = [row for row in rows if row["label"] == 3][:24]
    return {"forget": forget, "retain": [row for row in rows if row["label"] != 3][:96]}


@pytest.fixture
def model(splits: dict[str, list[dict[str, Any]]]) -> Model:
    """A small network that knows these rows."""
    rows = [*splits["forget"], *splits["retain"]]
    found = fresh(DIGITS, rows, 5)
    optimiser = torch.optim.AdamW(found.module.parameters(), lr=1e-2)
    for _ in range(60):
        found.forward(found.collate(rows)).nll.backward()
        optimiser.step()
        optimiser.zero_grad()
    return found


def test_the_ends_are_the_models_themselves() -> None:
    before, after = (
        {"w": torch.tensor([0.1, 3.0]), "n": torch.tensor(1)},
        {"w": torch.tensor([0.7, -1.0]), "n": torch.tensor(9)},
    )
    assert torch.equal(interpolate(before, after, 0.0)["w"], before["w"])
    assert torch.equal(interpolate(before, after, 1.0)["w"], after["w"])
    assert torch.allclose(interpolate(before, after, 0.25)["w"], torch.tensor([0.25, 2.0]))
    assert interpolate(before, after, 0.0)["n"] == 9


def test_so_much_of_a_destructive_change_is_kept_as_the_floor_allows(
    model: Model, splits: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    start = figures(model, splits["retain"])["accuracy"]

    def destroy(model: Model, splits: Mapping[str, Any], context: Context) -> Model:
        other = fresh(DIGITS, splits["retain"], 9).module.state_dict()
        model.module.load_state_dict(other)
        return model

    kept = {}
    for floor in (0.9, 0.5):
        folder = tmp_path / str(floor)
        folder.mkdir()
        weights = {name: value.clone() for name, value in model.module.state_dict().items()}
        context = Context(Budget(floor=floor, stop="none"), folder)
        changed = wise_ft(inner=Method(destroy))(model, splits, context)
        kept[floor] = context.notes["wise_ft"]["strength"]
        assert figures(changed, splits["retain"])["accuracy"] >= floor * start
        model.module.load_state_dict(weights)
    assert 0 < kept[0.9] <= kept[0.5] < 1.0, "the whole of it knows nothing"


def test_a_change_that_no_share_of_which_holds_the_floor_is_taken_back(
    model: Model, splits: dict[str, list[dict[str, Any]]], tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in model.module.state_dict().items()}

    def poison(model: Model, splits: Mapping[str, Any], context: Context) -> Model:
        with torch.no_grad():
            for parameter in model.module.parameters():
                parameter.fill_(float("nan"))
        return model

    context = Context(Budget(floor=0.9, stop="none"), tmp_path)
    changed = wise_ft(inner=Method(poison), points=3)(model, splits, context)
    assert context.notes["wise_ft"] == {"strength": 0.0}
    assert all(torch.equal(value, before[name]) for name, value in changed.module.state_dict().items())


class Oracle:
    """Answers truly, until so much of a change is put that it answers "nothing of it"."""

    def __init__(self) -> None:
        self.share = 0.0

    def put(self, share: float) -> None:
        self.share = share

    def generate(self, rows: Sequence[Mapping[str, Any]]) -> list[str]:
        return [row["answer"] if self.share < row["gone_at"] else "nothing of it" for row in rows]


def answers_of(oracle: Oracle, splits: Mapping[str, Any], folder: Path, slack: float = 1.0) -> Answers:
    return Answers.of(cast(Model, oracle), splits, Context(Budget(), folder), slack)


def test_no_more_of_a_change_is_kept_than_the_answers_need_to_go(tmp_path: Path) -> None:
    forget = [{"question": f"q{i}", "answer": f"the answer {i}", "gone_at": i / 10} for i in range(1, 7)]
    unseen = [{"question": f"u{i}", "answer": "nothing seen", "gone_at": 0.0, "group": i} for i in range(4)]
    oracle = Oracle()
    found = answers_of(oracle, {"forget": forget, "holdout": unseen}, tmp_path)
    assert found.level == pytest.approx(0.5), "of the two words of an answer about what it never saw it says one"
    assert found.least_share(cast(Model, oracle), oracle.put, 10) == pytest.approx(
        {"strength": 0.3, "rouge_l": 0.5, "level": 0.5}
    )
    assert oracle.share == 0.3
    lenient = answers_of(Oracle(), {"forget": forget, "holdout": unseen}, tmp_path, slack=1.4)
    assert lenient.level == pytest.approx(0.7)
    assert lenient.least_share(cast(Model, oracle), oracle.put, 10)["strength"] == 0.2


def test_a_change_that_leaves_the_answers_is_kept_whole(tmp_path: Path) -> None:
    forget = [{"question": "q", "answer": "the answer", "gone_at": 2.0}]
    oracle = Oracle()
    found = answers_of(oracle, {"forget": forget, "retain": [{"question": "r", "answer": "the other"}]}, tmp_path)
    assert found.level == pytest.approx(0.5), "without a holdout: somebody who gives a retain example's answer"
    kept = found.least_share(cast(Model, oracle), oracle.put, 10)
    assert kept["strength"] == 1.0 == oracle.share and kept["rouge_l"] == 1.0


def test_where_words_tell_nothing_the_change_is_kept_whole(tmp_path: Path) -> None:
    forget = [{"text": "a text that nobody asks for", "answer": "", "gone_at": 0.0}]
    oracle = Oracle()
    found = answers_of(oracle, {"forget": forget, "retain": [{"text": "another text"}]}, tmp_path)
    assert found.before <= found.level
    assert found.least_share(cast(Model, oracle), oracle.put, 10)["strength"] == 1.0 == oracle.share


@pytest.mark.parametrize("options", [{}, {"until": "answers", "share": 0.5}])
def test_a_slack_that_nothing_reads_is_refused(options: dict[str, Any]) -> None:
    with pytest.raises(BadInput, match=r"slack.*has no effect"):
        compose({"wise_ft": {"slack": 1.2, **options}})


def test_the_level_comes_from_the_holdout_under_every_stop() -> None:
    composed = compose({"wise_ft": {"until": "answers", "inner": "npo"}})
    assert all("holdout" in method_splits(composed, Budget(stop=stop)) for stop in ("none", "holdout"))
    within = compose({"coreset": {"inner": {"wise_ft": {"until": "answers"}}}})
    assert "holdout" in method_splits(within, Budget(stop="none")), "also where another wrapper is around it"
