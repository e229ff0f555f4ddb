"""The margins of a run's verdict, set from its two gold models before the method begins."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from expunge.core import processes
from expunge.evaluation import attack
from expunge.evaluation.controls import at_one_strength
from expunge.evaluation.margins import LEAST, MOST, margins
from expunge.evaluation.scores import measure
from expunge.ledger.evidence import SECOND_GOLD
from expunge.pipeline.observe import Observation
from expunge.pipeline.plan import Plan


def with_margins(plan: Plan, before: Observation, golds: Mapping[str, Observation]) -> Plan:
    """The plan with a note that gives the margins; without two golds as it is."""
    if not processes.main() or not all(one.readouts for one in golds.values()):
        return plan
    read = {role: one.readouts for role, one in {"before": before, **golds}.items()}
    scores = measure(read, plan.capabilities)
    attacks = at_one_strength({role: one.attacks for role, one in golds.items()}, SECOND_GOLD)
    scores += attack.scores(attacks, plan.capabilities)
    return replace(plan, notes=(*plan.notes, margin_note(margins(scores))))


def margin_note(found: dict[str, float]) -> str:
    """The margins in words: those above the least one by name."""
    wider = {name: value for name, value in sorted(found.items()) if value > LEAST}
    named = "".join(f"{name} {value:.3g}, " for name, value in wider.items())
    rest = f"the other {len(found) - len(wider)} figures" if wider else f"all {len(found)} figures"
    return (
        f"margins: {named}{rest} {LEAST} (twice the difference of two gold models, at least {LEAST}, and of a "
        f"share or an AUC at most {MOST})"
    )
