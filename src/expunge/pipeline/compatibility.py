"""Do method, model and data go together: each part's card against the family and the examples."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from expunge.core import processes
from expunge.core.card import Card, Example
from expunge.core.contracts import Subject
from expunge.core.errors import BadInput, Faults
from expunge.core.registry import SINGULAR, load
from expunge.data.examples import answer_of, form
from expunge.data.splits import Splits
from expunge.methods.compose import Composed, every_method
from expunge.methods.objective import Objective
from expunge.models.guarded import guards_of


def fits_method(composed: Composed, subject: Subject, splits: Splits) -> None:
    """Does each part go with this family and these data."""
    faults = Faults()
    if "shards" in subject.capabilities and composed.yields != "ensemble":
        raise BadInput.of(
            "method",
            composed.name,
            f"changes a single model, and this one is an ensemble of {len(subject.members)} trained with `exact:`",  # type: ignore[attr-defined]
            f"these would work: {_fitting(subject)}",
        )
    if guards_of(subject) and composed.yields != "guard":
        names = ", ".join(guard.name for guard in guards_of(subject))
        faults.add(
            BadInput.of(
                "model",
                names,
                f"guards this model, and {composed.name} changes weights",
                "take its guard/ folder away first, or choose a guard",
            )
        )
    if processes.world() > 1 and not isinstance(composed.method, Objective):
        faults.add(
            BadInput.of(
                "method",
                composed.name,
                f"is no objective run, and {processes.world()} processes were started",
                "start one process, or choose an objective",
            )
        )
    for plugin in composed.plugins:
        missing = set(plugin.card.capabilities) - subject.capabilities
        if missing:
            faults.add(
                BadInput.of(
                    "method",
                    plugin.name,
                    f"needs {_words(missing)}, which this "
                    f"{FAMILIES.get(subject.family, subject.family)} {'was not' if _history(missing) else 'does not have'}",
                    f"these would work: {_fitting(subject)}",
                )
            )
            continue
        for split, wanted in plugin.card.fields.items():
            for name in wanted:
                without = sum(not _has(row, name) for row in splits.get(split, []))
                if without:
                    faults.add(
                        BadInput.of(
                            split,
                            name,
                            f"is missing in {without} of {len(splits[split])} examples, and {plugin.name} needs it",
                            "add it, or choose another method",
                        )
                    )
        for split in {*_splits_of(plugin.card)} - set(splits):
            if splits:
                faults.add(
                    BadInput.of(
                        split,
                        "",
                        f"is missing, and {plugin.name} cannot do without it",
                        f"add {split}: FILE, or choose another method",
                    )
                )
    for name, by in _split_on(composed):
        without = sum(row.get(by) is None for row in splits.get("forget", []))
        if without:
            faults.add(
                BadInput.of(
                    f"method.{name}.by",
                    by,
                    f"is missing in {without} of {len(splits['forget'])} forget examples",
                    "name a field that all have, or add it",
                )
            )
    if composed.objective is not None and not faults.errors:
        for term in composed.objective.terms.values():
            with faults:
                term.loss.declare(subject)
    faults.raise_any()


def fits_history(composed: Composed, subject: Subject, splits: Splits, manifest: Mapping[str, Any] | None) -> list[str]:
    """Does an exact method go with how the model was trained; what the plan should say of it. Raises BadInput."""
    return composed.method.fits(subject, splits, manifest) if "forget" in splits else []


def _split_on(composed: Composed) -> Iterator[tuple[str, str]]:
    """(wrapper, field) of every wrapper that splits the forget set on a field."""
    level: Composed | None = composed
    while level is not None:
        for name, options in level.described.items():
            if isinstance(options, Mapping) and isinstance(options.get("by"), str):
                yield name, options["by"]
        level = level.inner


FAMILIES = {"causal_lm": "language model"}


def _splits_of(card: Card) -> set[str]:
    streams = {name: stream.split for name, stream in card.streams.items()}
    return {streams.get(name, name) for name in (*card.needs, *card.origin)}


def _has(row: Example, name: str) -> bool:
    return row.get(name) is not None or (name == "question" and "messages" in row)


def _words(missing: set[str]) -> str:
    words = {"labels": "class labels", "generate": "text generation", "tokens": "tokens", "mlp": "MLP layers"}
    schemes = {name.partition(":")[2] for name in missing if name.startswith("exact:")}
    exact = [f"to be trained with `exact: {name}` in train.yaml" for name in sorted(schemes)]
    return " and ".join(
        [
            *exact,
            *sorted(words.get(name, name) for name in missing if name != "shards" and not name.startswith("exact:")),
        ]
    )


def _history(missing: set[str]) -> bool:
    return any(name.startswith("exact:") for name in missing)


def _fitting(subject: Subject) -> str:
    """Methods whose cards go with the subject."""
    found = []
    for name, kind in every_method().items():
        folder = next((k for k, v in SINGULAR.items() if v == kind), None)
        if folder in ("objectives", "edits", "exact", "guards", "wrappers"):
            card = load(folder, name).card
            single = "shards" not in subject.capabilities
            if set(card.capabilities) <= subject.capabilities and single == (card.yields != "ensemble"):
                found.append(name)
    return ", ".join(sorted(found))


def fits_model(subject: Subject, splits: Splits) -> None:
    """Are the examples of the family's kind, and does the model take each."""
    subject = getattr(subject, "members", [subject])[0]  # an ensemble takes what each of its members takes
    labels = "labels" in subject.capabilities
    kind = FAMILIES.get(subject.family, subject.family)
    faults = Faults()
    for name, rows in splits.items():
        for i, row in enumerate(rows):
            has_label = "label" in (form(row) or ())
            if labels != has_label:
                faults.add(
                    BadInput.of(
                        name,
                        f"row {i + 1}",
                        f"has {'a' if has_label else 'no'} label, and the model is a {kind}",
                        "give examples "
                        + (
                            "with image or features, and label"
                            if labels
                            else "with question and answer, text or messages"
                        ),
                    )
                )
                break
        else:
            with faults:
                _taken(subject, name, rows)
    faults.raise_any()


def _taken(subject: Subject, name: str, rows: Sequence[Example]) -> None:
    if "labels" in subject.capabilities:
        _shapes(subject, name, rows)
        return
    # Only an answer that is long in characters can be too long in tokens; only a short text has too few.
    limit = int(getattr(subject, "limit", 0) or 2**20)
    for i, row in enumerate(rows):
        if i < 10 or len(answer_of(row).encode()) >= limit or len(row.get("text", "x" * 64)) < 64:
            try:
                subject.collate([row])
            except BadInput as error:
                raise BadInput(*(f"{name}, row {i + 1}: {fault}" for fault in error.faults)) from None


def _shapes(subject: Subject, name: str, rows: Sequence[Example]) -> None:
    """Have all inputs one shape, one that the network takes; and has it a class for each label."""
    key = next((k for k in ("features", "image") if k in rows[0]), "")
    if key and subject.processor is None:  # type: ignore[attr-defined]
        first = np.shape(rows[0][key])
        for i, row in enumerate(rows):
            if key not in row or np.shape(row[key]) != first:
                raise BadInput.of(
                    name,
                    f"row {i + 1}",
                    f"has another shape of {key} than row 1 ({list(first)})",
                    "bring all to one shape",
                )
    try:
        batch = subject.collate(rows[:2])
    except BadInput:
        raise
    except Exception as error:  # a processor of anyone's looks at rows of anyone's
        raise BadInput.of(name, "row 1", f"cannot be put into a batch ({error})", "give arrays of one shape") from None
    device = next(subject.module.parameters()).device
    try:
        with torch.no_grad():
            inputs = {k: v.to(device) for k, v in batch.inputs.items()}
            out = subject.module(inputs["x"]) if subject.processor is None else subject.module(**inputs).logits  # type: ignore[attr-defined]
    except Exception as error:
        if device.type == "meta" and not re.search("shape|size|dim|channel|expected", str(error)):
            return  # a network that needs real tensors: the run will tell
        first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise BadInput.of(
            name, "row 1", f"does not fit the network ({first_line})", "give inputs of the shape that it takes"
        ) from None
    classes = int(out.shape[-1])
    for i, row in enumerate(rows):
        if int(row["label"]) >= classes:
            raise BadInput.of(
                name,
                f"row {i + 1}",
                f"has the label {int(row['label'])}, and the network has {classes} classes",
                f"give labels from 0 to {classes - 1}",
            )
