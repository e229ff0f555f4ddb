"""The main job: request -> plan -> model -> splits -> method -> observations -> evidence -> verdict -> report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.core import processes
from expunge.core.contracts import Model, Reporter, Silent
from expunge.core.errors import BadInput
from expunge.core.request import Request
from expunge.ledger.examples import EXAMPLES, read_examples
from expunge.pipeline import evidence, inputs, run_folder
from expunge.pipeline.apply import apply
from expunge.pipeline.comparison import Comparison
from expunge.pipeline.containment import comparison_runs
from expunge.pipeline.margins import with_margins
from expunge.pipeline.observation_spec import ObservationSpec, spec_of
from expunge.pipeline.observe import Observation, observe, observe_golds, observe_saved
from expunge.pipeline.plan import Plan, check_runnable, plan
from expunge.pipeline.prepare import prepare
from expunge.pipeline.stages import StageClock
from expunge.pipeline.trial import Tried
from expunge.pipeline.trials import run_trials
from expunge.workflows.verify import verify


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and its evidence."""

    out: Path
    evidence: dict[str, Any]

    @property
    def passed(self) -> bool | None:
        """The verdict; None where the request has no acceptance criteria."""
        return self.evidence["verdict"]["passed"]

    @property
    def scores(self) -> dict[tuple[str, str], float | None]:
        """(name, model) -> value; of a score on several splits the first."""
        return {(s["name"], s["subject"]): s["value"] for s in reversed(self.evidence["scores"])}


def run(
    request: Request | Mapping[str, Any],
    *,
    resume: bool = False,
    reporter: Reporter | None = None,
    replace: bool = False,
) -> Run:
    """Make the model forget, and write model, evidence, report and certificate to `request.out`.

    Raises BadInput before anything starts, and Interrupted on Ctrl-C. A killed run goes on with
    `resume=True` and ends with the same weights. replace: put the finished run in the place of an
    older one (the demo alone does so).
    """
    request = request if isinstance(request, Request) else Request.parse(request)
    reporter = reporter or Silent()
    if resume and run_folder.is_finished(request):
        return _finished_run(Path(request.out))
    planned = plan(request, resume=resume or replace)
    check_runnable(planned)
    processes.barrier()  # every process has looked at the folder before one writes to it
    with run_folder.hold(planned, resume=resume, replace=replace) as folder:
        found = _carry_out(planned, folder, reporter)
    return Run(Path(request.out), found)


def _carry_out(planned: Plan, folder: Path, reporter: Reporter) -> dict[str, Any]:
    """The evidence of the request, with which the folder is complete."""
    began, clock = time.monotonic(), StageClock()
    planned, model = prepare(planned, folder, reporter)
    clock.end("preparation")
    spec = spec_of(planned)
    before, golds = _references(planned, model, spec, folder, reporter)
    clock.end("before and gold")
    planned, gold = with_margins(planned, before, golds), golds["gold"]
    if planned.ladder is None:
        applied = apply(planned, model, gold, folder, reporter)
        clock.end("method")
        del model  # its memory is needed for the model as it was saved
        after = observe_saved(planned, folder, spec, {"before": before, **golds}, reporter)
        clock.end("after")
        tried = Tried(planned, applied, Comparison(planned, before, after, golds))
    else:
        del model
        tried = run_trials(planned, before, golds, spec, folder, reporter)
        clock.end("trials")
    others = processes.from_first(lambda: comparison_runs(tried.plan, gold, folder, reporter))
    seconds = time.monotonic() - began
    found = processes.from_first(lambda: evidence.evidence(tried, others, seconds))
    clock.end("scores")
    found["cost"]["stages"] = clock.lines
    if processes.main():
        evidence.write(tried.plan, found, folder)
    processes.barrier()
    return found


def _references(
    planned: Plan, model: Model, spec: ObservationSpec, folder: Path, reporter: Reporter
) -> tuple[Observation, dict[str, Observation]]:
    """(the model before the change as observed, gold and the second gold). Raises BadInput where an input changed."""
    fingerprint = model.fingerprint()
    inputs.record_base(planned, fingerprint, folder)
    before = observe(model, "before", spec, reporter, fingerprint=fingerprint)
    golds = observe_golds(planned, model, spec, before, reporter)
    inputs.record_golds(golds, folder)
    return before, golds


def _finished_run(out: Path) -> Run:
    """The finished run in `out`, as far as its certificate holds. Raises BadInput where it does not."""
    found = verify(out)
    if not found.good:
        first = ", ".join(found.differences[:3]) + (" ..." if len(found.differences) > 3 else "")
        raise BadInput.of(
            "--resume",
            str(out),
            f"holds a finished run that is not as certified ({first})",
            "restore the folder, or choose another",
        )
    beside = read_examples(out / EXAMPLES) if (out / EXAMPLES).is_file() else {}  # none is left after a purge
    return Run(out, {**run_folder.evidence_of(out), **beside})
