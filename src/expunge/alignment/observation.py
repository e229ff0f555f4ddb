"""A model as alignment observes it: its answers to the scoring prompts, its concept vectors, its choices on BBQ."""

from __future__ import annotations

from dataclasses import dataclass, field

from expunge.alignment import bbq
from expunge.alignment.concepts import Concepts, concepts
from expunge.alignment.domains import DomainAnswers, answer_domains
from expunge.alignment.judges import judge_of
from expunge.alignment.spec import AlignmentSpec
from expunge.core.contracts import Model, Reporter
from expunge.evaluation.scores import Score


@dataclass
class AlignmentObservation:
    """One model's answers by domain, its concept vectors, and its scores on BBQ's questions where the pack has them."""

    answers: DomainAnswers
    concepts: Concepts | None
    bbq: list[Score] = field(default_factory=list)


def observe_alignment(model: Model, spec: AlignmentSpec, role: str, reporter: Reporter) -> AlignmentObservation:
    """Put the scoring prompts, and BBQ's questions before and after, to a model."""
    answers = observe_answers(model, spec, role, reporter)
    rows = spec.pack.bbq
    fairness = (
        bbq.scores(rows, bbq.most_likely_options(model, rows), role) if rows and role in ("before", "after") else []
    )
    return AlignmentObservation(answers, concepts(model, spec.pack.part("score")), fairness)


def observe_answers(model: Model, spec: AlignmentSpec, role: str, reporter: Reporter) -> DomainAnswers:
    """A model's answers to the scoring prompts, judged."""
    return answer_domains(model, spec.pack, judge_of(spec.judge), reporter=reporter, stage=f"asking {role}")
