"""Evidence for a model changed by anyone, with any tool."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from expunge import accept as bar
from expunge import attacking, dossier, stages
from expunge import evidence as scoring
from expunge.alignment import asking, evidencing
from expunge.builtin import build
from expunge.builtin import config as builtin_config
from expunge.core.contracts import Reporter, Silent
from expunge.core.errors import BadInput, Faults, did_you_mean
from expunge.core.files import write_json, write_text
from expunge.data.splits import make_splits
from expunge.fitting import fits_model
from expunge.hidden import judged
from expunge.plan import OTHERS_READ
from expunge.report.html import render
from expunge.room import free_folder
from expunge.subjects.opening import check, manifest_of
from expunge.train import open_model
from expunge.training import processes
from expunge.training.stopping import sample


def audit(
    model: str, *, forget: Any, retain: Any = None, holdout: Any = None, test: Any = None, probes: Any = None, before: str | None = None,
    gold: str | None = None, accept: Mapping[str, Any] | None = None, purpose: str = "suppress", redact: bool = False,
    level: str = "standard", alignment: str = "none", domains: str | list[str] | None = None, judge: str = "rules",
    seed: int = 0, trust_code: bool = False, out: str | None = None, reporter: Reporter | None = None,
) -> dict[str, Any]:  # fmt: skip
    """The evidence dict; with `out` also evidence.json and report.html. Raises BadInput.

    level: which attacks on the model are run: none, standard or deep; gold is attacked alike. probes: questions of your own
    (`question`, `answer`, `kind`, `of`).
    alignment: "standard" asks the prompts of `domains` (default: the embedded pack) too, judged by `judge`.
    """
    reporter = reporter or Silent()
    began = time.monotonic()
    faults = Faults()
    splits: dict[str, Any] = {}
    with faults:
        splits = make_splits(forget=forget, retain=retain, holdout=holdout, test=test, probes=probes, seed=seed)
    wanted: asking.Asked | None = None
    if alignment not in ("none", "standard"):
        faults.add(BadInput.of("alignment", alignment, "cannot be used", did_you_mean(alignment, ["none", "standard"])))
    elif alignment == "standard":
        with faults:
            wanted = asking.for_audit(domains, judge, model)
    else:
        with faults:
            asking.unused("domains" if domains is not None else "", "judge" if judge != "rules" else "")
    # Attacks look at what the model before the change knew, and at gold: the changed model comes last.
    sources = {"before": before, "gold": gold, "after": model}
    for who, source in sources.items():
        if source is not None:
            with faults:
                if source.startswith("builtin:"):
                    builtin_config(source)
                else:
                    check(source, trust_code, field="model" if who == "after" else who)
    rules = []
    for key, text in (accept or {}).items():
        with faults:
            rules.append(bar.parse(key, text))
    if purpose not in ("suppress", "erase"):
        faults.add(BadInput.of("purpose", purpose, "is no purpose", did_you_mean(purpose, ["suppress", "erase"])))
    if level not in attacking.LEVELS:
        faults.add(BadInput.of("level", level, "is no level", did_you_mean(level, attacking.LEVELS)))
    if out is not None:
        with faults:
            free_folder(Path(out))
    faults.raise_any()
    rows = {
        name: found if scoring.must_go(name) else sample(found, seed, OTHERS_READ) for name, found in splits.items()
    }
    reads: dict[str, stages.Read] = {}
    asked: dict[str, evidencing.Asked] = {}
    capabilities: frozenset[str] = frozenset()
    manifest: dict[str, Any] | None = None  # of the first of them that has one: before, gold, after
    for who, source in sources.items():
        if source is None:
            continue
        source = str(build(source, reporter)) if source.startswith("builtin:") else source
        manifest = manifest or manifest_of(source)
        subject = open_model(source, trust_code)
        capabilities = subject.capabilities
        fits_model(subject, rows)
        if not reads:  # before anything is read: all are of one family
            names = scoring.score_names(capabilities, rows, gold is not None, before is not None)
            names += attacking.score_names(level, capabilities, rows, gold is not None)
            names += [n for n in (wanted.names if wanted else []) if before or n != "alignment_drift"]
            with faults:
                if wanted is not None:
                    wanted.check(capabilities, rows)
            for rule in rules:
                with faults:
                    rule.names_score(names, {w for w, s in sources.items() if s is not None})
            faults.raise_any()
        reads[who] = stages.read_into(subject, rows, who, reporter, "none" if who == "after" else level)
        if who != "before":
            stages.attack(subject, rows, reads, who, level, manifest, seed, reporter)
        if wanted is not None and who != "gold":
            asked[who] = evidencing.ask(subject, wanted, who, reporter)
    readouts = {who: read.readouts for who, read in reads.items()}
    aligned = evidencing.evidence(wanted, asked.get("before"), asked.get("after"), {}, redact or purpose == "erase")
    scores = sorted(
        [*dossier.measured(reads, capabilities, level), *aligned.scores], key=lambda s: scoring.SIDES.index(s.side)
    )
    verdict = judged(accept or {}, scores, purpose)  # type: ignore[arg-type]
    passes = {name: n for read in reads.values() for name, n in read.meter.passes.items()}
    evidence = {
        "schema": 1,
        "request": {"model": model, "before": before, "gold": gold, "purpose": purpose, "redact": redact,
                    "audit": level, "accept": dict(accept or {}), "seed": seed},
        "method": "audit of a changed model",
        "scores": [score.to_json() for score in scores],
        "cost": {"audit_seconds": round(time.monotonic() - began, 2), "forward_passes": passes,
                 **dossier.attack_cost(reads)},
        "environment": dossier.environment(),
        "verdict": verdict.to_json(),
        **({"alignment": aligned.page} if aligned.page else {}),
        "notes": [*aligned.notes] if gold else [*aligned.notes, "No gold model was given: how a model that never saw the data would score is not known."],
        "splits": {name: len(found) for name, found in splits.items()},
        "distributions": {split: {who: read[split].mean_nll_N.tolist() for who, read in readouts.items()} for split in rows},
        "examples": dossier.examples(readouts, redact or purpose == "erase"),
        "attack_curves": dossier.recovered(reads),
        "attack_texts": dossier.texts(reads, redact or purpose == "erase"),
        "rocs": dossier.rocs(scores),
    }  # fmt: skip
    if out is not None and processes.main():
        write_text(Path(out) / "report.html", render(evidence))
        write_json(Path(out) / "evidence.json", evidence)
    return evidence
