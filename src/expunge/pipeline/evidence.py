"""evidence.json, whole: scores, cost, environment, verdict, and what the report draws."""

from __future__ import annotations

import base64
import platform
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expunge.alignment import evidencing
from expunge.alignment.domains import Answered
from expunge.core import processes
from expunge.core.card import Example
from expunge.core.files import finite, write_json, write_text
from expunge.core.request import redacted
from expunge.core.version import versions
from expunge.data.examples import answer_of, question_of
from expunge.evaluation import attack as attacking
from expunge.evaluation import scores as scoring
from expunge.evaluation.readout import Readout
from expunge.ledger.certificate import certificate, imprint, write_certificate
from expunge.models.family import family
from expunge.pipeline.apply import Applied
from expunge.pipeline.hidden_knowledge import hidden, judged
from expunge.pipeline.observe import Read
from expunge.pipeline.plan import Plan
from expunge.pipeline.run_folder import SCRATCH, close
from expunge.report.card import model_card
from expunge.report.html import render
from expunge.training import checkpoint


def measured(reads: Mapping[str, Read], capabilities: frozenset[str], level: str) -> list[scoring.Score]:
    """All scores: arithmetic on readouts, attacks on the models, and what these find hidden."""
    readouts = {role: read.readouts for role, read in reads.items()}
    scores = scoring.measure(readouts, capabilities)
    if level == "none":
        return scores
    attacks = {role: read.attacks for role, read in reads.items() if read.attacks}
    scores += attacking.scores(attacks, capabilities)
    gold = reads.get("gold")
    scores.append(
        hidden(
            attacks.get("after", {}),
            attacks.get("gold", {}),
            readouts["after"].get("forget"),
            gold.readouts.get("forget") if gold else None,
        )
    )
    return sorted(scores, key=lambda score: scoring.SIDES.index(score.side))


TEXTS = 3
"""Recovered texts of an attack that the evidence keeps."""


def texts(reads: Mapping[str, Read], redacted: bool) -> dict[str, list[dict[str, Any]]]:
    """Attack -> the examples of which it brought out most beyond gold, with what each model said under it.

    Shares alone where redacted.
    """
    after = reads["after"]
    found: dict[str, list[dict[str, Any]]] = {}
    for name, ours in after.attacks.items():
        if not isinstance(ours, attacking.Found) or ours.texts is None or ours.recovered_N is None:
            continue
        sides = {
            role: x
            for role in ("after", "gold")
            if role in reads and isinstance(x := reads[role].attacks.get(name), attacking.Found) and x.texts is not None
        }
        shares = {
            role: np.ma.filled(np.ma.masked_array(x.recovered_N, dtype=float), np.nan) for role, x in sides.items()
        }
        lead = shares["after"] - np.nan_to_num(shares.get("gold", np.zeros_like(shares["after"])))
        best = [i for i in np.argsort(-np.nan_to_num(lead, nan=-np.inf), kind="stable")[:TEXTS] if np.isfinite(lead[i])]
        found[name] = [_recovered(int(i), after.attacked, sides, shares, redacted) for i in best]
    return found


def _recovered(
    i: int,
    rows: Sequence[Example],
    sides: Mapping[str, attacking.Found],
    shares: Mapping[str, np.ndarray],
    redacted: bool,
) -> dict[str, Any]:
    given = {role: round(float(share[i]), 4) for role, share in shares.items() if np.isfinite(share[i])}
    if redacted:
        return {"redacted": True, "recovered": given}
    said = {role: list(found.texts or [])[i] for role, found in sides.items()}
    return {"question": question_of(rows[i]), "answer": answer_of(rows[i]), "recovered": given, "texts": said}


def rocs(scores: Sequence[scoring.Score]) -> dict[str, dict[str, list[list[float]]]]:
    """Membership attack -> model -> its ROC as [false-positive rate, true-positive rate], steps alone.

    A score's values are exposures, the share of the holdout that each forget example beats: 1 minus it is
    the false-positive rate from which the example is found.
    """
    curves: dict[str, dict[str, list[list[float]]]] = {}
    for score in scores:
        if score.unit != "auc" or not score.measured or score.values is None:
            continue
        exposure = np.ma.compressed(np.ma.masked_array(score.values, dtype=float))
        rates, counts = np.unique((1 - exposure).round(6), return_counts=True)
        steps = np.stack([rates, counts.cumsum() / len(exposure)], axis=1).round(4)
        curves.setdefault(score.name, {})[score.role] = steps.tolist()
    return curves


def recovered(reads: Mapping[str, Read]) -> dict[str, dict[str, list[Any]]]:
    """Attack -> model -> the curve that it drew, for the report."""
    curves: dict[str, dict[str, list[Any]]] = {}
    for role, read in reads.items():
        for name, found in read.attacks.items():
            if isinstance(found, attacking.Found) and found.curve:
                curves.setdefault(name, {})[role] = [dict(point) for point in found.curve]
    return curves


def evidence(
    plan: Plan,
    before: Read,
    after: Read,
    gold: Read,
    applied: Applied,
    beside: Mapping[int, Answered],
    seconds: float,
) -> dict[str, Any]:
    """evidence.json, whole: scores, cost, environment, verdict, and what the report draws."""
    readouts = {"before": before.readouts, "after": after.readouts}
    if gold.readouts:
        readouts["gold"] = gold.readouts
    reads = {"before": before, "after": after, **({"gold": gold} if gold.readouts else {})}
    scores = measured(reads, plan.capabilities, plan.request.audit) if processes.main() else []
    aligned = evidencing.evidence(
        plan.aligned, before.aligned, after.aligned, beside, plan.request.redacted, plan.foreseen
    )
    scores = sorted([*scores, *aligned.scores], key=lambda score: scoring.SIDES.index(score.side))
    guard = plan.composed.yields == "guard"
    verdict = judged(plan.request.accept, scores, plan.request.purpose, guard=guard)
    outcome = applied.notes.get("outcome") or {}
    exact = applied.notes.get("exact") or {}
    notes = [
        *plan.notes,
        *aligned.notes,
        *exact.get("said", []),
        *([gold.why] if gold.why else []),
        *([] if exact else _rate_note(outcome)),
    ]
    if guard:
        notes.append("A guard: without guard/ the model scores as before, and relearning starts from there.")
    notes += [
        f"{name.replace('_', ' ').capitalize()}: {said}."
        for name, value in _own(applied.notes).items()
        if (said := _said(value))
    ]
    return {
        "schema": 1,
        "request": _shown(plan),
        "method": plan.composed.name,
        "described": plan.composed.described,
        "scores": [score.to_json() for score in scores],
        "cost": {
            "unlearn_seconds": round(applied.seconds, 3),
            "gold_seconds": gold.seconds,
            "peak_memory_bytes": applied.peak_memory_bytes,
            "forward_passes": {**before.meter.passes, **after.meter.passes, **gold.meter.passes},
            "tokens": trained_on(applied.notes),
            **({"slowdown": after.slowdown} if after.slowdown is not None else {}),
            "run_seconds": round(seconds, 2),
            **{key: value for key, value in exact.items() if key not in ("said", "scheme")},
            **attack_cost(reads),
        },
        "environment": environment(),
        "inputs": {
            role: imprint(read.fingerprint) if read.fingerprint else None
            for role, read in (("base", before), ("gold", gold))
        }
        | ({"files": plan.files} if plan.files else {}),
        "verdict": verdict.to_json(),
        "curve": outcome.get("curve", []),
        "stop": outcome.get("stop", {}),
        "notes": notes,
        "method_notes": {} if plan.request.redacted else _own(applied.notes),  # they may name groups of the forget set
        "yields": plan.composed.yields,
        "splits": {name: len(rows) for name, rows in plan.splits.items()},
        "distributions": {
            split: {role: read[split].mean_nll_N.tolist() for role, read in readouts.items() if split in read}
            for split, readout in before.readouts.items()
            if readout.nll_N is not None
        },
        "examples": examples(readouts, plan.request.redacted),
        "headline": headline(after.readouts),
        **({"alignment": aligned.page} if aligned.page else {}),
        "attack_curves": recovered(reads),
        "attack_texts": texts(reads, plan.request.redacted) if processes.main() else {},
        "rocs": rocs(scores),
    }


def trained_on(notes: Mapping[str, Any]) -> int:
    """Tokens that were trained on: of the inner runs together, where that is more (a wrapper's own outcome is its last
    run's)."""
    inner = sum(trained_on(value) for key, value in notes.items() if isinstance(value, Mapping) and key != "outcome")
    return max(inner, int((notes.get("outcome") or {}).get("tokens", 0)))


def attack_cost(reads: Mapping[str, Read]) -> dict[str, float]:
    """Seconds of the attacks by model; nothing where none were run."""
    return {f"attack_{role}_seconds": read.attack_seconds for role, read in reads.items() if read.attacks}


def _shown(plan: Plan) -> dict[str, Any]:
    """The request as evidence and report show it: without what may name the forget set, where redacted."""
    shown = plan.request.resolved()
    return redacted(shown) if plan.request.redacted else shown


def _rate_note(outcome: Mapping[str, Any]) -> list[str]:
    if not outcome:
        return []
    return [f"Learning rate {outcome['learning_rate']:.3g} ({outcome['rate_source']})."]


def _own(notes: Mapping[str, Any]) -> dict[str, Any]:
    """What the method itself noted."""
    return {k: v for k, v in notes.items() if k not in ("outcome", "gold_forget_nll", "exact")}


def _said(value: Any) -> str:
    """A figure, or several with their names, in words; nothing for what is longer."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:.4g}"
    if isinstance(value, Mapping) and all(isinstance(v, int | float | None) for v in value.values()):
        return ", ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in value.items() if v is not None)
    return ""


def environment() -> dict[str, Any]:
    """What bit-for-bit equality depends on: versions, threads, device and the processor's instructions."""
    device = processes.device()
    return {
        **versions(),
        "threads": torch.get_num_threads(),
        "processes": processes.world(),
        "device": torch.cuda.get_device_name() if device.type == "cuda" else device.type,
        "machine": platform.machine(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "system": platform.system(),
    }


def headline(readouts: Mapping[str, Readout]) -> dict[str, list[str]]:
    """Side -> the scores that stand for it, as the model's family names them."""
    kinds = {readout.family for readout in readouts.values() if readout.family}
    return {side: list(names) for kind in sorted(kinds) for side, names in family(kind).headline.items()}


def examples(readouts: Mapping[str, Mapping[str, Readout]], redacted: bool) -> dict[str, list[dict[str, Any]]]:
    """Questions, answers, pictures and what each model said, for the report; figures alone where redacted."""
    found: dict[str, list[dict[str, Any]]] = {}
    for split in ("forget", "retain"):
        if split not in readouts["after"]:
            continue
        rows: Sequence[Example] = readouts["after"][split].examples
        found[split] = [_example(i, row, split, readouts, redacted) for i, row in enumerate(rows)][:200]
    return found


def data_uri(picture: str | bytes) -> str:
    """An SVG text or PNG bytes as the page holds it: an image, in which no script runs."""
    kind, raw = ("png", picture) if isinstance(picture, bytes) else ("svg+xml", picture.encode())
    return f"data:image/{kind};base64,{base64.b64encode(raw).decode()}"


def _example(
    i: int, row: Example, split: str, readouts: Mapping[str, Mapping[str, Readout]], redacted: bool
) -> dict[str, Any]:
    shown: dict[str, Any] = {"nll": {}}
    if redacted:
        shown["redacted"] = True
    elif (labels_N := readouts["after"][split].labels_N) is not None:
        shown["label"] = int(labels_N[i])
    else:
        shown |= {"question": question_of(row), "answer": answer_of(row)}
    for role, read in readouts.items():
        readout = read[split]
        if readout.nll_N is not None:
            shown["nll"][role] = float(readout.mean_nll_N[i])
        if redacted:
            continue
        if readout.family and (show := family(readout.family).show) and (picture := show(row)):
            shown["picture"] = data_uri(picture)
        if readout.texts is not None:
            shown[role] = readout.texts[i]
        elif readout.logp_NC is not None:
            shown[role] = int(readout.logp_NC[i].argmax())
    return shown


def write(plan: Plan, evidence: dict[str, Any], folder: Path) -> None:
    """Report, evidence and last the certificate; then the scratch goes.

    In this order, so that no moment at which the run is killed costs work: what the scratch of a finished run still
    holds is deleted by the next `--resume` or `purge`.
    """
    evidence = finite(evidence)  # as it will be read, so that the same pages can be drawn again
    write_text(folder / "report.html", render(evidence))
    write_text(folder / "README.md", model_card(evidence))
    write_json(folder / "evidence.json", evidence)
    close(folder, plan.request.resolved(), plan.request.redacted)
    write_certificate(folder, certificate(folder, evidence, plan.splits))
    checkpoint.clear(folder / SCRATCH)
