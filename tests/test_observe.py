"""A plan is never changed, and a model is observed in one way: what is read, attacked and asked follows from its
role."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from expunge.core.budget import DEFAULTS, Budget
from expunge.core.context import Context
from expunge.core.contracts import Model, Silent
from expunge.core.errors import BadInput
from expunge.core.request import Request
from expunge.data.content import content_keys
from expunge.data.sampling import halves
from expunge.evaluation.attack import Found
from expunge.evaluation.scores import measure
from expunge.methods.compose import compose
from expunge.models.build import training_data
from expunge.models.open import open_model
from expunge.pipeline import slowdown
from expunge.pipeline.observation_spec import ObservationSpec, reading_splits, spec_of
from expunge.pipeline.observe import Observation, observe
from expunge.pipeline.partition import TRAINED_ON
from expunge.pipeline.plan import Plan, plan
from expunge.pipeline.prepare import prepare
from worlds import pairs, tiny, write


@pytest.fixture(scope="module")
def planned(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    folder = tmp_path_factory.mktemp("observe")
    values: dict[str, Any] = {**tiny(folder, epochs=1), "gold": "none", "audit": "deep"}
    return plan(Request.parse(values | {"out": str(folder / "out")}))


@pytest.fixture(scope="module")
def model(planned: Plan) -> Model:
    return open_model(planned.source)


def test_a_plan_is_never_changed(planned: Plan, tmp_path: Path) -> None:
    for part in dataclasses.fields(Plan):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(planned, part.name, None)
    before = dataclasses.asdict(dataclasses.replace(planned, composed=None))  # type: ignore[arg-type]
    prepare(planned, tmp_path, Silent())
    assert dataclasses.asdict(dataclasses.replace(planned, composed=None)) == before  # type: ignore[arg-type]


def test_an_observation_is_never_changed() -> None:
    for part in dataclasses.fields(Observation):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(Observation(), part.name, None)


def test_the_request_says_what_is_observed(planned: Plan) -> None:
    spec = spec_of(planned)
    assert spec.level == "deep" and spec.alignment is None and spec.seed == planned.request.seed
    assert spec.splits == reading_splits(planned) and spec.manifest == planned.manifest


def test_evidence_reads_what_the_method_never_gets(planned: Plan) -> None:
    """A third of retain, by whole groups, and half of the holdout are read, and no method has them; gold's data come
    from the manifest, and hold both parts."""
    given, read = planned.training_splits, spec_of(planned).splits
    assert len(read["retain"]) == 36 and len(given["retain"]) == 84
    groups = {name: {row["group"] for row in rows} for name, rows in read.items()}
    assert not groups["retain"] & {row["group"] for row in given["retain"]}
    assert groups["retain_seen"] <= {row["group"] for row in given["retain"]} and len(read["retain_seen"]) == 48
    stopping, audited = halves(planned.splits["holdout"], planned.request.seed)
    assert read["holdout"] == audited and not {row["group"] for row in stopping} & groups["holdout"]
    assert planned.manifest is not None
    known = content_keys(training_data(planned.manifest, planned.splits["forget"], False))
    assert known == content_keys([*given["retain"], *planned.splits["retain_held_out"]])


@pytest.mark.parametrize("method", ["npo", "rmu", "ssd", "eco", "in_context"])
def test_no_method_gets_what_is_held_out(planned: Plan, method: str) -> None:
    made = plan(planned.request.model_copy(update={"method": method, "budget": Budget(stop="none")}))
    assert set(made.training_splits) == {"forget", "retain", *(["holdout"] if method == "eco" else [])}
    assert made.splits["retain"] == made.training_splits["retain"] == planned.splits["retain"]


def test_holdout_rows_that_a_method_reads_are_not_audited(planned: Plan) -> None:
    """ECO's search takes the stopping half, whatever the stopping rule; a method that reads none leaves it whole."""
    of = {
        method: plan(planned.request.model_copy(update={"method": method, "budget": Budget(stop="none")}))
        for method in ("eco", "ssd")
    }
    _, audited = halves(planned.splits["holdout"], planned.request.seed)
    assert spec_of(of["eco"]).splits["holdout"] == audited and len(audited) < len(planned.splits["holdout"])
    assert spec_of(of["ssd"]).splits["holdout"] == planned.splits["holdout"]


def test_where_retain_is_small_its_figures_say_that_it_was_trained_on(
    planned: Plan, model: Model, tmp_path: Path
) -> None:
    few = write(tmp_path / "few.jsonl", pairs(4, 15))
    made = plan(planned.request.model_copy(update={"retain": few, "audit": "none"}))
    assert "retain_held_out" not in made.splits and any(TRAINED_ON in note for note in made.notes)
    assert not any(TRAINED_ON in note for note in planned.notes)
    for one, remark in ((made, TRAINED_ON), (planned, "")):
        spec = dataclasses.replace(spec_of(one), level="none")
        reads = {role: observe(model, role, spec, Silent()).readouts for role in ("before", "after")}
        scores = measure(reads, model.capabilities)
        whys = {(s.name, s.role): s.why for s in scores}
        assert whys["retain_nll", "after"] == remark and whys["retain_nll", "before"] == ""
        assert not any(TRAINED_ON in s.why for s in scores if s.split != "retain")


def test_neighbours_and_general_text_are_utility_that_no_method_gets(planned: Plan, model: Model) -> None:
    """Given with `data`, they are taken out of what it leaves to retain; shared with what trains, they are refused."""
    rows, other = pairs(4, 24), [{"question": f"Which way is {i}?", "answer": "North."} for i in range(8)]
    given = {"retain": None, "data": [*pairs(0, 4), *rows], "neighbours": rows[:6], "general": other, "audit": "none"}
    made = plan(planned.request.model_copy(update=given))
    assert not content_keys(made.training_splits["retain"]) & content_keys(rows[:6])
    assert len(made.splits["retain"]) + len(made.splits["retain_held_out"]) == len(rows) - 6
    assert not {"neighbours", "general"} & set(made.training_splits)
    observed = observe(model, "after", spec_of(made), Silent())
    sides = {(s.name, s.side, s.n) for s in measure({"after": observed.readouts}, model.capabilities)}
    assert {("neighbours_nll", "utility", 6), ("general_nll", "utility", 8)} <= sides
    for shared in ({"retain": rows}, {"forget": rows[:3]}, {"reference": rows[3:4]}):
        with pytest.raises(BadInput, match=f"neighbours: 'row .' is also in {next(iter(shared))}"):
            plan(planned.request.model_copy(update={**given, **shared}))


def test_the_model_before_is_read_and_attacked_as_a_control(planned: Plan, model: Model) -> None:
    """A deep audit keeps its weights, with which attacks on the next models compare; what starts from direct questions
    needs no control."""
    observed = observe(model, "before", ObservationSpec(spec_of(planned).splits, "deep"), Silent())
    assert (
        set(observed.readouts) == {"forget", "retain", "retain_seen", "holdout"}
        and observed.fingerprint == model.fingerprint()
    )
    assert not observed.states and observed.slowdown is None
    assert isinstance(observed.attacks["sampled"], Found)
    assert "starts from direct questions" in str(observed.attacks["relearn_forget"])
    assert "compares other models with this one" in str(observed.attacks["weight_distance"])
    assert observed.direct_N is not None and len(observed.direct_N) == len(observed.attacked)
    assert set(observed.weights) == set(model.module.state_dict())


def test_no_level_means_no_attack_and_no_copy_of_weights(planned: Plan, model: Model) -> None:
    spec = ObservationSpec(spec_of(planned).splits)
    for role in ("before", "gold", "after"):
        observed = observe(model, role, spec, Silent())
        assert observed.readouts["forget"].role == role
        assert not observed.attacks and not observed.weights and not observed.attacked


def test_attacks_compare_with_the_earlier_observations_alone(
    planned: Plan, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Gold is attacked with the model before at hand, and the changed model with both; an empty gold counts as none."""
    targets = []
    monkeypatch.setattr("expunge.evaluation.attack.attack", lambda level, target, *more: targets.append(target) or {})
    spec = ObservationSpec(spec_of(planned).splits, "deep", seed=planned.request.seed)
    before = observe(model, "before", spec, Silent())
    gold = observe(model, "gold", spec, Silent(), against={"before": before})
    observe(model, "after", spec, Silent(), against={"before": before, "gold": gold})
    observe(model, "after", spec, Silent(), against={"before": before, "gold": Observation(why="none")})
    assert [list(target.plain) for target in targets] == [
        ["before"],
        ["before", "gold"],
        ["before", "gold", "after"],
        ["before", "after"],
    ]
    assert [set(target.weights) for target in targets] == [set(), {"before"}, {"before", "gold"}, {"before"}]
    assert set(gold.states) == set(model.blocks) and "gold" in targets[2].states and "after" not in targets[2].states
    assert len(gold.attacked) == len(spec.splits["forget"])


@pytest.mark.parametrize("method", ["npo", "ssd"])
def test_the_forget_nll_of_gold_is_the_target_where_the_budget_stops_at_gold(
    method: str, planned: Plan, tmp_path: Path
) -> None:
    """For objectives and for edits; inner runs, which may have a part of the forget set, know none."""
    budget = Budget(steps=2, batch_size=4, stop="gold").over(DEFAULTS)
    context = Context(budget, tmp_path, manifest=planned.manifest, gold_forget_nll=1.25)
    assert context.child("inner").gold_forget_nll is None
    compose(method).method(open_model(planned.source), planned.splits, context)
    notes = context.notes
    assert (notes["outcome"]["stop"]["target_nll"] if method == "npo" else notes["strength"]["level"]) == 1.25


class Timed:
    """A model whose forwards take so many seconds on the test's clock."""

    def __init__(self, seconds: float, clock: list[float]) -> None:
        self.seconds, self.clock, self.forwards = seconds, clock, 0

    def collate(self, rows: Any) -> Any:
        return rows

    def forward(self, batch: Any) -> None:
        self.forwards += 1
        self.clock[0] += self.seconds


@pytest.mark.parametrize(("seconds", "forwards"), [(0.5, 3), (5.0, 1)])
def test_a_long_forward_is_timed_once(seconds: float, forwards: int, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    guarded, bare = Timed(1.5 * seconds, clock), Timed(seconds, clock)
    monkeypatch.setattr(slowdown, "guards_of", lambda model: ["a guard"])
    monkeypatch.setattr(slowdown, "bare_model", lambda model: bare)
    monkeypatch.setattr(slowdown, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    assert slowdown.slowdown(guarded, {"forget": [{"text": "a"}]}) == 1.5
    assert (guarded.forwards, bare.forwards) == (forwards, forwards)
