"""Fluency: the answers that each model gives to the forget questions, as gold reads them.

A destroyed model's answers are gibberish, which gold finds far more surprising than the true answers it never saw.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from expunge.core.contracts import Model
from expunge.data.examples import with_answer
from expunge.evaluation import intervals, reading
from expunge.evaluation.arrays import mean_nll
from expunge.evaluation.groups import count_groups, groups_of
from expunge.evaluation.scores import DIVERGED, PERPLEXITY, Label, Score
from expunge.ledger.evidence import SECOND_GOLD
from expunge.models.open import open_model
from expunge.pipeline.observe import Observation

ANSWERING_ROLES = ("before", "gold", SECOND_GOLD, "after")


def with_fluency(reads: Mapping[str, Observation], trust_code: bool) -> dict[str, Observation]:
    """The observations, with what gold makes of each model's answers; as they are without gold or without answers."""
    gold = reads.get("gold")
    if gold is None or not gold.folder or not _has_answers(gold):
        return dict(reads)
    return read_answers(open_model(gold.folder, trust_code), reads)


def read_answers(model: Model, reads: Mapping[str, Observation]) -> dict[str, Observation]:
    """The observations with the nats per token that gold (`model`) gives each forget answer; EOS counts."""
    found, gold = dict(reads), reads["gold"]
    for role in ANSWERING_ROLES:
        if role not in reads or not _has_answers(reads[role]):
            continue
        readout = reads[role].readouts["forget"]
        rows = [with_answer(row, text) for row, text in zip(readout.examples, readout.texts or [], strict=True)]
        name = f"answers of {role}"
        read = reading.read(model, name, rows, {"nll"}, role="gold", fingerprint=gold.fingerprint, meter=gold.meter)
        found[role] = replace(reads[role], answers_N=mean_nll(read))
    return found


def fluency_scores(reads: Mapping[str, Observation]) -> list[Score]:
    """forget_log_perplexity of each role: the mean of what gold makes of its answers."""
    found = []
    for role, one in reads.items():
        if one.answers_N is None:
            continue
        label: Label = {
            "name": PERPLEXITY,
            "side": "forgetting",
            "split": "forget",
            "role": role,
            "unit": "nats",
            "better": "gold",
        }
        counted = np.ma.compressed(one.answers_N)
        if not len(counted) or not np.isfinite(counted).all():
            why = DIVERGED if len(counted) else "no answer has a token"
            found.append(Score.not_measured(why, **label))
            continue
        groups = groups_of(one.readouts["forget"].examples, np.ma.getmaskarray(one.answers_N))
        ends = intervals.mean(counted, 0.0, groups=groups)
        why = "its own answers, as gold reads them"
        found.append(
            Score(
                **label,
                value=ends.value,
                low=ends.low,
                high=ends.high,
                n=len(counted),
                why=why,
                groups=count_groups(groups),
                values=one.answers_N,
            )
        )
    return found


def _has_answers(observed: Observation) -> bool:
    readout = observed.readouts.get("forget")
    return readout is not None and readout.texts is not None and len(readout) > 0
