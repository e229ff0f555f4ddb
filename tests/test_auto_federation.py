"""`method: auto` where a client leaves a federation: what is chosen and why, what it costs, what follows a trial."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import test_federated_sisa as sharded
from expunge.core.request import Request
from expunge.pipeline.plan import Plan, plan
from expunge.pipeline.train import train
from expunge.pipeline.trial import Trial
from expunge.pipeline.trials import next_rung
from expunge.workflows.run import run
from test_federation import config, request


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))


def chosen(folder: Path, options: Any = None, **fields: Any) -> Plan:
    """The plan of a request without a method, or with these options of `auto`."""
    given = request(folder, {"auto": options}, **fields)
    if options is None:
        del given["method"]
    return plan(Request.parse(given))


def trained(folder: Path, **options: Any) -> Path:
    return train(config(folder, **{"rounds": 12, **options}))


def trial(rung: int, *, left: tuple[str, ...] = (), lost: tuple[str, ...] = ()) -> Trial:
    return Trial(rung, not (left or lost), lost, left, (), float(len(left + lost)), 1, 1.0, {})


def test_the_leaving_client_s_ascent_is_chosen_and_the_plan_says_why(tmp_path: Path) -> None:
    trained(tmp_path)
    made = chosen(tmp_path)
    assert made.composed.name == "erase_client" and made.spec == {"erase_client": {"rounds": 3}}
    told = made.to_json()["choice"]
    assert "the leaving client must help" in told and "up to 3 trials of 3 strengths" in told and "steps" not in told
    assert not any("reads the rows of all clients in one place" in note for note in made.notes)


@pytest.mark.parametrize("purpose", ["suppress", "erase"])
def test_a_plan_counts_the_rounds_of_those_who_stay(purpose: str, tmp_path: Path) -> None:
    """Three of twelve rounds on the retain rows that train, of which a part is held out; no step of them is cut."""
    trained(tmp_path)
    made = chosen(tmp_path, purpose=purpose)
    assert made.manifest is not None
    share = len(made.splits["retain"]) / len(made.manifest["hashes"])
    assert made.tokens == pytest.approx(made.manifest["tokens"] * share / 4, rel=0.02)
    assert made.steps == pytest.approx(made.manifest["steps"] * share / 4, rel=0.1)
    assert made.rungs[0].tokens == pytest.approx(made.tokens * 5 / 3, rel=0.02)


def test_a_client_that_brings_it_back_asks_for_a_robust_strategy_and_lost_accuracy_for_more_rounds(
    tmp_path: Path,
) -> None:
    trained(tmp_path)
    made = chosen(tmp_path, {"cost": 0.99})
    assert next_rung({1: trial(1, left=("forget.nll >= 1",))}, made) == 2
    assert next_rung({1: trial(1, lost=("test.accuracy >= 0.9",))}, made) == 0
    assert "krum" in str(made.rungs[2].spec) and made.rungs[0].spec == {"erase_client": {"rounds": 5}}
    dear = chosen(tmp_path, {"cost": 0.01})
    assert next_rung({1: trial(1, left=("forget.nll >= 1",))}, dear) is None


@pytest.mark.parametrize(
    ("options", "name", "why"),
    [
        ({"rounds": 2}, "retrain", "and a first trial would take"),
        ({"history": "none"}, "retrain", "what the server kept allows nothing cheaper"),
        ({"strategy": "median"}, "retrain", "what the server kept allows nothing cheaper"),
        ({"strategy": "median", "history": "all"}, "federaser", "every third of them replayed"),
    ],
)
def test_what_the_training_left_decides(options: dict[str, Any], name: str, why: str, tmp_path: Path) -> None:
    trained(tmp_path, **options)
    made = chosen(tmp_path)
    assert made.composed.name == name and why in made.to_json()["choice"]


def test_who_allows_a_retraining_gets_one_and_who_rules_it_out_gets_none(tmp_path: Path) -> None:
    trained(tmp_path, history="none")
    assert chosen(tmp_path, {"cost": 1}).composed.name == "retrain"
    made = chosen(tmp_path, {"exact": False})
    assert made.composed.name != "retrain"
    assert any("reads the rows of all clients in one place" in note for note in made.notes)


def test_a_client_that_asks_for_some_of_its_rows_goes_on_and_has_another_ladder(tmp_path: Path) -> None:
    """The ladders of a departure are for a client that leaves whole."""
    trained(tmp_path)
    made = chosen(tmp_path, {"exact": False}, forget={"where": {"client": 1, "label": 3}})
    assert made.composed.name != "erase_client" and made.splits["forget"]


def test_shards_that_can_delete_exactly_are_taken(tmp_path: Path) -> None:
    train(sharded.config(tmp_path))
    made = plan(sharded.request(tmp_path, {"client": 3}, method="auto"))
    assert made.composed.name == "federated_sisa" and "trained for exact deletion" in made.to_json()["choice"]


def test_trials_are_judged_and_the_best_is_kept(tmp_path: Path) -> None:
    """No strength meets the bar: three rounds, then five; tokens and rounds are those of both."""
    trained(tmp_path)
    given = request(tmp_path, {"auto": {"cost": 0.99, "trials": 2}}, accept={"retain.nll": "<= 0"}, gold="none")
    done = run(Request.parse(given))
    told = json.loads((tmp_path / "run" / "evidence.json").read_text())
    assert [one["rung"] for one in told["trials"]] == [1, 0] and not done.passed
    assert told["cost"]["tokens"] == sum(one["tokens"] for one in told["trials"])
    three, five = (one["tokens"] for one in told["trials"])  # beside the rounds the same ascent
    assert three < five < three * 5 / 3
    assert told["method_notes"]["federation"]["rounds"] in (3, 5)
