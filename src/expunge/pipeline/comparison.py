"""The changed model beside the model before the change and the gold models: what is compared, and all scores."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from expunge.evaluation import attack as attacking
from expunge.evaluation import scores as scoring
from expunge.evaluation.acceptance import parse
from expunge.evaluation.against_gold import scores_against_gold
from expunge.evaluation.controls import at_one_strength, controls, with_controls
from expunge.evaluation.sums import pool, sums_of
from expunge.pipeline.clients import Parties, parties_in, readouts_by_client
from expunge.pipeline.fluency import fluency_scores, with_fluency
from expunge.pipeline.gold_check import refuse_gold
from expunge.pipeline.hidden_knowledge import hidden_scores
from expunge.pipeline.observe import Observation, refuse_copies
from expunge.pipeline.plan import Plan


@dataclass(frozen=True)
class Comparison:
    """The observations of a run. What follows from them is computed once: a trial's verdict and the evidence need it.

    observed_golds: role -> gold and the second gold, as they were observed.
    """

    plan: Plan
    before: Observation
    after: Observation
    observed_golds: Mapping[str, Observation]

    @cached_property
    def golds(self) -> dict[str, Observation]:
        """The gold models, one that the changed model copies refused."""
        if self.plan.gold == "train":  # an exact method retrains, and may end at the retrained gold itself
            return dict(self.observed_golds)
        return refuse_copies(self.observed_golds, self.after)

    @cached_property
    def reads(self) -> dict[str, Observation]:
        """Role -> all that is compared."""
        golds = {role: one for role, one in self.golds.items() if one.readouts}
        return with_fluency({"before": self.before, "after": self.after, **golds}, self.plan.request.trust_code)

    @cached_property
    def parties(self) -> Parties | None:
        """The clients of the federation that trained the model."""
        return parties_in(self.plan.manifest, self.plan.request.clients_send)

    @cached_property
    def scores(self) -> list[scoring.Score]:
        """All scores but those of alignment; those that rest on a refused gold say why they are not measured."""
        plan, gold = self.plan, self.golds["gold"]
        given = (plan.capabilities, plan.request.audit, plan.request.accept, self.parties)
        scores = all_scores(self.reads, *given)
        return refuse_gold(scores, gold.why) if gold.refused else scores


def cut_remarks(reads: Mapping[str, Observation]) -> list[str]:
    """A sentence on the generated answers that came to their limit: written to its end, a text may score otherwise."""
    counts = [
        f"{role.replace('_', ' ')} {readout.cut} of {len(readout)} on {split}"
        for role, one in reads.items()
        for split, readout in one.readouts.items()
        if readout.cut
    ]
    return [f"Generated answers that did not end within their limit: {', '.join(counts)}."] if counts else []


def with_attacks_alike(reads: Mapping[str, Observation]) -> dict[str, Observation]:
    """The observations, gold models' attacks at the strength that each took on the changed model."""
    alike = at_one_strength({role: one.attacks for role, one in reads.items()})
    return {role: replace(one, attacks=alike[role]) for role, one in reads.items()}


def by_side(scores: Sequence[scoring.Score]) -> list[scoring.Score]:
    """The scores in the order of the sides, and as they came within a side."""
    return sorted(scores, key=lambda score: scoring.SIDES.index(score.side))


def scores_by_client(
    reads: Mapping[str, Observation],
    capabilities: frozenset[str],
    accept: Mapping[str, Any] | None,
    parties: Parties,
) -> dict[str, list[scoring.Score]]:
    """Client -> the scores of its own rows, without those of attacks on the models."""
    divided = readouts_by_client(parties, {role: one.readouts for role, one in reads.items()})
    places = parties.places(reads["after"].readouts["forget"].examples) if "forget" in reads["after"].readouts else {}
    return {
        name: all_scores(
            {
                role: replace(
                    reads[role],
                    readouts=readouts,
                    answers_N=None if (found := reads[role].answers_N) is None else found[places.get(name, [])],
                )
                for role, readouts in own.items()
            },
            capabilities,
            "none",
            accept,
        )
        for name, own in divided.items()
    }


def all_scores(
    reads: Mapping[str, Observation],
    capabilities: frozenset[str],
    level: str,
    accept: Mapping[str, Any] | None = None,
    parties: Parties | None = None,
) -> list[scoring.Score]:
    """All scores: arithmetic on readouts, attacks on the models, and how these compare with gold.

    accept: the acceptance criteria; those that compare with gold name the scores that are compared by example too.
    parties: the clients that read the rows; where they send sums alone, the scores follow from these.
    """
    if parties and parties.send == "sums":
        sent = scores_by_client(reads, capabilities, accept, parties)
        return by_side(pool([sums_of(score) for score in own] for own in sent.values()))
    scores = scoring.measure({role: read.readouts for role, read in reads.items()}, capabilities)
    scores += fluency_scores(reads)
    if level != "none":
        reads = with_attacks_alike(reads)
        attacks = {role: read.attacks for role, read in reads.items() if read.attacks}
        found = controls(attacks, reads["before"].direct_N if "before" in reads else None)
        scores += with_controls(attacking.scores(attacks, capabilities), found)
        scores += hidden_scores(reads, {name for name, control in found.items() if not control.counts})
    criteria = [parse(key, text) for key, text in (accept or {}).items()]
    rows = {split: readout.examples for split, readout in reads["after"].readouts.items()}
    scores += scores_against_gold(scores, {one.score for one in criteria if one.reference == "gold"}, rows)
    return by_side(scores)
