"""Evidence for a model changed by anyone, with any tool."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from expunge.alignment import asking, evidencing
from expunge.core import processes
from expunge.core.contracts import Reporter, Silent
from expunge.core.errors import BadInput, Faults, did_you_mean
from expunge.data.sampling import sample
from expunge.data.splits import Splits, make_splits
from expunge.evaluation import acceptance as bar
from expunge.evaluation import attack as attacking
from expunge.evaluation import scores as scoring
from expunge.models.manifest import manifest_of
from expunge.models.open import check, open_model
from expunge.models.prompt_notes import prompt_notes
from expunge.pipeline import evidence as dossier
from expunge.pipeline import observe, out_folder
from expunge.pipeline.compatibility import fits_model
from expunge.pipeline.hidden_knowledge import judged
from expunge.pipeline.plan import OTHERS_READ
from expunge.pipeline.worlds import build
from expunge.pipeline.worlds import config as builtin_config
from expunge.report.html import render

NO_GOLD = "No gold model was given: how a model that never saw the data would score is not known."


def audit(
    model: str,
    *,
    forget: Any,
    retain: Any = None,
    holdout: Any = None,
    test: Any = None,
    probes: Any = None,
    before: str | None = None,
    gold: str | None = None,
    accept: Mapping[str, Any] | None = None,
    purpose: str = "suppress",
    redact: bool = False,
    level: str = "standard",
    alignment: str = "none",
    domains: str | list[str] | None = None,
    judge: str = "rules",
    seed: int = 0,
    trust_code: bool = False,
    out: str | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
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
    for role, source in sources.items():
        if source is not None:
            with faults:
                if source.startswith("builtin:"):
                    builtin_config(source)
                else:
                    check(source, trust_code, field="model" if role == "after" else role)
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
            out_folder.free(out)
    faults.raise_any()
    rows = {
        name: found if scoring.must_go(name) else sample(found, seed, OTHERS_READ) for name, found in splits.items()
    }
    wants = _Wants(
        {role: source for role, source in sources.items() if source is not None},
        rows,
        accept or {},
        rules,
        wanted,
        purpose,
        redact or purpose == "erase",
        level,
        seed,
        trust_code,
    )
    with out_folder.held(out if processes.main() else None):
        reads, asked, capabilities, notes = _read(wants, reporter)
        evidence = {
            "schema": 1,
            "request": {
                "model": model,
                "before": before,
                "gold": gold,
                "purpose": purpose,
                "redact": wants.redact,
                "audit": level,
                "accept": dict(accept or {}),
                "seed": seed,
            },
            **_figures(wants, reads, asked, capabilities, notes, began),
            "splits": {name: len(found) for name, found in splits.items()},
        }
        if out is not None and processes.main():
            out_folder.write(out, evidence, render)
    return evidence


@dataclass(frozen=True)
class _Wants:
    """What is to be audited, and how; checked as far as it can be without opening a model."""

    sources: Mapping[str, str]
    rows: Splits
    accept: Mapping[str, Any]
    rules: Sequence[bar.Rule]
    prompts: asking.Asked | None
    purpose: str
    redact: bool
    level: str
    seed: int
    trust_code: bool


def _read(
    wants: _Wants, reporter: Reporter
) -> tuple[dict[str, observe.Read], dict[str, evidencing.Asked], frozenset[str], list[str]]:
    """(what was read of each model, what each was asked, what their family can do, notes). Raises BadInput."""
    notes: list[str] = []
    reads: dict[str, observe.Read] = {}
    asked: dict[str, evidencing.Asked] = {}
    capabilities: frozenset[str] = frozenset()
    manifest: dict[str, Any] | None = None  # of the first of them that has one: before, gold, after
    for role, source in wants.sources.items():
        source = str(build(source, reporter)) if source.startswith("builtin:") else source
        manifest = manifest or manifest_of(source)
        model = open_model(source, wants.trust_code)
        capabilities = model.capabilities
        fits_model(model, wants.rows)
        notes += [note for note in prompt_notes(model, wants.rows) if note not in notes]
        if not reads:  # before anything is read: all are of one family
            _fits_scores(wants, capabilities)
        level = "none" if role == "after" else wants.level
        reads[role] = observe.read_into(model, wants.rows, role, reporter, level)
        if role != "before":
            observe.attack(model, wants.rows, reads, role, wants.level, manifest, wants.seed, reporter)
        if wants.prompts is not None and role != "gold":
            asked[role] = evidencing.ask(model, wants.prompts, role, reporter)
    return reads, asked, capabilities, notes


def _fits_scores(wants: _Wants, capabilities: frozenset[str]) -> None:
    """Is everything that the bar names measured. Raises BadInput."""
    names = scoring.score_names(capabilities, wants.rows, "gold" in wants.sources, "before" in wants.sources)
    names += attacking.score_names(wants.level, capabilities, wants.rows, "gold" in wants.sources)
    prompted = wants.prompts.names if wants.prompts else []
    names += [name for name in prompted if "before" in wants.sources or name != "alignment_drift"]
    faults = Faults()
    with faults:
        if wants.prompts is not None:
            wants.prompts.check(capabilities, wants.rows)
    for rule in wants.rules:
        with faults:
            rule.names_score(names, set(wants.sources))
    faults.raise_any()


def _figures(
    wants: _Wants,
    reads: dict[str, observe.Read],
    asked: Mapping[str, evidencing.Asked],
    capabilities: frozenset[str],
    notes: Sequence[str],
    began: float,
) -> dict[str, Any]:
    """What was measured, and the verdict."""
    readouts = {role: read.readouts for role, read in reads.items()}
    aligned = evidencing.evidence(wants.prompts, asked.get("before"), asked.get("after"), {}, wants.redact)
    scores = sorted(
        [*dossier.measured(reads, capabilities, wants.level), *aligned.scores],
        key=lambda s: scoring.SIDES.index(s.side),
    )
    verdict = judged(wants.accept, scores, wants.purpose)  # type: ignore[arg-type]
    passes = {name: n for read in reads.values() for name, n in read.meter.passes.items()}
    return {
        "method": "audit of a changed model",
        "scores": [score.to_json() for score in scores],
        "cost": {
            "audit_seconds": round(time.monotonic() - began, 2),
            "forward_passes": passes,
            **dossier.attack_cost(reads),
        },
        "environment": dossier.environment(),
        "verdict": verdict.to_json(),
        **({"alignment": aligned.page} if aligned.page else {}),
        "notes": [*notes, *aligned.notes, *([] if "gold" in wants.sources else [NO_GOLD])],
        "distributions": {
            split: {role: read[split].mean_nll_N.tolist() for role, read in readouts.items()} for split in wants.rows
        },
        "examples": dossier.examples(readouts, wants.redact),
        "attack_curves": dossier.recovered(reads),
        "attack_texts": dossier.texts(reads, wants.redact),
        "rocs": dossier.rocs(scores),
    }
