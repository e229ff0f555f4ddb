"""`method: auto`: what it chooses, how it goes on from a trial, what it costs, and that a killed run ends the same."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import yaml

from expunge.core.contracts import Silent
from expunge.core.errors import BadInput
from expunge.core.files import digest_file
from expunge.core.request import Request
from expunge.evaluation.acceptance import Check, Verdict
from expunge.methods.auto import is_auto, ladders
from expunge.methods.compose import compose
from expunge.models.manifest import retraining_tokens
from expunge.pipeline import comparison, trials
from expunge.pipeline.apply import Applied
from expunge.pipeline.plan import Plan, plan
from expunge.pipeline.trial import Trial
from expunge.pipeline.trials import next_rung
from expunge.workflows.bench import bench
from expunge.workflows.run import run
from worlds import tiny

BUDGET = {"batch_size": 4, "steps": 2, "stop": "none", "floor": 0.0}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A request on a tiny trained base that leaves the method to the tool."""
    request = tiny(tmp_path_factory.mktemp("auto"), epochs=2)
    del request["method"]
    sliced = {split: request[split] + "[0:12]" for split in ("forget", "retain", "holdout")}
    return {**request, **sliced, "budget": BUDGET, "accept": {"forget.nll": ">= 1"}}


def planned(base: dict[str, Any], folder: Path, **fields: Any) -> Plan:
    return plan(Request.parse({**base, "out": str(folder / "run"), **fields}))


def trial(rung: int, *, left: tuple[str, ...] = (), lost: tuple[str, ...] = (), tokens: int = 10) -> Trial:
    return Trial(rung, not (left or lost), lost, left, (), float(len(left + lost)), tokens, 1.0, {})


# -- the choice --------------------------------------------------------------------------------


def test_a_request_without_a_method_leaves_it_to_the_tool(base: dict[str, Any], tmp_path: Path) -> None:
    found = planned(base, tmp_path)
    assert is_auto(found.request.method) and found.ladder is not None and len(found.rungs) > 1
    assert found.composed.described == found.rungs[found.ladder.start].composed.described
    assert found.ladder.why in found.to_json()["choice"]
    assert planned(base, tmp_path, method="npo").to_json().get("choice") is None


def test_no_trial_has_more_steps_than_the_cost_allows(base: dict[str, Any], tmp_path: Path) -> None:
    """Half of the steps at half of what the first trial takes, one at least; the plan says so."""
    own = planned(base, tmp_path, method={"auto": {"exact": False, "cost": 1e-6}})
    assert own.steps == BUDGET["steps"] and "auto.cost" not in own.to_json()["choice"], "what the request says holds"
    base = {**base, "budget": {"batch_size": 4}}
    whole = planned(base, tmp_path, method={"auto": {"exact": False, "cost": 10}})
    retraining = retraining_tokens(whole.manifest, whole.splits)
    assert retraining is not None and "auto.cost" not in whole.to_json()["choice"]
    half = planned(base, tmp_path, method={"auto": {"exact": False, "cost": 0.5 * whole.tokens / retraining}})
    assert half.steps in (whole.steps // 2, whole.steps // 2 - 1) and half.budget.steps == half.steps
    assert f"; {half.steps} of its {whole.steps} steps" in half.to_json()["choice"]
    dear = planned(base, tmp_path, method={"auto": {"exact": False, "cost": 1e-6}})
    assert dear.steps == 1 and all(rung.work.steps == 1 for rung in dear.rungs)


def test_the_plan_of_a_retraining_counts_what_it_trains_on(base: dict[str, Any], tmp_path: Path) -> None:
    """The steps and tokens of the base's training, less the forget set's."""
    found = planned(base, tmp_path, method="retrain")
    assert found.manifest is not None
    share = 1 - len(found.splits["forget"]) / len(found.manifest["hashes"])
    assert found.tokens == pytest.approx(found.manifest["tokens"] * share, rel=0.01)
    assert found.manifest["steps"] * share <= found.steps <= found.manifest["steps"]


@pytest.mark.parametrize("purpose", ["suppress", "erase"])
def test_every_rung_is_a_method(purpose: str) -> None:
    for ladder in ladders(purpose):
        assert 0 <= ladder.start < len(ladder.rungs) and ladder.why
        assert all(compose(rung).name for rung in ladder.rungs)


def test_criteria_on_likelihood_ask_for_more_than_answers_in_words(base: dict[str, Any], tmp_path: Path) -> None:
    words = {"forget.rouge_l": "<= 0.3", "retain.probability": ">= 0.9 * before"}
    assert planned(base, tmp_path, accept=words).composed.name == "wise_ft"
    for deeper in ({"forget.nll": ">= 2"}, {"privacy.loss_auc": "<= 0.7"}):
        assert planned(base, tmp_path, accept={**words, **deeper}).composed.name == "npo + distillation"


@pytest.mark.parametrize("purpose", ["suppress", "erase"])
def test_data_without_retain_have_a_method_too(base: dict[str, Any], tmp_path: Path, purpose: str) -> None:
    without = {name: value for name, value in base.items() if name != "retain"}
    assert planned(without, tmp_path, purpose=purpose).composed.name == "stamp"


def test_a_retraining_that_costs_less_is_chosen_unless_it_is_ruled_out(base: dict[str, Any], tmp_path: Path) -> None:
    long = {**BUDGET, "steps": 100_000}
    assert planned(base, tmp_path, budget=long).composed.name == "retrain"
    allowed = planned(base, tmp_path, budget=long, method={"auto": {"exact": False}})
    assert allowed.composed.name != "retrain"


@pytest.mark.parametrize(
    ("options", "retrains"), [({"cost": 1}, True), ({"cost": 0.99}, False), ({"cost": 1, "exact": False}, False)]
)
def test_who_allows_a_retraining_gets_one(
    base: dict[str, Any], tmp_path: Path, options: dict[str, Any], retrains: bool
) -> None:
    found = planned(base, tmp_path, method={"auto": options})
    assert (found.composed.name == "retrain") == retrains
    assert ("which auto.cost allows" in found.to_json()["choice"]) == retrains


@pytest.mark.parametrize(
    "method, said",
    [
        ({"auto": {"trails": 2}}, "trails"),
        ({"auto": {"trials": 0}}, "trials"),
        ({"auto": "much"}, "is not a mapping of options"),
        ({"auto": {"cost": -1}}, "cost"),
        ({"auto": {"start": 1}}, "none of the 0 rungs"),
        ({"auto": {"rungs": ["npo"], "start": 1}}, "none of the 1 rungs"),
        ({"auto": {"rungs": ["npo", "ga", "npo"], "ways": 2}}, "not 2 ladders of equal length"),
        ({"auto": {"rungs": ["npo", "ga"], "ways": 2, "start": 1}}, "none of the 1 rungs"),
        ({"auto": {"rungs": ["npoo"]}}, "did you mean"),
        ({"auto": {"rungs": ["auto"]}}, "auto"),
    ],
)
def test_faulty_options_are_refused(base: dict[str, Any], tmp_path: Path, method: Any, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        planned(base, tmp_path, method=method)


def test_the_rungs_may_be_the_requests_own(base: dict[str, Any], tmp_path: Path) -> None:
    own = {"rungs": ["ga", "npo", {"npo": {"beta": 0.5}}], "start": 1}
    found = planned(base, tmp_path, method={"auto": own})
    assert [rung.spec for rung in found.rungs] == own["rungs"] and found.composed.name == "npo"
    assert "the request's own rungs" in found.to_json()["choice"]


def test_where_a_way_ends_without_a_pass_the_next_one_follows(base: dict[str, Any], tmp_path: Path) -> None:
    own = {"rungs": ["ga", "npo", {"npo": {"beta": 0.5}}, {"npo": {"beta": 0.05}}], "start": 1, "ways": 2}
    found = planned(base, tmp_path, method={"auto": own})
    left, lost = ("forget.nll >= 1",), ("retain.nll <= 1",)
    assert found.composed.name == "npo" and "up to 4 trials of 4 strengths" in found.to_json()["choice"]
    assert found.words_of(3).startswith("npo")
    assert next_rung({1: trial(1)}, found) is None, "it passed"
    assert next_rung({1: trial(1, lost=lost)}, found) == 0
    assert next_rung({1: trial(1, left=left)}, found) == 3, "nothing is stronger, and the second begins at its start"
    assert next_rung({1: trial(1, lost=lost), 0: trial(0, left=left)}, found) == 3, "nothing lies between"
    second = {1: trial(1, left=left), 3: trial(3, lost=lost)}
    assert next_rung(second, found) == 2
    assert next_rung({**second, 2: trial(2, lost=lost)}, found) is None, "no third way"
    once = planned(base, tmp_path, method={"auto": {**own, "trials": 1}})
    assert next_rung({1: trial(1, lost=lost)}, once) == 3, "each way has its own trials"


# -- the next trial ----------------------------------------------------------------------------


def test_what_is_left_asks_for_more_and_what_is_lost_for_less(base: dict[str, Any], tmp_path: Path) -> None:
    ladder = planned(base, tmp_path)
    assert next_rung({1: trial(1, left=("forget.nll >= 1",))}, ladder) == 2
    assert next_rung({1: trial(1, lost=("retain.nll <= 1",))}, ladder) == 0
    assert next_rung({1: trial(1)}, ladder) is None, "it passed"
    back = {1: trial(1, left=("forget.nll >= 1",)), 2: trial(2, lost=("retain.nll <= 1",))}
    assert next_rung(back, ladder) is None, "the rung below was tried"
    assert next_rung({0: trial(0, lost=("retain.nll <= 1",))}, ladder) is None, "nothing is gentler"


def test_what_only_more_examples_decide_ends_the_trials(base: dict[str, Any], tmp_path: Path) -> None:
    lines = (
        Check("privacy.worst <= 0.1", False, 0.06, 0.1, word="open"),
        Check("forget.rouge_l within 0.1 of gold", False, 0.2, (0.1, 0.3), word="open"),
        Check("retain.nll >= 1", False, 1.5, 1.0),
    )
    applied = Applied(1.0, {}, 0)
    undecided = Trial.of(1, Verdict(False, lines), applied, 10)
    assert len(undecided.undecided) == 3 and not undecided.left and not undecided.lost and not undecided.passed
    assert next_rung({1: undecided}, planned(base, tmp_path)) is None
    missed = Trial.of(1, Verdict(False, (*lines, Check("forget.nll >= 2", False, 1.0, 2.0))), applied, 10)
    assert missed.left == ("forget.nll >= 2",) and missed.shortfall > undecided.shortfall
    assert next_rung({1: missed}, planned(base, tmp_path)) == 2


def test_too_much_forgetting_asks_for_less(base: dict[str, Any], tmp_path: Path) -> None:
    over = Check("forget.nll_above_gold <= 0.6 (over-forgetting)", False, 0.9, 0.6, word="refuted", implied=True)
    found = Trial.of(1, Verdict(False, (over,)), Applied(1.0, {}, 0), 10)
    assert found.lost == (over.rule,) and not found.left
    assert next_rung({1: found}, planned(base, tmp_path)) == 0


def test_golds_cost_counts_beside_that_of_all_trials(base: dict[str, Any], tmp_path: Path) -> None:
    """Where a run stops at gold's figures, gold was needed to unlearn."""
    request = {**base, "gold": "one", "budget": {**BUDGET, "stop": "gold"}, "accept": {"forget.nll": ">= 1000"}}
    found = run(
        {**request, "out": str(tmp_path / "run"), "method": {"auto": {"trials": 2, "cost": 10, "exact": False}}}
    ).evidence
    own = sum(one["tokens"] for one in found["trials"])
    assert len(found["trials"]) == 2 and found["cost"]["tokens"] == own + found["cost"]["gold_tokens"]
    assert any(note.startswith("No trial passed. A retraining forgets exactly") for note in found["notes"])


def test_trials_end_at_their_number_and_at_their_cost(base: dict[str, Any], tmp_path: Path) -> None:
    failed = {1: trial(1, left=("forget.nll >= 1",))}
    assert next_rung(failed, planned(base, tmp_path, method={"auto": {"trials": 1}})) is None
    assert next_rung(failed, planned(base, tmp_path, method={"auto": {"cost": 1e-6}})) is None


@pytest.mark.parametrize("purpose, share", [("suppress", 0.2), ("erase", 0.5)])
def test_what_trials_may_cost_follows_from_the_purpose(
    base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, purpose: str, share: float
) -> None:
    own = planned(base, tmp_path, purpose=purpose, method={"auto": {"exact": False}})
    assert own.ladder is not None
    next_tokens = own.rungs[2].tokens
    monkeypatch.setattr(trials, "retraining_tokens", lambda manifest, splits: round((100 + next_tokens) / share))
    failed = {1: trial(1, left=("forget.nll >= 1",), tokens=99)}
    assert next_rung(failed, own) == 2
    assert next_rung({1: dataclasses.replace(failed[1], tokens=102)}, own) is None


def test_the_next_trial_is_expected_to_exceed_its_plan_as_the_last_one_did(
    base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = planned(base, tmp_path, method={"auto": {"exact": False, "cost": 1.0}})
    twice = {1: trial(1, left=("forget.nll >= 1",), tokens=2 * own.rungs[1].tokens)}
    as_planned = 2 * own.rungs[1].tokens + own.rungs[2].tokens
    monkeypatch.setattr(trials, "retraining_tokens", lambda manifest, splits: as_planned)
    assert next_rung(twice, own) is None
    monkeypatch.setattr(trials, "retraining_tokens", lambda manifest, splits: as_planned + own.rungs[2].tokens)
    assert next_rung(twice, own) == 2


def test_trials_that_end_at_their_cost_say_so(base: dict[str, Any], tmp_path: Path) -> None:
    request = {**base, "accept": {"forget.nll": ">= 1000"}, "gold": "none"}
    method = {"auto": {"cost": 1e-6, "exact": False}}
    notes = run({**request, "out": str(tmp_path / "run"), "method": method}).evidence["notes"]
    assert any(note.startswith("Another strength would take the trials over") for note in notes)


# -- a run -------------------------------------------------------------------------------------


def test_all_trials_count_in_the_cost_and_the_best_one_is_kept(
    base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, compared, all_scores = tmp_path / "run", [], comparison.all_scores
    monkeypatch.setattr(comparison, "all_scores", lambda *given: compared.append(given) or all_scores(*given))
    # No strength meets the second line: every trial fails, and the nearest is kept.
    accept = {"retain.nll": "<= 5 * before", "forget.nll": ">= 1000"}
    found = run(
        {**base, "accept": accept, "out": str(out), "method": {"auto": {"trials": 2, "cost": 10, "exact": False}}}
    ).evidence
    rungs = [one["rung"] for one in found["trials"]]
    assert rungs == [2, 3] and not found["verdict"]["passed"]
    assert len(compared) == 2, "the evidence has the scores of the trial that is kept"
    assert all(one["left"] == ["forget.nll >= 1000"] for one in found["trials"])
    assert found["cost"]["tokens"] == sum(one["tokens"] for one in found["trials"]) > 0
    assert any(note.startswith("Trial 2 (strength 4 of 4") for note in found["notes"])
    best = min(found["trials"], key=lambda one: one["shortfall"])
    ladder = planned(base, tmp_path / "other", accept=accept).ladder
    assert ladder is not None
    parts = compose(ladder.rungs[best["rung"]]).described
    assert found["described"] == parts
    assert not (out / "checkpoint").exists() and (out / "certificate.json").is_file()


@pytest.mark.parametrize("places", [("_adopt",), pytest.param(("observe_saved",), marks=pytest.mark.slow)])
def test_a_run_killed_between_trials_ends_with_the_same_model(
    places: tuple[str, ...], base: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request = {
        **base,
        "accept": {"forget.nll": ">= 1000"},
        "method": {"auto": {"trials": 2, "cost": 10, "exact": False}},
    }
    run({**request, "out": str(tmp_path / "whole")})
    whole = digest_file(tmp_path / "whole" / "model" / "model.safetensors")
    for number, place in enumerate(places):
        killed, calls = {**request, "out": str(tmp_path / f"killed-{number}")}, 0
        real = getattr(trials, place)

        def die(*arguments: Any, real: Any = real, **more: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == 2 or real.__name__ == "_adopt":
                raise SystemExit("killed")
            return real(*arguments, **more)

        monkeypatch.setattr(trials, place, die)
        with pytest.raises(SystemExit):
            run(killed)
        monkeypatch.setattr(trials, place, real)
        evidence = run(killed, resume=True, reporter=Silent()).evidence
        assert digest_file(Path(killed["out"]) / "model" / "model.safetensors") == whole
        assert [one["rung"] for one in evidence["trials"]] == [2, 3]


def test_a_trial_is_read_as_it_was_written() -> None:
    one = trial(2, left=("forget.nll >= 1",), lost=("retain.nll <= 1",))
    assert Trial.from_json(one.to_json()) == one and dataclasses.asdict(one)["rung"] == 2


@pytest.mark.slow
def test_a_bench_compares_what_the_tool_chooses(base: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text(yaml.safe_dump({**base, "accept": {"forget.nll": ">= 1000"}, "gold": "one"}))
    options = ["auto.trials=1,2", "auto.cost=10"]
    found = bench(str(tmp_path / "own.yaml"), methods=["auto"], grid=options, out=str(tmp_path / "board"))
    rows = {row["method"]: row for row in found["rows"]}
    assert set(rows) == {"auto trials=1 cost=10", "auto trials=2 cost=10"}
    assert all(row["status"] == "done" for row in rows.values())
    with pytest.raises(BadInput, match="trials"):
        bench(str(tmp_path / "own.yaml"), methods=["auto"], grid=["auto.trials=0"], out=str(tmp_path / "none"))
