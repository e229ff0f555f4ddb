"""The compatibility of method, model and data: each part's card against the family and the examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from expunge.core import processes
from expunge.core.budget import Budget
from expunge.core.card import Example, MethodCard
from expunge.core.channels import words_of
from expunge.core.contracts import Model
from expunge.core.errors import BadInput, Faults
from expunge.core.registry import SINGULAR, Plugin, load
from expunge.data.splits import Splits
from expunge.methods.compose import Composed, every_method
from expunge.methods.objective import Objective
from expunge.models.comparable import check_terms, terms_of
from expunge.models.family import CAPABILITIES, family
from expunge.models.guarded import guards_of


def fits_method(composed: Composed, model: Model, splits: Splits) -> None:
    """Check that each part suits this model and these data. Raises BadInput with every fault."""
    _fits_ensemble(composed, model)
    _fits_weights(composed, model)
    faults = Faults()
    for fault in _method_faults(composed, model, splits):
        faults.add(fault)
    if composed.objective is not None and not faults.errors:
        with faults:
            _fits_channels(composed.objective, model)
    if composed.objective is not None and not faults.errors:
        for term in composed.objective.terms.values():
            with faults:
                term.loss.declare(model)
    faults.raise_any()


def _fits_ensemble(composed: Composed, model: Model) -> None:
    """Raises BadInput where a method that changes a single model meets an ensemble."""
    if "shards" in model.capabilities and composed.yields != "ensemble":
        raise BadInput.of(
            "method",
            composed.name,
            f"changes a single model, and this one is an ensemble of {len(model.members)} trained with `exact:`",  # type: ignore[attr-defined]
            f"these would work: {', '.join(fitting(model))}",
        )


def has_weights(model: Model) -> bool:
    """Whether steps and edits could change the model."""
    return family(model.family).weights


def _fits_weights(composed: Composed, model: Model) -> None:
    """Raises BadInput where a method that changes weights meets a model without."""
    if not has_weights(model) and any(plugin.kind != "exact" for plugin in composed.plugins):
        why = f"changes weights, and a {family(model.family).title} has none"
        raise BadInput.of("method", composed.name, why, f"these would work: {', '.join(fitting(model))}")


CLOSED = ("wrappers", "edits")
"""Kinds whose channels stand on the card alone: a term's are those that it declares."""


def _method_faults(composed: Composed, model: Model, splits: Splits) -> Iterator[BadInput]:
    """The faults of a method as a whole, and those of each part."""
    if guards_of(model) and composed.yields != "guard":
        names = ", ".join(guard.name for guard in guards_of(model))
        why = f"guards this model, and {composed.name} changes weights"
        yield BadInput.of("model", names, why, "take its guard/ folder away first, or choose a guard")
    if (count := processes.world()) > 1 and (parts := _in_one_process(composed)):
        why = f"runs in one process, and {count} were started"
        yield BadInput.of("method", ", ".join(parts), why, "start one process, or choose other parts")
    for plugin in composed.plugins:
        yield from _plugin_faults(plugin, model, splits)
    for name, by in _split_on(composed):
        without = sum(row.get(by) is None for row in splits.get("forget", []))
        if without:
            why = f"is missing in {without} of {len(splits['forget'])} forget examples"
            yield BadInput.of(f"method.{name}.by", by, why, "name a field that all have, or add it")


def fits_sharding(composed: Composed, budget: Budget) -> None:
    """Raises BadInput where the weights are to be split over the processes under an update that was not shown to."""
    updates = [plugin.name for plugin in composed.plugins if plugin.kind == "updates" and plugin.name != "plain"]
    if budget.shard and updates:
        why = "takes further passes over weights that `budget.shard` splits over the processes"
        raise BadInput.of("method.update", updates[0], why, "leave one of them out")


def _in_one_process(composed: Composed) -> list[str]:
    """The parts of a method that do not run distributed: those of whom the card does not say so."""
    if not isinstance(composed.method, Objective):
        return [composed.name]
    return [plugin.name for plugin in composed.plugins if not plugin.card.distributed]


def _plugin_faults(plugin: Plugin[MethodCard], model: Model, splits: Splits) -> Iterator[BadInput]:
    """A fault for each thing that the part's card asks for and the model or the data do not have."""
    if missing := set(plugin.card.capabilities) - model.capabilities:
        title, lacks = family(model.family).title, "was not" if _history(missing) else "does not have"
        yield BadInput.of(
            "method",
            plugin.name,
            f"needs {_words(missing)}, which this {title} {lacks}",
            f"these would work: {', '.join(fitting(model))}",
        )
        return
    if plugin.kind in CLOSED and (channels := _channels(plugin.card) - family(model.family).gives):
        yield BadInput.of(
            "method",
            plugin.name,
            f"needs {' and '.join(sorted(map(words_of, channels)))}, which no {family(model.family).title} gives",
            f"these would work: {', '.join(fitting(model))}",
        )
        return
    for split, wanted in plugin.card.fields.items():
        for name in wanted:
            without = sum(not _has(row, name) for row in splits.get(split, []))
            if without:
                yield BadInput.of(
                    split,
                    name,
                    f"is missing in {without} of {len(splits[split])} examples, and {plugin.name} needs it",
                    "add it, or choose another method",
                )
    for split in {*plugin.card.sources} - set(splits):
        if splits:
            yield BadInput.of(
                split,
                "",
                f"is missing, and {plugin.name} cannot do without it",
                f"add {split}: FILE, or choose another method",
            )


def _fits_channels(objective: Objective, model: Model) -> None:
    """Raises BadInput where a loss term needs a channel that no model of the family gives."""
    kind = family(model.family)
    for name, term in {**objective.terms, **objective.update.terms}.items():
        for wanted in (*term.needs.values(), *term.reference.values()):
            for channel in (one.partition(":")[0] for one in wanted):
                if channel != "hidden" and channel not in kind.gives:
                    raise BadInput.of(
                        "method",
                        name,
                        f"needs {words_of(channel)}, which no {kind.title} gives",
                        f"these would work: {', '.join(fitting(model))}",
                    )


def fits_history(composed: Composed, model: Model, splits: Splits, manifest: Mapping[str, Any] | None) -> list[str]:
    """Check an exact method against how the model was trained; remarks for the plan. Raises BadInput."""
    return composed.method.fits(model, splits, manifest) if "forget" in splits else []


def _split_on(composed: Composed) -> Iterator[tuple[str, str]]:
    """(wrapper, field) of every wrapper that splits the forget set on a field."""
    level: Composed | None = composed
    while level is not None:
        for name, options in level.described.items():
            if isinstance(options, Mapping) and isinstance(options.get("by"), str):
                yield name, options["by"]
        level = level.inner


def _has(row: Example, name: str) -> bool:
    return row.get(name) is not None or (name == "question" and "messages" in row)


def _words(missing: set[str]) -> str:
    schemes = {name.partition(":")[2] for name in missing if name.startswith("exact:")}
    exact = [f"to be trained with `exact: {name}` in train.yaml" for name in sorted(schemes)]
    return " and ".join(
        [
            *exact,
            *sorted(
                CAPABILITIES.get(name, name) for name in missing if name != "shards" and not name.startswith("exact:")
            ),
        ]
    )


def _history(missing: set[str]) -> bool:
    return any(name.startswith("exact:") for name in missing)


def fitting(model: Model) -> list[str]:
    """The methods whose cards go with the model, by name."""
    found = []
    for name, kind in every_method().items():
        folder = next((k for k, v in SINGULAR.items() if v == kind), None)
        if folder in ("objectives", "edits", "exact", "guards", "wrappers", "federated"):
            card = load(folder, name).card
            single = "shards" not in model.capabilities
            able = folder == "exact" or has_weights(model)
            if able and _card_fits(card, model) and single == (card.yields != "ensemble"):
                found.append(name)
    return sorted(found)


def _card_fits(card: MethodCard, model: Model) -> bool:
    """Whether the model has the capabilities, and its family the channels, that a card asks for."""
    return set(card.capabilities) <= model.capabilities and _channels(card) <= family(model.family).gives


def _channels(card: MethodCard) -> set[str]:
    """The channels of a model that a card asks for; hidden states are no family's own."""
    parts = [*card.needs.values(), *card.reference.values()]
    return {channel.partition(":")[0] for part in parts for channel in part} - {"hidden"}


def fits_reference(model: Model, reference: Model, splits: Splits, role: str, source: str) -> None:
    """Raises BadInput for a reference of this role that cannot take the data, or reads it otherwise than the model."""
    fits_model(reference, splits)
    rows = splits.get("forget", [])
    check_terms(reference, terms_of(model, rows), rows, role, source)


def fits_model(model: Model, splits: Splits) -> None:
    """Raises BadInput for each split with examples that the model's family, or the model itself, cannot take."""
    faults = Faults()
    for name, rows in splits.items():
        with faults:
            model.accepts(name, rows)
    faults.raise_any()
    if (together := getattr(model, "accepts_together", None)) is not None:
        together(splits)
