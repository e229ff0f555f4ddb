"""The self-test: models of known truth come out as they must, and a verdict that lets them pass is caught."""

from __future__ import annotations

import dataclasses
import functools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import expunge
from expunge.cli.app import run as command
from expunge.core.contracts import Silent
from expunge.data.worlds import splits as splits_of
from expunge.evaluation import implied, plausibility
from expunge.evaluation.acceptance import Check, Verdict
from expunge.evaluation.reading import read
from expunge.evaluation.scores import requirements
from expunge.models.build import fresh
from expunge.models.guarded import bare_model
from expunge.models.judges import judges_of
from expunge.models.open import open_model
from expunge.models.passes import passes
from expunge.pipeline.gold_check import Origin
from expunge.workflows import selftest as workflow
from expunge.workflows._control_models import masked_model, noisy_model, random_model, scribbling_model
from expunge.workflows._control_settings import Setting, authors_setting, digits_setting, model_setting
from expunge.workflows._controls import CONTROLS, DRAWING, HIDING, Control, retrained_control
from expunge.workflows.selftest import (
    NAMES,
    ControlResult,
    Selftest,
    _Judging,
    _outcome_of,
    _result,
    controls_of,
    run_controls,
)

PAGE = Path(__file__).parents[1] / "docs" / "selftest.md"
RECORDS = 60
"""Too few to show anything: all controls but that the retrained model passes."""


@pytest.fixture(scope="module")
def judging() -> _Judging:
    return _Judging(digits_setting(RECORDS))


@pytest.fixture(scope="module")
def setting(judging: _Judging) -> Setting:
    return judging.setting


@pytest.mark.parametrize("control", [*CONTROLS, retrained_control(False)], ids=lambda control: control.name)
def test_a_control_comes_out_as_it_must(judging: _Judging, control: Control) -> None:
    result = _result(judging, control)
    assert result.right, f"{result.outcome}: {result.line} {result.why}"


def test_a_verdict_that_lets_everything_pass_is_caught(judging: _Judging, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "judge", lambda *_: Verdict(True, ()))
    wrong = [control.name for control in CONTROLS if _result(judging, control).right is False]
    assert wrong == [control.name for control in CONTROLS if control.expected != "refused"]


def test_a_verdict_that_lets_nothing_pass_is_caught(judging: _Judging, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(workflow, "judge", lambda *_: Verdict(False, (Check("x", False, word="refuted"),)))
    assert _result(judging, retrained_control(False)).right is False


def test_a_fault_of_ours_is_not_taken_for_a_refusal(judging: _Judging, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Verdict:
        raise ValueError("a fault")

    monkeypatch.setattr(workflow, "judge", broken)
    with pytest.raises(ValueError, match="a fault"):
        _result(judging, CONTROLS[0])


def test_answers_are_written_where_a_line_of_erasure_needs_them(setting: Setting) -> None:
    """Of the forget set alone: they are what takes longest."""
    abilities = frozenset({"tokens", "generate"})
    wanted = requirements(abilities, ["forget", "retain", "holdout"], NAMES)
    assert [split for split, channels in wanted.items() if "generation" in channels] == ["forget"]
    assert not any("variants" in channels for channels in wanted.values())
    whole = requirements(abilities, ["forget", "retain", "holdout"])
    assert "generation" in whole["retain"] and all(wanted[split] <= whole[split] for split in whole)
    assert not {control.name for control in HIDING} & {control.name for control in controls_of(setting)}


def test_the_line_that_decides_is_a_refuted_one_before_an_open_one() -> None:
    lines = [
        Check("shown", True, word="shown"),
        Check("open", False, word="open"),
        Check("warns", False, word="refuted", warns=True),
        Check("refuted", False, word="refuted"),
    ]
    assert _outcome_of(Verdict(False, tuple(lines))) == ("failed", lines[3])
    assert _outcome_of(Verdict(False, tuple(lines[:3]))) == ("open", lines[1])
    assert _outcome_of(Verdict(True, tuple(lines[:1]))) == ("passed", None)
    assert _outcome_of(Verdict(None, ())) == ("no verdict", None)


@pytest.mark.parametrize(
    ("expected", "right"),
    [
        ("failed", {"open", "failed"}),
        ("failed or refused", {"open", "failed", "refused"}),
        ("refused", {"refused"}),
        ("passed", {"passed"}),
        ("not refuted", {"passed", "open"}),
    ],
)
def test_outcomes_are_right_or_wrong(expected: Any, right: set[str]) -> None:
    control = Control("x", "", "base", expected=expected)
    for outcome in ("passed", "open", "failed", "refused", "no verdict"):
        assert ControlResult("digits", control, outcome).right == (outcome in right)  # type: ignore[arg-type]
    assert ControlResult("digits", control, "not run").right is None


def test_a_mask_answers_its_rows_as_the_other_model_does_and_no_others(setting: Setting) -> None:
    rows = [*setting.splits["forget"][:3], *setting.splits["retain"][:3]]
    masked, other = masked_model(setting.base, setting.golds[0], rows[:3]), setting.golds[0]()
    mixed = _nll(masked, rows)
    assert np.allclose(mixed[:3], _nll(other, rows)[:3]) and np.allclose(mixed[3:], _nll(setting.base(), rows)[3:])
    assert not np.allclose(mixed[:3], _nll(setting.base(), rows)[:3])
    assert masked.fingerprint() != setting.base().fingerprint()


def test_models_of_known_truth_leave_the_base_alone(setting: Setting) -> None:
    before = setting.base().fingerprint()
    changed = [random_model(setting.base, 0), random_model(setting.base, 1), noisy_model(setting.base, 0)]
    prints = [json.dumps(model.fingerprint()) for model in changed]
    assert len({*prints, json.dumps(before)}) == 4 and setting.base().fingerprint() == before
    rows = setting.splits["forget"]
    assert np.allclose(_nll(changed[2], rows), _nll(setting.base(), rows), rtol=0.05, atol=0.05)
    assert abs(_nll(changed[0], rows).mean() - _nll(setting.base(), rows).mean()) > 0.5


def _nll(model: Any, rows: list[dict[str, Any]]) -> np.ndarray:
    found = np.zeros(len(rows))
    with torch.no_grad():
        for places, out in passes(model, rows):
            found[places] = out.nll_B.numpy()
    return found


def test_the_page_has_every_control_and_maps_every_false_proof(setting: Setting) -> None:
    text = PAGE.read_text(encoding="utf-8")
    first, second = text.split("## False proofs")
    rows = [[cell.strip() for cell in row.strip("| ").split("|")] for row in re.findall(r"^\| .*", first, re.M)]
    controls = [*CONTROLS, *HIDING, *DRAWING, retrained_control(False)]
    assert [row[0] for row in rows[1:]] == [control.name for control in controls]
    assert all(row[2].startswith(control.expected) for row, control in zip(rows[1:-1], controls[:-1], strict=True))
    proofs = re.findall(r"^\| .*\((\w[\w-]*)\) \| (.*) \|$", second, re.M)
    assert len({package for package, _ in proofs}) == 9
    known = {control.name for control in controls}
    assert all(set(named.split(", ")) <= known for _, named in proofs)


# -- the command -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--forget", "f.jsonl"], "forget: 'f.jsonl' goes with a model, and none is named; name the model"),
        (["nowhere"], "forget: is missing; give what the model should forget: --forget FILE"),
        (["nowhere", "--forget", "nothing.jsonl"], "forget: 'nothing.jsonl'"),
    ],
)
def test_bad_input_is_named(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(["selftest", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_an_unknown_field_is_named() -> None:
    with pytest.raises(expunge.BadInput, match="did you mean 'holdout'"):
        expunge.selftest("model", forget="f.jsonl", hold_out="h.jsonl")


def test_a_model_without_manifest_needs_a_gold_model(setting: Setting, tmp_path: Path) -> None:
    model, data = _files(setting, tmp_path)
    with pytest.raises(expunge.BadInput, match="gold: is missing, and the model has no training manifest"):
        expunge.selftest(model, **data)


def test_a_gold_that_is_none_is_bad_input(setting: Setting) -> None:
    """Against it every control would fail, and the self-test pass."""
    wrong = dataclasses.replace(setting, golds=(setting.base,), gold="base", origin=Origin())
    with pytest.raises(expunge.BadInput, match="gold: 'base' is not a gold model: its weights are those of the model"):
        run_controls(wrong, Silent())


def test_rows_and_exit_code(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    results = [
        ControlResult("digits", CONTROLS[0], "failed", "robustness.hidden <= 0.1", "hidden, not removed"),
        ControlResult("digits", CONTROLS[1], "passed"),
        ControlResult("digits", CONTROLS[4], "not run", why="no holdout was given"),
    ]
    for shown, code in ((results, 1), (results[:1], 0), (results[2:], 0)):
        monkeypatch.setattr(workflow, "selftest", lambda *_, shown=shown, **__: Selftest(tuple(shown), 1.5))
        assert command(["selftest"]) == code
        text = " ".join(capsys.readouterr().out.split())
        assert all(result.control.name in text for result in shown)
        assert command(["selftest", "--json"]) == code
        found = json.loads(capsys.readouterr().out)
        assert found["passed"] is (code == 0) and len(found["controls"]) == len(shown)
        assert set(found["controls"][0]) == {
            *("setting", "control", "what", "expected", "outcome", "right", "line", "why"),
        }
    assert "Wrong" not in text and "0 of 1 controls came out right, 1 not run" in text


def _files(setting: Setting, folder: Path) -> tuple[str, dict[str, str]]:
    """The setting's base and data as a user has them."""
    (folder / "base").mkdir()
    setting.base().save(folder / "base")
    data = {}
    for name, rows in setting.splits.items():
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        data[name] = str(path)
    return str(folder / "base"), data


@pytest.mark.slow
def test_controls_of_a_user_s_model(setting: Setting, tmp_path: Path) -> None:
    model, data = _files(setting, tmp_path)
    golds = []
    for i, opened in enumerate(setting.golds[:2]):
        (tmp_path / f"gold{i}").mkdir()
        opened().save(tmp_path / f"gold{i}")
        golds.append(str(tmp_path / f"gold{i}"))
    before = open_model(model).fingerprint()
    found = expunge.selftest(model, **data, gold=golds)
    assert found.passed and all(result.right for result in found.results)
    assert found.results[-1].control.name == "retrained"
    assert open_model(model).fingerprint() == before
    alone = expunge.selftest(model, **data, gold=golds[0])
    assert "retrained" not in {result.control.name for result in alone.results}


# -- where the records suffice ---------------------------------------------------------------------

HIDDEN = ("hidden_mean", "hidden_share", "hidden_worst")
DEFENCES = {
    "untouched": (*HIDDEN, "worst_attacker", "nll_below_gold"),
    "random": ("hidden_share", "hidden_worst", "nll_below_gold"),
    "collapsed": (*HIDDEN, "nll_below_gold"),
    "diverged": (*HIDDEN, "worst_attacker", "over_forgetting"),
    "over-forgotten": (*HIDDEN, "worst_attacker", "over_forgetting", "nll_above_gold"),
    "masked": ("worst_attacker", *HIDDEN),
    "a tenth left": ("worst_attacker", *HIDDEN),
    "copied gold": ("known_before", "unseen_forget_set", "check_gold"),
    "noisy gold": ("known_before", "unseen_forget_set", "check_gold"),
    "random gold": ("worst_attacker", "check_gold"),
    "unknown subject": ("hidden_share", "hidden_worst", "worst_attacker", "nll_below_gold", "known_before"),
    "few records": (
        "worst_attacker",
        "nll_above_gold",
        "known_before",
        "nll_below_gold",
        "hidden_worst",
        "hidden_share",
    ),
    "members as holdout": ("unseen_holdout",),
    "failed attack": ("hidden_mean",),
    "missing figures": ("hidden_share", "hidden_worst", "worst_attacker", "over_forgetting"),
    "impossible figures": (*HIDDEN, "worst_attacker", "nll_below_gold"),
    "nothing read": (*HIDDEN, "worst_attacker", "over_forgetting"),
}
"""Control -> all that keeps it from passing: functions that make a line of the verdict, or that check gold; the surest
last."""


@pytest.fixture(scope="module")
def enough() -> _Judging:
    """Digits with records enough that a retrained model passes."""
    return _Judging(digits_setting())


def remove_defence(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if name == "check_gold":
        monkeypatch.setattr(workflow, name, lambda gold, *_: gold)
    else:
        monkeypatch.setattr(plausibility if hasattr(plausibility, name) else implied, name, lambda *_: None)


@pytest.mark.slow
@pytest.mark.parametrize("control", [*CONTROLS, retrained_control(True)], ids=lambda control: control.name)
def test_with_enough_records_too_a_control_comes_out_as_it_must(enough: _Judging, control: Control) -> None:
    result = _result(enough, control)
    assert result.right, result.to_json()
    assert enough.setting.certain and (result.outcome == "passed") is (control.name == "retrained")


@pytest.mark.slow
@pytest.mark.parametrize("name", DEFENCES)
def test_without_its_defences_a_control_comes_out_wrong(
    enough: _Judging, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With all of them taken out of the verdict it passes: it failed for these reasons, and not by accident."""
    (control,) = [one for one in CONTROLS if one.name == name]
    for defence in DEFENCES[name]:
        assert _result(enough, control).right, f"caught before {defence} is gone"
        remove_defence(defence, monkeypatch)
    assert _result(enough, control).outcome == "passed"


@pytest.mark.slow
def test_controls_of_what_draws_do_not_pass_on_a_network_too_small_to_draw() -> None:
    """Untrained networks, so that every other line is open or refuted too: each control is made, read and judged."""
    world = splits_of("digits_diffusion", 0)
    rows = {"forget": world["train"][:16], "retain": world["train"][16:216], "holdout": world["holdout"][:16]}
    spec = {"diffusion": "unet2d", "widths": [4, 8], "times": 20}
    opens = [functools.partial(fresh, spec, [], seed) for seed in range(3)]
    tiny = _Judging(Setting("tiny", rows, opens[0], tuple(opens[1:]), {"learning_rate": 1e-3}, draws=True))
    for control in DRAWING:
        result = _result(tiny, control)
        assert result.right and result.outcome in ("open", "failed"), result.to_json()
    noise, drawn = (scribbling_model(opens[1]), opens[1]())
    for model in (noise, drawn):
        bare_model(model).judges = judges_of(rows)
    one, other = (read(model, "forget", rows["forget"], {"picture"}, cache=False) for model in (noise, drawn))
    assert np.array_equal(one.nll_N, other.nll_N) and not np.array_equal(one.own["picture"], other.own["picture"])


@pytest.mark.slow
def test_a_diffusion_model_of_digits() -> None:
    """An untouched pipeline, one that draws noise and one whose judges fail on half of its pictures do not pass: each
    by the line that is about it. The retrained one is refuted by none."""
    world = splits_of("digits_diffusion", 0)
    own = {True: "forget", False: "retain"}
    rows = {name: [row for row in world["train"] if (row["label"] == 3) == gone] for gone, name in own.items()}
    rows["holdout"] = [row for row in [*world["holdout"], *world["test"]] if row["label"] == 3]  # gold knows no class 3
    setting = model_setting("digits", "builtin:digits_diffusion", rows, (), Silent())
    found = {result.control.name: result for result in run_controls(setting, Silent())}
    assert set(found) == {control.name for control in [*CONTROLS, *DRAWING, retrained_control(False)]}
    assert all(result.right is not False for result in found.values()), [r.to_json() for r in found.values()]
    lines = dict.fromkeys(("untouched", "label overwritten", "half unjudged"), "robustness.hidden ")
    lines["scribbling"] = "retain.concept_rate"
    for name, line in lines.items():
        assert (found[name].outcome, found[name].line.startswith(line)) == ("failed", True), found[name].to_json()


@pytest.mark.slow
def test_authors() -> None:
    found = {result.control.name: result for result in run_controls(authors_setting(Silent()), Silent())}
    assert set(found) == {control.name for control in [*CONTROLS, *HIDING, retrained_control(False)]}
    assert all(result.right for result in found.values()), [r.to_json() for r in found.values() if not r.right]
    refuted = {"masked", "refusing", "redirected", "guarded"}
    assert {name: found[name].outcome for name in refuted} == dict.fromkeys(refuted, "failed"), "by relearning"
