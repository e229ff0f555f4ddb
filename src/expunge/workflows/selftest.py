"""The self-test: models of known truth through the verdict, so that what it says of other models can be believed.

A tool that passes a model which was never changed proves nothing. Each control is judged under `purpose: erase`, by
the functions that judge a run and an audit, and without acceptance criteria: what the purpose implies must suffice.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from expunge.core.contracts import Reporter, Silent
from expunge.core.errors import BadInput, Faults, did_you_mean, printable
from expunge.data.splits import make_splits
from expunge.evaluation.acceptance import Check, Verdict
from expunge.evaluation.scores import NotMeasured
from expunge.ledger.evidence import SECOND_GOLD
from expunge.pipeline.comparison import all_scores
from expunge.pipeline.fluency import read_answers
from expunge.pipeline.gold_check import Origin, refuse_gold
from expunge.pipeline.hidden_knowledge import judge
from expunge.pipeline.observation_spec import ObservationSpec
from expunge.pipeline.observe import Observation, check_gold, observe
from expunge.workflows._control_settings import Setting, authors_setting, digits_setting, model_setting
from expunge.workflows._controls import (
    BASE,
    CONTROLS,
    DRAWING,
    GOLD,
    HIDING,
    SECOND,
    Control,
    retrained_control,
)
from expunge.workflows._sources import check_sources

ATTACKS = frozenset({"relearn_forget", "class_embedding"})
"""The attack without which nothing counts as erased, and the one that asks a model that draws by new vectors; the
others find no less on a model that was not changed."""
NAMES = ("forget_nll", "forget_rouge_l", "privacy_")
"""Beginnings of the names of the scores that erasure implies lines on: the splits are read for these alone."""
Outcome = Literal["passed", "open", "failed", "refused", "no verdict", "not run"]
RIGHT: Mapping[str, tuple[str, ...]] = {
    "failed": ("open", "failed"),
    "failed or refused": ("open", "failed", "refused"),
    "refused": ("refused",),
    "passed": ("passed",),
    "not refuted": ("passed", "open"),
}
"""Expected outcome -> outcomes that are right."""
FIELDS = ("forget", "retain", "holdout", "gold", "trust_code")
"""Fields that go with a model of the user's own."""


@dataclass(frozen=True)
class ControlResult:
    """The outcome of one control. line, why: of the verdict, the line that decided."""

    setting: str
    control: Control
    outcome: Outcome
    line: str = ""
    why: str = ""

    @property
    def right(self) -> bool | None:
        """Whether the control came out as it must; None where it was not run."""
        return None if self.outcome == "not run" else self.outcome in RIGHT[self.control.expected]

    def to_json(self) -> dict[str, Any]:
        return {
            "setting": self.setting,
            "control": self.control.name,
            "what": self.control.what,
            "expected": self.control.expected,
            "outcome": self.outcome,
            "right": self.right,
            "line": self.line,
            "why": self.why,
        }


@dataclass(frozen=True)
class Selftest:
    """The outcomes of all controls."""

    results: tuple[ControlResult, ...]
    seconds: float

    @property
    def passed(self) -> bool:
        """Whether no control came out wrong."""
        return all(result.right is not False for result in self.results)

    def to_json(self) -> dict[str, Any]:
        return {
            "passed": self.passed,
            "controls": [result.to_json() for result in self.results],
            "seconds": self.seconds,
        }


def selftest(model: str | None = None, *, reporter: Reporter | None = None, **fields: Any) -> Selftest:
    """Judge models of known truth: those of the embedded worlds, or made from a model of the user's own.

    fields: with a model, as in `audit`: forget, retain, holdout, trust_code, and gold, a folder or a list of two: the
    second is judged as the model that must not fail. Without gold the model is retrained from its manifest. Nothing of
    the user's is changed. Raises BadInput.
    """
    began, reporter = time.monotonic(), reporter or Silent()
    _check_fields(model, fields)
    settings = _embedded_settings(reporter) if model is None else _own(model, fields, reporter)
    results = [result for setting in settings for result in run_controls(setting, reporter)]
    return Selftest(tuple(results), round(time.monotonic() - began, 2))


def _check_fields(model: str | None, fields: Mapping[str, Any]) -> None:
    """Raises BadInput for a field that is unknown, missing, or given without a model."""
    faults = Faults()
    for name, value in fields.items():
        if name not in FIELDS:
            faults.add(BadInput.of("selftest", name, "unknown field", did_you_mean(name, FIELDS)))
        elif value and model is None:
            fix = "name the model: expunge selftest MODEL ..., or leave it out"
            faults.add(BadInput.of(name, value, "goes with a model, and none is named", fix))
    if model is not None and not fields.get("forget"):
        faults.add(BadInput.of("forget", "", "is missing", "give what the model should forget: --forget FILE"))
    faults.raise_any()


def _embedded_settings(reporter: Reporter) -> Iterator[Setting]:
    yield digits_setting()
    yield authors_setting(reporter)


def _own(model: str, fields: Mapping[str, Any], reporter: Reporter) -> Iterator[Setting]:
    """The setting of the user's model. Raises BadInput before a model is opened."""
    golds = [fields["gold"]] if isinstance(fields.get("gold"), str) else list(fields.get("gold") or [])
    trust_code = bool(fields.get("trust_code"))
    faults, splits = Faults(), {}
    with faults:
        splits = make_splits({name: fields.get(name) for name in ("forget", "retain", "holdout")})
    for role, source in (("after", model), *(("gold", gold) for gold in golds)):
        with faults:
            check_sources({role: source}, trust_code)
    if len(golds) > 2:
        faults.add(BadInput.of("gold", len(golds), "are more models than are used", "give one or two"))
    faults.raise_any()
    yield model_setting(printable(model), model, splits, golds, reporter, trust_code)


def controls_of(setting: Setting) -> list[Control]:
    """The controls that this setting can have."""
    own = [*(HIDING if setting.generates else ()), *(DRAWING if setting.draws else ())]
    return [*CONTROLS, *own, *([retrained_control(setting.certain)] if len(setting.golds) > 1 else [])]


def run_controls(setting: Setting, reporter: Reporter) -> list[ControlResult]:
    """The outcome of each control in this setting. Raises BadInput where its gold is none: then every control fails."""
    chosen = controls_of(setting)
    judging, results = _Judging(setting), []
    if why := judging.gold_fault(CONTROLS[0]):
        fix = "give a model retrained without the forget set, and a forget set that the model was trained on"
        raise BadInput.of("gold", setting.gold, f"is {why}", fix)
    stage = f"selftest on {setting.name}"
    reporter.start(stage, len(chosen))
    for i, control in enumerate(chosen):
        results.append(_result(judging, control))
        reporter.advance(stage, i + 1, control.name)
    reporter.finish(stage)
    return results


def _result(judging: _Judging, control: Control) -> ControlResult:
    try:
        found = judging.verdict(control)
    except NotMeasured as reason:
        return ControlResult(judging.setting.name, control, "not run", why=str(reason))
    except (BadInput, ValueError) as error:
        if "refused" not in control.expected:
            raise
        return ControlResult(judging.setting.name, control, "refused", why=str(error))
    outcome, line = _outcome_of(found)
    return ControlResult(judging.setting.name, control, outcome, line.rule if line else "", line.why if line else "")


def _outcome_of(verdict: Verdict) -> tuple[Outcome, Check | None]:
    """The outcome, and the line that decided: of those that fail, a refuted one first, an open one last."""
    if verdict.passed is None:
        return "no verdict", None
    if verdict.passed:
        return "passed", None
    failing = [line for line in verdict.lines if not line.passed and not line.warns]
    order = ("refuted", None, "open")
    first = min(failing, key=lambda line: order.index(line.word if line.word in order else None))
    return "open" if first.word == "open" else "failed", first


@dataclass
class _Judging:
    """Judges controls; each model is read and attacked once per role and set of examples."""

    setting: Setting
    known: dict[tuple[object, ...], Observation] = field(default_factory=dict)
    capabilities: frozenset[str] = frozenset()

    def verdict(self, control: Control) -> Verdict:
        """The verdict of a control, by the functions that judge an audit."""
        before, why = self._observe(control, "before", BASE), self.gold_fault(control)
        observed = {"before": before} if why else self._observe_golds(control, before)
        observed["after"] = self._observe(control, "after", control.after)
        spoilt = control.spoil(observed)
        if self.setting.generates and not why:
            spoilt = read_answers(self.setting.models()[control.gold](), spoilt)
        scores = all_scores(spoilt, self.capabilities, "standard")
        return judge({}, refuse_gold(scores, why) if why else scores, "erase")

    def gold_fault(self, control: Control) -> str:
        """Why the control's gold is not a gold model; it is not attacked, since nothing is compared with it then."""
        before, read = self._observe(control, "before", BASE), self._observe(control, "gold", control.gold, frozenset())
        return check_gold(read, {"before": before}, self.setting.origin if control.gold == GOLD else Origin()).why

    def _observe_golds(self, control: Control, before: Observation) -> dict[str, Observation]:
        """Role -> the model before the change, gold, and the second gold where the setting has one."""
        found = {"before": before, "gold": self._observe(control, "gold", control.gold)}
        if SECOND in self.setting.models():
            found[SECOND_GOLD] = self._observe(control, SECOND_GOLD, SECOND)
        return found

    def _observe(self, control: Control, role: str, name: str, attacks: frozenset[str] = ATTACKS) -> Observation:
        key = (control.splits.__name__, role, name, attacks)
        if key not in self.known:
            model = self.setting.models()[name]()
            self.capabilities = model.capabilities
            splits = control.splits(self.setting.splits)
            spec = ObservationSpec(splits, "standard", manifest=self.setting.manifest, attacks=attacks, names=NAMES)
            self.known[key] = observe(model, role, spec, Silent())
        return self.known[key]
