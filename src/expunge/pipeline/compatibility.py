"""Do method, model and data go together: each part's card against the family and the examples."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch

from expunge.core import processes
from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.core.errors import BadInput, Faults
from expunge.core.registry import SINGULAR, load
from expunge.data.examples import answer_of, form
from expunge.data.splits import Splits
from expunge.methods.compose import Composed, every_method
from expunge.methods.objective import Objective
from expunge.models.guarded import guards_of


def fits_method(composed: Composed, model: Model, splits: Splits) -> None:
    """Does each part go with this family and these data."""
    faults = Faults()
    if "shards" in model.capabilities and composed.yields != "ensemble":
        raise BadInput.of(
            "method",
            composed.name,
            f"changes a single model, and this one is an ensemble of {len(model.members)} trained with `exact:`",  # type: ignore[attr-defined]
            f"these would work: {_fitting(model)}",
        )
    if guards_of(model) and composed.yields != "guard":
        names = ", ".join(guard.name for guard in guards_of(model))
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
        missing = set(plugin.card.capabilities) - model.capabilities
        if missing:
            faults.add(
                BadInput.of(
                    "method",
                    plugin.name,
                    f"needs {_words(missing)}, which this "
                    f"{FAMILIES.get(model.family, model.family)} {'was not' if _history(missing) else 'does not have'}",
                    f"these would work: {_fitting(model)}",
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
        for split in {*plugin.card.sources} - set(splits):
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
                term.loss.declare(model)
    faults.raise_any()


def fits_history(composed: Composed, model: Model, splits: Splits, manifest: Mapping[str, Any] | None) -> list[str]:
    """Does an exact method go with how the model was trained; what the plan should say of it. Raises BadInput."""
    return composed.method.fits(model, splits, manifest) if "forget" in splits else []


def _split_on(composed: Composed) -> Iterator[tuple[str, str]]:
    """(wrapper, field) of every wrapper that splits the forget set on a field."""
    level: Composed | None = composed
    while level is not None:
        for name, options in level.described.items():
            if isinstance(options, Mapping) and isinstance(options.get("by"), str):
                yield name, options["by"]
        level = level.inner


FAMILIES = {"causal_lm": "language model"}


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


def _fitting(model: Model) -> str:
    """Methods whose cards go with the model."""
    found = []
    for name, kind in every_method().items():
        folder = next((k for k, v in SINGULAR.items() if v == kind), None)
        if folder in ("objectives", "edits", "exact", "guards", "wrappers"):
            card = load(folder, name).card
            single = "shards" not in model.capabilities
            if set(card.capabilities) <= model.capabilities and single == (card.yields != "ensemble"):
                found.append(name)
    return ", ".join(sorted(found))


def fits_model(model: Model, splits: Splits) -> None:
    """Are the examples of the family's kind, and does the model take each."""
    model = getattr(model, "members", [model])[0]  # an ensemble takes what each of its members takes
    labels = "labels" in model.capabilities
    kind = FAMILIES.get(model.family, model.family)
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
                _taken(model, name, rows)
    faults.raise_any()


def _taken(model: Model, name: str, rows: Sequence[Example]) -> None:
    if "labels" in model.capabilities:
        _shapes(model, name, rows)
        return
    # Only an answer that is long in characters can be too long in tokens; only a short text has too few.
    limit = int(getattr(model, "limit", 0) or 2**20)
    for i, row in enumerate(rows):
        if i < 10 or "messages" in row or len(answer_of(row).encode()) >= limit or len(row.get("text", "x" * 64)) < 64:
            try:
                model.collate([row])
            except BadInput as error:
                raise BadInput(*(f"{name}, row {i + 1}: {fault}" for fault in error.faults)) from None


def _shapes(model: Model, name: str, rows: Sequence[Example]) -> None:
    """Have all inputs one shape, one that the network takes; and has it a class for each label."""
    key = next((k for k in ("features", "image") if k in rows[0]), "")
    if key and model.processor is None:  # type: ignore[attr-defined]
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
        batch = model.collate(rows[:2])
    except BadInput:
        raise
    except Exception as error:  # a processor of anyone's looks at rows of anyone's
        raise BadInput.of(name, "row 1", f"cannot be put into a batch ({error})", "give arrays of one shape") from None
    device = next(model.module.parameters()).device
    try:
        with torch.no_grad():
            inputs = {k: v.to(device) for k, v in batch.inputs.items()}
            out = model.module(inputs["x"]) if model.processor is None else model.module(**inputs).logits  # type: ignore[attr-defined]
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
