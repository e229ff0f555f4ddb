"""expunge tune: what it searches, how it judges, that it goes on, and that its best is a request that runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from expunge.cli.app import run
from expunge.core.contracts import Silent
from expunge.core.errors import BadInput, Interrupted
from expunge.core.request import Request
from expunge.pipeline.plan import plan
from expunge.workflows._search import Curve, objective
from expunge.workflows._search_space import axes, with_values
from expunge.workflows.tune import tune
from worlds import tiny

Go = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A request on a tiny trained base, without gold: the holdout says how much is enough."""
    folder = tmp_path_factory.mktemp("tune")
    request = {
        **tiny(folder, epochs=6),
        "budget": {"batch_size": 6, "stop": "none"},
        "accept": {"retain.probability": ">= 0.5 * before"},
    }
    for split in ("forget", "retain", "holdout"):
        request[split] += "[0:12]"
    return request


@pytest.fixture
def go(capsys: pytest.CaptureFixture[str]) -> Go:
    def command(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        code = run([str(a) for a in arguments])
        said = capsys.readouterr()
        return code, said.out, said.err

    return command


def searched(request: dict[str, Any], folder: Path) -> dict[str, Any]:
    return {axis.name: axis for axis in axes(plan(Request.parse({**request, "out": str(folder / "x")})))}


# -- what is searched --------------------------------------------------------------------------


def test_what_the_request_leaves_open_is_searched(base: dict[str, Any], tmp_path: Path) -> None:
    found = searched(base, tmp_path)
    assert {"budget.share", "budget.epochs", "npo.beta"} <= set(found)
    beta = found["npo.beta"]
    assert (beta.low, beta.default, beta.high) == pytest.approx((0.01, 0.1, 1.0))
    epochs = found["budget.epochs"]
    assert epochs.whole and epochs.low == epochs.default // 4 and epochs.high == 4 * epochs.default


def test_what_the_request_gives_is_left_alone(base: dict[str, Any], tmp_path: Path) -> None:
    given = {**base, "method": {"npo": {"beta": 0.3}}, "budget": {"epochs": 2, "share": 0.05}}
    assert not {"budget.share", "budget.epochs", "npo.beta"} & set(searched(given, tmp_path))
    given = {**base, "budget": {"steps": 2, "learning_rate": 1e-4}}
    assert not [name for name in searched(given, tmp_path) if name.startswith("budget.")]


def test_bounds_are_kept(base: dict[str, Any], tmp_path: Path) -> None:
    """The loss's options inside a wrapper, and a share that cannot pass 1."""
    method = {"spunge": {"by": "group", "inner": "simnpo"}}
    found = searched({**base, "method": method}, tmp_path)
    assert found["simnpo.beta"].path == ("method", "spunge", "inner", "forget", "simnpo", "beta")
    for axis in found.values():
        assert axis.low < axis.high
    keep, scale = found["spunge.keep"], found["spunge.scale"]
    assert (keep.low, keep.high) == pytest.approx((0.02, 1.0)), "a share"
    assert (scale.low, scale.high) == pytest.approx((0.1, 10.0))


def test_the_request_with_values_is_the_request(base: dict[str, Any], tmp_path: Path) -> None:
    """With the defaults in their places the plan is the one of the request as it stands."""
    planned = plan(Request.parse({**base, "out": str(tmp_path / "x")}))
    space = list(axes(planned))
    values = with_values(planned, planned.request.to_dict(), {axis: axis.default for axis in space})
    again = plan(Request.parse(values))
    assert again.composed.described == planned.composed.described
    assert (again.steps, again.learning_rate, again.budget) == (
        planned.steps,
        planned.learning_rate,
        planned.budget.over(again.budget),
    )


# -- how it judges -----------------------------------------------------------------------------


def evidence(forget: float, kept: float, lines: list[dict[str, Any]]) -> dict[str, Any]:
    figures = {
        ("forget_nll", "after"): forget,
        ("retain_probability", "before"): 1.0,
        ("retain_probability", "after"): kept,
    }
    return {
        "scores": [{"name": n, "subject": s, "value": v} for (n, s), v in figures.items()],
        "verdict": {"lines": lines},
    }


def line(rule: str, passed: bool, value: float | None, bound: Any) -> dict[str, Any]:
    return {"rule": rule, "passed": passed, "value": value, "bound": bound, "implied": False}


def test_a_line_of_the_bar_weighs_more_than_any_distance() -> None:
    near = objective(evidence(2.0, 0.4, [line("retain.probability >= 0.5", False, 0.4, 0.5)]), 2.0)
    far = objective(evidence(9.0, 0.6, [line("retain.probability >= 0.5", True, 0.6, 0.5)]), 2.0)
    assert far[0] < near[0]
    assert near == (pytest.approx(10 + 0.2), ["retain.probability >= 0.5"])
    assert far == (pytest.approx(3.5), [])


def test_without_a_line_on_utility_nine_tenths_must_be_left() -> None:
    bar = [line("forget.nll >= 1", True, 2.0, 1.0)]
    assert objective(evidence(2.0, 0.95, bar), 2.0) == (0.0, [])
    assert objective(evidence(2.0, 0.5, bar), 2.0)[1] == ["retain_probability >= 0.9 * before"]
    missing = objective(evidence(2.0, 0.95, [line("retain.utility >= 1", False, None, None)]), 2.0)
    assert missing[0] == 20.0


def test_over_forgetting_is_as_far_as_too_little() -> None:
    assert objective(evidence(3.0, 1.0, []), 2.0)[0] == objective(evidence(1.0, 1.0, []), 2.0)[0] == 0.5


class Trial:
    """Optuna's trial, as far as the curve sees it."""

    def __init__(self, prune_at: int) -> None:
        self.reports: list[tuple[float, int]] = []
        self.prune_at = prune_at

    def report(self, value: float, step: int) -> None:
        self.reports.append((value, step))

    def should_prune(self) -> bool:
        return len(self.reports) >= self.prune_at


def test_the_curve_is_reported_at_each_tenth_and_prunes(tmp_path: Path) -> None:
    import optuna

    log = tmp_path / "log.jsonl"
    lines = [{"stage": "apply", "step": i + 1, "forget_nll": 1.0 + i / 10, "retain_nll": 1.5} for i in range(20)]
    trial = Trial(prune_at=4)
    curve = Curve(trial, log, target=2.0, retain_nll=1.0, reporter=Silent())
    curve.start("apply", 20)
    curve.start("reading", 3)
    curve.advance("reading", 3)
    with pytest.raises(optuna.TrialPruned):
        for i in range(20):
            log.write_text("".join(json.dumps(one) + "\n" for one in lines[: i + 1]))
            curve.advance("apply", i + 1)
    assert curve.open == ["apply", "reading"]
    assert [step for _, step in trial.reports] == [1, 2, 3, 4]
    assert trial.reports[0][0] == pytest.approx((2.0 - 1.05) / 2 + 0.5)


# -- a whole search ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tuned(base: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    out = tmp_path_factory.mktemp("search") / "t"
    request = {**base, "budget": {**base["budget"], "steps": 4}, "out": str(out.parent / "never")}
    return request, tune(request, trials=3, out=str(out))


def test_the_best_is_the_best_of_the_trials(tuned: Any) -> None:
    request, made = tuned
    assert len(made.trials) == 3
    assert made.trials[0]["values"]["npo.beta"] == pytest.approx(0.1), "the recipe as it stands comes first"
    assert len({one["values"]["npo.beta"] for one in made.trials}) == 3
    done = [one for one in made.trials if one["state"] == "done"]
    assert made.best["value"] == min(one["value"] for one in done)
    assert made.passed
    assert not Path(request["out"]).exists()
    assert sorted(p.name for p in made.out.iterdir() if not p.name.startswith(".")) == [
        "best.yaml",
        "caches.jsonl",
        "salt.json",
        "trials.log",
        "tune.json",
    ]


def test_the_best_is_a_request_that_gives_what_the_trial_gave(tuned: Any, go: Go, tmp_path: Path) -> None:
    _, made = tuned
    code, out, _ = go("run", made.out / "best.yaml", "--set", f"out={tmp_path / 'run'}", "--json")
    assert code == 0
    after = {s["name"]: s["value"] for s in json.loads(out)["scores"] if s["subject"] == "after"}
    assert after["forget_nll"] == pytest.approx(made.best["scores"]["forget_nll"], rel=1e-9)


@pytest.mark.parametrize("named", [False, True])
def test_what_auto_starts_with_is_searched_and_named(base: dict[str, Any], go: Go, tmp_path: Path, named: bool) -> None:
    """A request without a method, or with `auto` and options: the best one names the method and runs by itself."""
    request = {**base, "budget": {**base["budget"], "steps": 2}, "out": str(tmp_path / "o")}
    del request["method"]
    if named:
        request["method"] = {"auto": {"exact": False, "trials": 2}}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(request))
    planned = plan(Request.parse(request))
    code, out, err = go("tune", tmp_path / "r.yaml", "--trials", 1, "--json")
    assert (code, err) == (0, "")
    found = json.loads(out)
    assert planned.ladder is not None and found["choice"] == planned.ladder.why
    assert found["method"] == planned.composed.name and found["settings"]["method"] == planned.composed.described
    assert {axis["name"] for axis in found["space"]} >= {"budget.share", "npo.beta"}
    best = yaml.safe_load(Path(found["request"]).read_text())
    assert plan(Request.parse(best)).ladder is None
    code, out, _ = go("tune", tmp_path / "r.yaml", "--trials", 1)
    assert code == 0 and f"Method: {found['method']}, chosen by auto: {found['choice']}. Searched: budget.share" in out


def test_it_goes_on_as_if_it_had_not_been_interrupted(
    tuned: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    request, made = tuned
    calls: list[int] = []
    real = sys.modules["expunge.workflows._search"].run

    def interrupted(*given: Any, **named: Any) -> Any:
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*given, **named)

    monkeypatch.setattr(sys.modules["expunge.workflows._search"], "run", interrupted)
    with pytest.raises(Interrupted, match="Do the same again"):
        tune(request, trials=3, out=str(tmp_path / "t"))
    again = tune(request, trials=3, out=str(tmp_path / "t"))
    assert len(calls) == 4
    assert [one["values"] for one in again.trials] == [one["values"] for one in made.trials]
    assert again.best["value"] == pytest.approx(made.best["value"])


def test_a_bar_that_none_meets_ends_with_1(base: dict[str, Any], go: Go, tmp_path: Path) -> None:
    request = {
        **base,
        "budget": {**base["budget"], "steps": 2},
        "accept": {"forget.nll": ">= 100"},
        "out": str(tmp_path / "o"),
    }
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(request))
    code, out, err = go("tune", tmp_path / "r.yaml", "--trials", 1)
    assert (code, err) == (1, "")
    assert "misses the criteria" in out
    code, out, _ = go("tune", tmp_path / "r.yaml", "--trials", 1, "--json")
    assert code == 1
    assert json.loads(out)["best"]["failing"][0].startswith("forget.nll")


# -- bad input ---------------------------------------------------------------------------------


def test_bad_input(base: dict[str, Any], go: Go, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    cases: list[tuple[dict[str, Any], list[str], str]] = [
        ({}, ["--trials", "0"], "is not a number of trials"),
        ({"method": "npoo"}, [], "did you mean 'npo'?"),
        ({"holdout": None}, [], "nothing says how much forgetting is enough"),
        (
            {"method": {"ga": {}}, "budget": {"steps": 2, "learning_rate": 1e-4, "stop": "none"}},
            [],
            "leaves no number open",
        ),
    ]
    for changes, more, said in cases:
        Path("r.yaml").write_text(yaml.safe_dump({**base, "out": "o", **changes}))
        code, out, err = go("tune", "r.yaml", *more)
        assert (code, out) == (2, ""), err
        assert said in err
        assert [p.name for p in tmp_path.iterdir()] == ["r.yaml"]


def test_another_request_s_trials_are_not_mixed_in(tuned: Any) -> None:
    request, made = tuned
    with pytest.raises(BadInput, match="trials of another request"):
        tune({**request, "method": "simnpo"}, trials=3, out=str(made.out))
