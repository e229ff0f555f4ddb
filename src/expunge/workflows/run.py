"""The main job: request -> plan -> model -> splits -> method -> evidence -> verdict -> report."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.core import processes
from expunge.core.contracts import Reporter, Silent
from expunge.core.errors import BadInput
from expunge.core.request import Request
from expunge.ledger.certificate import imprint
from expunge.pipeline import apply, containment, inputs, observe, prepare, run_folder
from expunge.pipeline import evidence as dossier
from expunge.pipeline.plan import Plan, plan, weights_there
from expunge.workflows.verify import verify


@dataclass(frozen=True)
class Run:
    """A finished run: its folder and its evidence."""

    out: Path
    evidence: dict[str, Any]

    @property
    def passed(self) -> bool | None:
        """The verdict; None where no bar was set."""
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
    """Makes the model forget, and writes model, evidence, report and certificate to `request.out`.

    Raises BadInput before anything starts, and Interrupted on Ctrl-C. A killed run goes on with
    `resume=True` and ends with the same weights. replace: put the finished run in the place of an
    older one (the demo alone does so).
    """
    request = request if isinstance(request, Request) else Request.parse(request)
    reporter = reporter or Silent()
    if resume and run_folder.finished(request):
        return _certified(Path(request.out))
    planned: Plan = plan(request, resume=resume or replace)
    weights_there(planned)
    processes.barrier()  # every process has looked at the folder before one writes to it
    with run_folder.held(planned, resume=resume, replace=replace) as folder:
        began = time.monotonic()
        model = prepare.ready(planned, folder, reporter)
        splits = observe.reading_splits(planned)
        fingerprint = model.fingerprint()
        if processes.main():
            inputs.record(folder, inputs.of(planned, fingerprint, folder))
        before = observe.read_into(model, splits, "before", reporter, planned.request.audit, fingerprint)
        observe.asked(planned, model, before, "before", reporter)
        gold = observe.gold(planned, model, splits, reporter, before)
        if processes.main():
            inputs.record(folder, {"gold": imprint(gold.fingerprint)})
        applied = apply.apply(planned, model, gold, folder, reporter)
        del model  # the memory is wanted for the model as it was saved
        after = observe.after(planned, splits, before, gold, folder, reporter)
        beside = containment.beside(planned, gold, folder, reporter)
        evidence = dossier.evidence(planned, before, after, gold, applied, beside, time.monotonic() - began)
        if processes.main():
            dossier.write(planned, evidence, folder)
        processes.barrier()
    return Run(Path(request.out), evidence)


def _certified(out: Path) -> Run:
    """The finished run in `out`, whose word counts only as far as its certificate holds. Raises BadInput."""
    found = verify(out)
    if not found.good:
        first = ", ".join(found.differences[:3]) + (" ..." if len(found.differences) > 3 else "")
        why = f"holds a finished run that is not as certified ({first})"
        raise BadInput.of("--resume", str(out), why, "take back the folder as it was, or choose another")
    return Run(out, run_folder.evidence_of(out))
