"""Evidence over many models: are unlearned models, as a distribution, what retrained ones are.

One model says little of a method that draws lots. Here are several that unlearned, several that were
retrained without the forget set, and a second set of those: what two sets of retrained models differ by is the
noise floor of every figure. Suffixes: M, K models, N examples, S seeds, A attacks, E checks of a training.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from expunge.attacks._membership import attack_scores
from expunge.attacks._shadow import confidence
from expunge.attacks.population import scores as exposing
from expunge.core.contracts import Reporter, Silent
from expunge.core.errors import BadInput, Faults, as_written
from expunge.core.files import digest
from expunge.core.random import permutation
from expunge.core.variables import expand
from expunge.data.examples import answer_of, question_of
from expunge.data.sampling import sample
from expunge.data.splits import Splits, make_splits
from expunge.evaluation import reading
from expunge.evaluation.attack import knowledge
from expunge.evaluation.scores import Score
from expunge.models.open import check, open_model
from expunge.pipeline import evidence as dossier
from expunge.pipeline import out_folder
from expunge.pipeline.compatibility import fits_model
from expunge.pipeline.plan import OTHERS_READ
from expunge.report.exposure import render

LEAST = 4
"""Models of a set: each half of them is attacked with the other half as shadows, which takes two of each."""
SHOWN = 24
"""Examples that the evidence names, the most exposed first."""
CHANNELS = {"nll", "logp", "moments", "logits"}
PAPERS = "a distribution of models is held against another (papers take 100 to 512 a side)"


@dataclass
class Set:
    """What was read of several models: phi by split, and the attacks' scores."""

    sources: list[str]
    phi: dict[str, np.ndarray] = field(default_factory=dict)
    """Split -> [M, N] confidences log(p / (1 - p)) of each answer, a token."""
    scores: dict[str, list[dict[str, np.ndarray]]] = field(default_factory=dict)
    """Split -> by model, attack -> [N] scores."""


def exposure(
    *,
    unlearned: Sequence[str],
    gold: Sequence[str],
    forget: Any,
    floor: Sequence[str] = (),
    before: Sequence[str] = (),
    retain: Any = None,
    holdout: Any = None,
    course: Sequence[str] = (),
    redact: bool = False,
    seed: int = 0,
    out: str | None = None,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """The evidence dict; with `out` also evidence.json and report.html. Raises BadInput.

    Each of unlearned, gold, floor, before and course: model folders, or patterns for such. floor: a second set of
    retrained models, which shares none with `gold`; by default the golds are halved. course: the checkpoints of one
    training on the forget set, in order; needs holdout.
    """
    reporter = reporter or Silent()
    began = time.monotonic()
    faults = Faults()
    splits: Splits = {}
    with faults:
        splits = make_splits(forget=forget, retain=retain, holdout=holdout, seed=seed)
    given = {"unlearned": unlearned, "gold": gold, "floor": floor, "before": before, "course": course}
    sources = {name: _folders(name, patterns, faults) for name, patterns in given.items()}
    _enough(sources, faults)
    for name, folders in sources.items():
        for folder in folders:
            with faults:
                check(folder, False, field=name)
    if course and "holdout" not in splits and not faults.errors:
        faults.add(
            BadInput.of(
                "course",
                "",
                "needs examples that were never trained on, to say who is found by chance",
                "add holdout: FILE, or leave the course out",
            )
        )
    if out is not None:
        with faults:
            out_folder.free(out)
    faults.raise_any()
    notes = _halved(sources, seed)
    rows = {name: found if name == "forget" else sample(found, seed, OTHERS_READ) for name, found in splits.items()}
    meter = reading.Meter()
    with out_folder.held(out):
        sets = _read(sources, rows, meter, reporter)
    order = sets.pop("course", None)
    found = exposing.measured({role: x.phi for role, x in sets.items()}, seed)
    scores = [*found.scores, *exposing.coverages({role: x.scores for role, x in sets.items() if role != "reference"})]
    curve: list[dict[str, float]] = []
    first_N = None
    if order is not None:
        score, curve, first_N = exposing.course(order.phi["forget"], order.phi["holdout"])
        scores.append(score)
    count = min(len(x.sources) for x in sets.values())
    notes += [*found.notes, exposing.chance(count)]
    evidence = {
        "schema": 1,
        "title": "Exposure over many models",
        "request": {
            "model": f"{len(sources['unlearned'])} unlearned models",
            **{k: [*map(as_written, v)] for k, v in sources.items() if v},
            "redact": redact,
            "seed": seed,
        },
        "scores": [score.to_json() for score in scores],
        "cost": {"audit_seconds": round(time.monotonic() - began, 2), "forward_passes": meter.passes},
        "environment": dossier.environment(),
        "verdict": {"passed": None, "lines": []},
        "notes": notes,
        "splits": {name: len(found_rows) for name, found_rows in rows.items()},
        "over_models": {
            "models": {role: len(x.sources) for role, x in sets.items()},
            "klom": found.klom,
            "course": curve,
            "examples": _most(rows["forget"], scores, first_N, redact),
        },
    }
    if out is not None:
        with out_folder.held(out):
            out_folder.write(out, evidence, render)
    return evidence


def _folders(name: str, patterns: Sequence[str], faults: Faults) -> list[str]:
    """The folders that the patterns stand for, in order; a pattern's own in the order of their names, numbers as numbers."""
    found: list[str] = []
    for pattern in patterns:
        try:
            pattern = expand(pattern, name)
        except BadInput as error:
            faults.add(error)
            continue
        matches = sorted(glob.glob(pattern), key=_natural) if glob.has_magic(pattern) else [pattern]
        if not matches:
            faults.add(
                BadInput.of(
                    name, pattern, "matches no folder", "give model folders, or a pattern such as 'runs/*/model'"
                )
            )
        found += [match for match in matches if not glob.has_magic(pattern) or os.path.isdir(match)]
    return found


def _natural(path: str) -> list[Any]:
    parts = "".join(c if c.isdigit() else f"\0{c}\0" for c in path).split("\0")
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts if part]


def _enough(sources: Mapping[str, Sequence[str]], faults: Faults) -> None:
    """Are there models enough, and none twice."""
    least = {
        "unlearned": LEAST,
        "gold": LEAST if sources["floor"] else 2 * LEAST,
        "floor": LEAST,
        "before": LEAST,
        "course": 2,
    }
    for name, folders in sources.items():
        needed = name in ("unlearned", "gold") or folders
        if needed and len(folders) < least[name]:
            why = "a course has an order" if name == "course" else PAPERS
            halves = (
                "; without --floor half of them are the second set" if name == "gold" and not sources["floor"] else ""
            )
            faults.add(
                BadInput.of(
                    name,
                    f"{len(folders)} model{'' if len(folders) == 1 else 's'}",
                    "is too few",
                    f"give {least[name]} at least: {why}{halves}",
                )
            )
    places: dict[str, str] = {}
    for name in ("unlearned", "gold", "floor", "before"):
        for folder in sources[name]:
            real = os.path.realpath(folder)
            if real in places:
                faults.add(
                    BadInput.of(
                        name,
                        folder,
                        f"stands there twice (also under {places[real]})",
                        "give each model once: one that is counted twice makes chance look small",
                    )
                )
            places[real] = name


def _halved(sources: dict[str, list[str]], seed: int) -> list[str]:
    """Parts the golds into "reference" and "floor" where no floor was given; what there is to say of it."""
    golds = sources["gold"]
    sources["reference"] = golds
    if sources["floor"]:
        return []
    second = set(permutation(len(golds), seed, "floor")[: len(golds) // 2])
    sources["reference"] = [folder for i, folder in enumerate(golds) if i not in second]
    sources["floor"] = [folder for i, folder in enumerate(golds) if i in second]
    return [
        f"The {len(golds)} retrained models were halved by the seed: one half is the reference, the other the noise floor."
    ]


WHO = {"before": "before", "unlearned": "after", "floor": "gold", "reference": "reference", "course": "course"}


def _read(
    sources: Mapping[str, Sequence[str]], rows: Splits, meter: reading.Meter, reporter: Reporter
) -> dict[str, Set]:
    """Who -> what was read; every model is opened once. Raises BadInput where models do not go together."""
    wanted = {name: folders for name, folders in sources.items() if name in WHO and folders}
    total = sum(map(len, wanted.values()))
    reporter.start("reading models", total)
    sets: dict[str, Set] = {}
    first: tuple[str, Any] | None = None
    seen: dict[str, str] = {}
    done = 0
    for name, folders in wanted.items():
        mine = sets[WHO[name]] = Set(list(folders))
        phi: dict[str, list[np.ndarray]] = {split: [] for split in rows}
        for folder in folders:
            model = open_model(folder)
            print_ = model.fingerprint()
            kind = _kind(model, print_)
            first = first or (folder, kind)
            if kind != first[1]:
                raise BadInput.of(
                    name,
                    folder,
                    f"has another tokenizer, template or set of classes than {first[0]}",
                    "give models of one family, that read the examples alike",
                )
            fits_model(model, rows)
            same = digest(print_)
            if same in seen and name != "course":
                raise BadInput.of(
                    name,
                    folder,
                    f"holds the same weights as {seen[same]}",
                    "make each model with a seed of its own: copies make chance look small",
                )
            if name != "course":
                seen[same] = folder
            for split, examples in rows.items():
                found = reading.read(
                    model, split, examples, CHANNELS, role=f"{name} {done}", fingerprint=print_, meter=meter
                )
                phi[split].append(confidence(knowledge(found)))
                mine.scores.setdefault(split, []).append(attack_scores(found))
            done += 1
            reporter.advance("reading models", done, name)
        mine.phi = {split: np.stack(found) for split, found in phi.items()}
    reporter.finish("reading models")
    return sets


def _kind(model: Any, fingerprint: Any) -> Any:
    """What two models must share for their confidences in an answer to mean the same."""
    while isinstance(fingerprint, Mapping) and ("bare" in fingerprint or "members" in fingerprint):
        fingerprint = fingerprint.get("bare") or fingerprint["members"][0]
    template = fingerprint.get("template"), fingerprint.get("tokenizer")
    return [model.family, *template]


def _most(
    rows: Sequence[Any], scores: Sequence[Score], first_N: np.ndarray | None, redact: bool
) -> list[dict[str, Any]]:
    """The examples by which unlearned models are told best, with their own figures."""
    values = {
        score.name.removeprefix("privacy_"): score.values
        for score in scores
        if score.role == "after" and score.split == "forget" and score.values is not None
    }
    shown = [name for name in ("klom", "epsilon", "u_lira_auc") if name in values]
    if not shown:
        return []
    order = np.argsort(-np.asarray(values[shown[0]]), kind="stable")[:SHOWN]
    return [
        {
            "row": int(i) + 1,
            **({} if redact else {"question": question_of(rows[i]), "answer": answer_of(rows[i])}),
            **{name: round(float(np.asarray(values[name])[i]), 4) for name in shown},
            **({} if first_N is None else {"first_exposed": int(first_N[i])}),
        }
        for i in order
    ]
