"""Find what to forget: poisoned or mislabelled training rows, or those that teach a slice of errors."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from expunge.core import registry
from expunge.core.card import DetectorCard, Example
from expunge.core.contracts import Model, Reporter, Silent
from expunge.core.errors import BadInput, Faults, did_you_mean
from expunge.data.load import load
from expunge.data.rows import take
from expunge.data.texts import write_rows
from expunge.evaluation import intervals, slices
from expunge.evaluation.detection import Detector, Sample, Suspicion, features_of, penultimate
from expunge.evaluation.hidden_states import pooled_states
from expunge.evaluation.ood import read_rows
from expunge.evaluation.scores import Figure, Label, Score
from expunge.evaluation.triggers import find_triggers, outcome_name
from expunge.models.family import family
from expunge.models.manifest import manifest_of
from expunge.models.open import open_model
from expunge.pipeline.retraining import retraining
from expunge.pipeline.worlds import folder_of
from expunge.workflows._sources import check_sources

WHAT = ("poison",)
STAGE = "detector"
MOST_WORDS = 3
"""Words of a trigger that are searched for at most: each costs as much as all before."""
LEAST = 20
"""Rows that a detector needs: below it a cluster is an accident."""


def find(
    what: str,
    data: Any,
    model: str,
    *,
    detector: str | Mapping[str, Any] = "activation_clustering",
    truth: str | None = None,
    out: str | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Find the rows among a model's training data that a detector holds for poisoned, and return the figures.

    The model is a classifier, or a language model for detectors that read features alone.

    what: "poison". data: the rows that the model was trained on. detector: a name, or {name: {option: value}}. truth: a
    field that says of each row whether it is poisoned; then the detector is scored by it. out: a new JSONL file for the
    suspects, which `run` takes as `forget`. Raises BadInput; then nothing is written.
    """
    rows, name, detect = _check_inputs(what, data, model, detector, truth, out)
    reporter = reporter or Silent()
    reporter.start(STAGE, 2)
    sample = _sample(model, name, rows, seed, reporter)
    reporter.advance(STAGE, 1, name)
    found = detect(sample)
    reporter.finish(STAGE)
    if out is not None:
        places = np.flatnonzero(found.suspect_N)
        suspects = zip(take(rows, places), found.score_N[places], strict=True)
        write_rows(Path(out), [{**row, "suspicion": round(float(score), 4)} for row, score in suspects])
    return {
        "detector": name,
        "rows": len(rows),
        "suspects": suspects_of(found, sample),
        "classes": classes_of(found, sample),
        "scores": [score.to_json() for score in (scores(found, rows, truth) if truth else [])],
        "out": out,
    }


def find_slices(
    data: Any,
    model: str,
    *,
    train: Any = None,
    out: str | None = None,
    seed: int = 0,
    reporter: Reporter | None = None,
) -> dict[str, Any]:
    """Find slices of a classifier's errors on rows that it never trained on, and return them with their descriptions.

    data: such rows; their other fields (a word, a number, a text) describe a slice. train: the rows that it was trained
    on; the first described slice then names those of the class that its rows are taken for, with its clearest
    attribute. out: a new JSONL file for these, which `run` takes as `forget`. Raises BadInput; then nothing is written.
    """
    rows, taught = _check_slices(data, model, train, out)
    opened = _open(folder_of(model, reporter or Silent()), model, rows)
    labels_N, predicted_N = _labels(rows), read_rows(opened, rows).logits_NC.argmax(axis=1)
    found = slices.find_slices(rows, penultimate(opened, rows), labels_N, predicted_N, seed=seed % 2**32)
    first = next((one for one in found if one.described), None)
    places = np.zeros(0, dtype=int)
    if first is not None and len(taught):
        places = slices.taught_by(taught, _labels(taught), first)
    if out is not None:
        if not len(places):
            raise BadInput.of("--train", str(train), "has no row that a slice of errors names", "leave --out out")
        write_rows(Path(out), [dict(row) for row in take(taught, places)])
    return {
        "rows": len(rows),
        "errors": int((predicted_N != labels_N).sum()),
        "slices": [slices.summary(one, labels_N) for one in found],
        "taught": [int(i) + 1 for i in places],
        "out": out,
    }


def find_trigger(
    data: Any, model: str, *, words: int = 1, share: float = 0.7, seed: int = 0, reporter: Reporter | None = None
) -> dict[str, Any]:
    """Find words that call up one outcome before any text, and return them with whether they look like a trigger.

    data: texts or questions that the model takes. model: a classifier of texts or a language model. words: of a
    trigger at most. share: of the inputs that a candidate flips at least. Raises BadInput.
    """
    faults = Faults()
    rows: Sequence[Example] = []
    with faults:
        rows = _rows(data, "data")
    with faults:
        check_sources({"after": model}, False)
    with faults:
        if not 1 <= words <= MOST_WORDS or not 0 < share <= 1:
            fix = f"give 1 to {MOST_WORDS} words, and a share above 0 and at most 1"
            raise BadInput.of("find", f"words {words}, share {share}", "is outside its bounds", fix)
    faults.raise_any()
    opened = _open(folder_of(model, reporter or Silent()), model, rows, ("labels", "tokens"))
    found = find_triggers(opened, rows, words=words, share=share, seed=seed)
    return {
        "rows": len(rows),
        "candidates": [
            {
                "words": " ".join(one.words),
                "outcome": outcome_name(opened, one.outcome),
                "share": one.share,
                "apart": one.apart,
            }
            for one in found
        ],
        "trigger": next((" ".join(one.words) for one in found if one.apart), None),
    }


def _check_slices(data: Any, model: str, train: Any, out: str | None) -> tuple[Sequence[Example], Sequence[Example]]:
    """(unseen rows, training rows if any). Raises BadInput with every fault of the input."""
    faults = Faults()
    rows: Sequence[Example] = []
    taught: Sequence[Example] = []
    with faults:
        rows = _rows(data, "data")
    with faults:
        check_sources({"after": model}, False)
    with faults:
        taught = [] if train is None else _rows(train, "--train")
        if out is not None and train is None:
            raise BadInput.of("--out", out, "needs training rows to choose from", "name them under --train")
        _check_out(out)
    faults.raise_any()
    return rows, taught


def _rows(source: Any, field: str) -> Sequence[Example]:
    """The rows of a source. Raises BadInput where there are too few."""
    rows = load(source, field)
    if len(rows) < LEAST:
        raise BadInput.of(field, len(rows), "are too few rows to tell some from others", f"give {LEAST} or more")
    return rows


def _labels(rows: Sequence[Example]) -> np.ndarray:
    return np.array([int(row["label"]) for row in rows])


def _check_out(out: str | None) -> None:
    """Raises BadInput where the file exists, or has no folder."""
    if out is not None and Path(out).exists():
        raise BadInput.of("--out", out, "already exists", "choose another file")
    if out is not None and not Path(out).absolute().parent.is_dir():
        raise BadInput.of("--out", out, "is in a missing folder", "create the folder, or choose another")


def _open(folder: str, source: str, rows: Sequence[Example], of: Collection[str] = ("labels",)) -> Model:
    """The model of a folder. Raises BadInput where it has none of these capabilities, or does not take the rows."""
    model: Model = open_model(folder)
    if not model.capabilities & set(of):
        title = family(model.family).title
        fix = "give a classifier, or for texts the detector outliers or spectral_signatures"
        raise BadInput.of("model", source, f"is a {title}, and this compares classes", fix)
    model.accepts("data", rows)
    return model


def _check_inputs(
    what: str, data: Any, model: str, detector: str | Mapping[str, Any], truth: str | None, out: str | None
) -> tuple[Sequence[Example], str, Detector]:
    """(rows, name of the detector, detector). Raises BadInput with every fault of the input."""
    faults = Faults()
    rows: Sequence[Example] = []
    name, detect = "", None
    with faults:
        if what not in WHAT:
            known = f"call find_{what}" if what in ("slices", "trigger") else did_you_mean(what, WHAT)
            raise BadInput.of("find", what, "cannot be found", known)
    with faults:
        rows = _rows(data, "data")
        if truth is not None:
            _truth(rows, truth)
    with faults:
        check_sources({"after": model}, False)
    with faults:
        name, detect = _detector(detector)
    with faults:
        _check_out(out)
    faults.raise_any()
    assert detect is not None
    return rows, name, detect


def _detector(given: str | Mapping[str, Any]) -> tuple[str, Detector]:
    """The detector of a name or of {name: options}. Raises BadInput."""
    name, options = (given, {}) if isinstance(given, str) else next(iter(given.items()))
    plugin: registry.Plugin[DetectorCard] = registry.load("detectors", name, "detector")
    return name, plugin.factory(**plugin.validate(options or {}, f"detector.{name}"))


def _sample(source: str, detector: str, rows: Sequence[Example], seed: int, reporter: Reporter) -> Sample:
    """The rows as a detector sees them. Raises BadInput where it needs classes that the model has not, or the model
    does not take the rows."""
    folder = folder_of(source, reporter)
    free = not registry.load("detectors", detector, "detector").card.capabilities
    model = _open(folder, source, rows, {"labels", "tokens"} if free else {"labels"})
    if not family(model.family).labelled:
        states_ND = pooled_states(model, rows)[model.blocks[-1]].astype(np.float64)
        return Sample(states_ND, np.zeros(len(rows), dtype=int), seed)
    manifest, read = manifest_of(folder), read_rows(model, rows)
    retrain = None if manifest is None else retraining(model, manifest, rows, reporter)
    return Sample(features_of(model, read), _labels(rows), seed, retrain, read)


def _truth(rows: Sequence[Example], field: str) -> np.ndarray:
    """[N] whether a row is poisoned, by a field of its own. Raises BadInput."""
    found = [row.get(field) for row in rows]
    for i, value in enumerate(found):
        if not isinstance(value, bool | np.bool_) and value not in (0, 1):
            reason = f"has {field}: {value}, which does not say whether it is poisoned"
            raise BadInput.of("--truth", f"row {i + 1}", reason, "name a field that is true or false on each row")
    if len(set(map(bool, found))) < 2:
        raise BadInput.of("--truth", field, "is the same on all rows", "leave --truth out")
    return np.array(found, dtype=bool)


def suspects_of(found: Suspicion, sample: Sample) -> list[dict[str, Any]]:
    """The suspects, most suspicious first: row (from 1), label and score."""
    places = [i for i in np.argsort(-found.score_N, kind="stable").tolist() if found.suspect_N[i]]
    return [
        {"row": i + 1, "label": int(sample.labels_N[i]), "score": round(float(found.score_N[i]), 4)} for i in places
    ]


def classes_of(found: Suspicion, sample: Sample) -> list[dict[str, Any]]:
    """Each class that has suspects or a remark: its rows, its suspects, and the remark."""
    listed = []
    for label in np.unique(sample.labels_N).tolist():
        of_class_N = sample.labels_N == label
        suspects = int((of_class_N & found.suspect_N).sum())
        if suspects or label in found.remarks:
            remark = found.remarks.get(label, "")
            listed.append({"label": label, "rows": int(of_class_N.sum()), "suspects": suspects, "why": remark})
    return listed


def scores(found: Suspicion, rows: Sequence[Example], truth: str) -> list[Score]:
    """AUROC of the scores, and recall and precision of the suspects, by what is known to be poisoned."""
    poisoned_N = _truth(rows, truth)
    hits = int((poisoned_N & found.suspect_N).sum())
    auc = intervals.auc(found.score_N[poisoned_N], found.score_N[~poisoned_N])
    figures = {"auc": ("auc", Figure(*auc, n=len(rows)))}
    for name, total in (("recall", int(poisoned_N.sum())), ("precision", int(found.suspect_N.sum()))):
        if total:
            figures[name] = ("share", Figure(*intervals.share(hits, total), n=total))
    return [Score.of_figure(figure, **_label(name, unit)) for name, (unit, figure) in figures.items()]


def _label(name: str, unit: str) -> Label:
    side = "robustness"
    return {
        "name": f"{side}_detection_{name}",
        "side": side,
        "split": "data",
        "role": "before",
        "unit": unit,
        "better": "higher",
    }
