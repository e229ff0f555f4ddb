"""Evidence over many models: unlearned ones and retrained ones, compared as distributions.

One model says little of a method that draws lots. Here are several that unlearned, several that were retrained without
the forget set, and a second set of those: the difference of two sets of retrained models is the noise floor of every
figure. Suffixes: M, K models, N examples, S seeds, A attacks, E checks of a training.
"""

from __future__ import annotations

import glob
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from expunge.attacks.population import scores as population
from expunge.attacks.shared.membership import attack_scores
from expunge.attacks.shared.shadow_models import answer_losses, confidence
from expunge.core.audit_request import ExposureRequest
from expunge.core.contracts import Model, Reporter, Silent
from expunge.core.errors import BadInput, Faults, as_written
from expunge.core.files import digest
from expunge.core.random import permutation
from expunge.core.variables import expand
from expunge.data.examples import answer_of, question_of
from expunge.data.sampling import sample
from expunge.data.splits import Splits, make_splits
from expunge.evaluation import reading
from expunge.evaluation.groups import groups_of
from expunge.evaluation.scores import Score
from expunge.models.open import check, open_model
from expunge.pipeline import evidence as dossier
from expunge.pipeline import out_folder
from expunge.pipeline.clients import holder_in
from expunge.pipeline.compatibility import fits_model
from expunge.pipeline.partition import OTHERS_READ
from expunge.report.exposure import render

MIN_MODELS = 4
"""Models of a set: each half of them is attacked with the other half as shadows, which takes two of each."""
MAX_EXAMPLES = 24
"""Examples that the evidence names, the most exposed first."""
SPLITS = ("data", "forget", "retain", "holdout")
"""The data, by the fields of the request."""
STAGE = "reading models"
CHANNELS = {"nll", "logp", "moments", "logits"}
PAPERS = "a distribution of models is compared with another (papers take 100 to 512 a side)"
ROLES = {"before": "before", "unlearned": "after", "floor": "gold", "reference": "reference", "course": "course"}
"""Set of models -> its role in the evidence, in the order in which they are read."""
Sources = dict[str, list[str]]
"""Set of models -> its folders."""


@dataclass
class ModelSet:
    """The readings of several models: phi by split, and the attacks' scores."""

    sources: list[str]
    phi: dict[str, np.ndarray] = field(default_factory=dict)
    """Split -> [M, N] confidences log(p / (1 - p)) of each answer, per token."""
    scores: dict[str, list[dict[str, np.ndarray]]] = field(default_factory=dict)
    """Split -> by model, attack -> [N] scores."""


def exposure(
    request: ExposureRequest | Mapping[str, Any] | None = None, *, reporter: Reporter | None = None, **fields: Any
) -> dict[str, Any]:
    """Compare unlearned with retrained models, and return the evidence; with `out` also write it with its report.

    request: an ExposureRequest, or a mapping of its fields. fields: fields of ExposureRequest, as in
    `exposure(unlearned=["u/*"], gold=["g/*"], forget="f.jsonl")`. Raises BadInput with every fault before a model is
    opened, and where models that were opened do not go together.
    """
    began = time.monotonic()
    reporter = reporter or Silent()
    checked, sources, rows = _check(request, fields)
    notes = _halve(sources, checked.seed)
    meter = reading.Meter()
    with out_folder.hold(checked.out):
        sets = _Reader(rows, meter, reporter).read(sources)
        scores, remarks, over_models = _figures(checked, sets, rows)
        evidence = dossier.build(
            title="Exposure over many models",
            request={
                "model": f"{len(sources['unlearned'])} unlearned models",
                **{name: [*map(as_written, folders)] for name, folders in sources.items() if folders},
                "redact": checked.redact,
                "seed": checked.seed,
            },
            scores=scores,
            cost={"audit_seconds": round(time.monotonic() - began, 2), "forward_passes": meter.passes},
            notes=[*notes, *remarks],
            splits=rows,
            over_models=over_models,
        )
        if checked.out is not None:
            out_folder.write(checked.out, evidence, render)
    return evidence


def _check(
    given: ExposureRequest | Mapping[str, Any] | None, fields: Mapping[str, Any]
) -> tuple[ExposureRequest, Sources, Splits]:
    """(the request, its models, the examples that are read). Raises BadInput with every fault."""
    faults = Faults()
    request, errors = ExposureRequest.of(given, fields)
    for error in errors:
        faults.add(error)
    if request is None:
        raise BadInput.all(faults.errors)
    splits: Splits = {}
    patterns = {name: getattr(request, name) for name in ("unlearned", "gold", "floor", "before", "course")}
    places = Faults()
    sources = {name: _folders(name, some, places) for name, some in patterns.items()}
    with faults:
        data = {name: getattr(request, name) for name in SPLITS}
        trained = [folder for folders in sources.values() for folder in folders]
        splits = make_splits(data, seed=request.seed, client=holder_in(trained))
    for error in places.errors:
        faults.add(error)
    _check_counts(sources, faults)
    for name, folders in sources.items():
        for folder in folders:
            with faults:
                check(folder, False, field=name)
    if request.course and "holdout" not in splits and not faults.errors:
        reason = "needs examples that were never trained on, to say who is found by chance"
        faults.add(BadInput.of("course", "", reason, "add holdout: FILE, or leave the course out"))
    if request.out is not None:
        with faults:
            out_folder.free(request.out)
    faults.raise_any()
    rows = {
        name: some if name == "forget" else sample(some, request.seed, OTHERS_READ) for name, some in splits.items()
    }
    return request, sources, rows


def _figures(
    request: ExposureRequest, sets: dict[str, ModelSet], rows: Splits
) -> tuple[list[Score], list[str], dict[str, Any]]:
    """(scores, remarks, the parts that no score holds)."""
    course = sets.pop("course", None)
    groups = {split: groups_of(some) for split, some in rows.items()}
    found = population.population_scores({role: one.phi for role, one in sets.items()}, request.seed, groups)
    attacked = {role: one.scores for role, one in sets.items() if role != "reference"}
    scores = [*found.scores, *population.coverages(attacked)]
    curve: list[dict[str, float]] = []
    first_N = None
    if course is not None:
        score, curve, first_N = population.course(course.phi["forget"], course.phi["holdout"])
        scores.append(score)
    remarks = [*found.notes, population.chance(min(len(one.sources) for one in sets.values()))]
    over_models = {
        "models": {role: len(one.sources) for role, one in sets.items()},
        "klom": found.klom,
        "course": curve,
        "examples": _most_exposed(rows["forget"], scores, first_N, request.redact),
    }
    return scores, remarks, over_models


def _folders(name: str, patterns: Sequence[str], faults: Faults) -> list[str]:
    """The folders that the patterns match, in order; those of one pattern by name, numbers as numbers."""
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


def _check_counts(sources: Sources, faults: Faults) -> None:
    """Check that there are models enough, and none twice."""
    least = {
        "unlearned": MIN_MODELS,
        "gold": MIN_MODELS if sources["floor"] else 2 * MIN_MODELS,
        "floor": MIN_MODELS,
        "before": MIN_MODELS,
        "course": 2,
    }
    for name, folders in sources.items():
        needed = name in ("unlearned", "gold") or folders
        if needed and len(folders) < least[name]:
            why = "a course has an order" if name == "course" else PAPERS
            if name == "gold" and not sources["floor"]:
                why += "; without --floor half of them are the second set"
            count = f"{len(folders)} model{'' if len(folders) == 1 else 's'}"
            faults.add(BadInput.of(name, count, "is too few", f"give {least[name]} at least: {why}"))
    places: dict[str, str] = {}
    for name in ("unlearned", "gold", "floor", "before"):
        for folder in sources[name]:
            real = os.path.realpath(folder)
            if real in places:
                faults.add(
                    BadInput.of(
                        name,
                        folder,
                        f"is given twice (also under {places[real]})",
                        "give each model once: one that is counted twice makes chance look small",
                    )
                )
            places[real] = name


def _halve(sources: Sources, seed: int) -> list[str]:
    """Part the golds into "reference" and "floor" where no floor was given, and say so."""
    golds = sources["gold"]
    sources["reference"] = golds
    if sources["floor"]:
        return []
    second = set(permutation(len(golds), seed, "floor")[: len(golds) // 2])
    sources["reference"] = [folder for i, folder in enumerate(golds) if i not in second]
    sources["floor"] = [folder for i, folder in enumerate(golds) if i in second]
    return [
        f"The {len(golds)} retrained models were halved by the seed: one half is the reference, the other the noise "
        "floor."
    ]


class _Reader:
    """Opens every model once and reads it; refuses models that do not go together, and copies."""

    def __init__(self, rows: Splits, meter: reading.Meter, reporter: Reporter) -> None:
        self.rows, self.meter, self.reporter = rows, meter, reporter
        self.first: tuple[str, Any] | None = None
        """(folder, kind) of the first model."""
        self.seen: dict[str, str] = {}
        """Digest of a model -> its folder."""
        self.done = 0

    def read(self, sources: Sources) -> dict[str, ModelSet]:
        """Role -> its models, read. Raises BadInput."""
        wanted = {name: folders for name, folders in sources.items() if name in ROLES and folders}
        self.reporter.start(STAGE, sum(map(len, wanted.values())))
        sets = {ROLES[name]: self._set(name, folders) for name, folders in wanted.items()}
        self.reporter.finish(STAGE)
        return sets

    def _set(self, name: str, folders: list[str]) -> ModelSet:
        found = ModelSet(list(folders))
        phi: dict[str, list[np.ndarray]] = {split: [] for split in self.rows}
        for folder in folders:
            model = open_model(folder)
            fingerprint = model.fingerprint()
            self._check_kind(name, folder, model, fingerprint)
            fits_model(model, self.rows)
            self._check_copy(name, folder, fingerprint)
            for split, examples in self.rows.items():
                readout = reading.read(
                    model,
                    split,
                    examples,
                    CHANNELS,
                    role=f"{name} {self.done}",
                    fingerprint=fingerprint,
                    meter=self.meter,
                )
                phi[split].append(confidence(answer_losses(model, examples)))
                self.meter.add(f"{name} {self.done} {split} confidences", len(examples), len(examples))
                found.scores.setdefault(split, []).append(attack_scores(readout))
            self.done += 1
            self.reporter.advance(STAGE, self.done, name)
        found.phi = {split: np.stack(some) for split, some in phi.items()}
        return found

    def _check_kind(self, name: str, folder: str, model: Model, fingerprint: Any) -> None:
        kind = _kind(model, fingerprint)
        self.first = self.first or (folder, kind)
        if kind != self.first[1]:
            raise BadInput.of(
                name,
                folder,
                f"has another tokenizer, template or set of classes than {self.first[0]}",
                "give models of one family, that read the examples alike",
            )

    def _check_copy(self, name: str, folder: str, fingerprint: Any) -> None:
        if name == "course":  # checkpoints of one training may be equal, and its last may be in a set
            return
        same = digest(fingerprint)
        if same in self.seen:
            raise BadInput.of(
                name,
                folder,
                f"holds the same weights as {self.seen[same]}",
                "make each model with a seed of its own: copies make chance look small",
            )
        self.seen[same] = folder


def _kind(model: Model, fingerprint: Any) -> Any:
    """The properties that two models must share for their confidences in an answer to mean the same."""
    while isinstance(fingerprint, Mapping) and ("bare" in fingerprint or "members" in fingerprint):
        fingerprint = fingerprint.get("bare") or fingerprint["members"][0]
    template = fingerprint.get("template"), fingerprint.get("tokenizer")
    return [model.family, *template]


def _most_exposed(
    rows: Sequence[Any], scores: Sequence[Score], first_N: np.ndarray | None, redact: bool
) -> list[dict[str, Any]]:
    """The examples by which unlearned models differ most from retrained ones, with their own figures."""
    values = {
        score.name.removeprefix("privacy_"): score.values
        for score in scores
        if score.role == "after" and score.split == "forget" and score.values is not None
    }
    shown = [name for name in ("klom", "epsilon", "u_lira_auc") if name in values]
    if not shown:
        return []
    order = np.argsort(-np.asarray(values[shown[0]]), kind="stable")[:MAX_EXAMPLES]
    return [
        {
            "row": int(i) + 1,
            **({} if redact else {"question": question_of(rows[i]), "answer": answer_of(rows[i])}),
            **{name: round(float(np.asarray(values[name])[i]), 4) for name in shown},
            **({} if first_N is None else {"first_exposed": int(first_N[i])}),
        }
        for i in order
    ]
