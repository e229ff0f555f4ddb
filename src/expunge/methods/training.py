"""The trainer of a training: one of methods/trainers/, of another package, or an exact scheme."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from expunge.core import processes, registry
from expunge.core.card import Example
from expunge.core.context import Context
from expunge.core.contracts import Model
from expunge.core.errors import BadInput, did_you_mean
from expunge.core.files import digest
from expunge.data.examples import identity
from expunge.models.family import CAPABILITIES, family

Chosen = Mapping[str, Mapping[str, Any]]
"""{trainer: its options}."""
BESIDE = "beside"
"""In a training's work folder: what its trainer writes beside the model."""
EXACT_NEEDS = "logits"
"""Members of an ensemble answer together: an exact scheme wants a distribution of each."""


def schemes() -> dict[str, registry.Plugin[Any]]:
    """The exact schemes, which leave an ensemble that can delete."""
    known = [registry.load("exact", name) for name in registry.names("exact")]
    return {plugin.name: plugin for plugin in known if plugin.card.yields == "ensemble"}


def trainer_named(name: str, field: str = "trainer") -> registry.Plugin[Any]:
    """The trainer of that name: its `train`, its options. Raises BadInput."""
    if name in (exact := schemes()):
        return exact[name]
    others = registry.names("trainers")
    if name not in others:
        raise BadInput.of(field, name, "unknown trainer", did_you_mean(name, [*exact, *others]))
    return registry.Plugin("trainers", name, registry.module_of("trainers", name, field))


def with_defaults(value: Any, field: str) -> dict[str, dict[str, Any]] | None:
    """{trainer: its options, defaults filled in}, from how a train.yaml names it. Raises BadInput."""
    if value is None or value == "none":
        return None
    name, options = next(iter(value.items())) if isinstance(value, Mapping) and len(value) == 1 else (value, None)
    if not isinstance(name, str):
        raise BadInput.of(field, str(value), "is not a scheme", f"write {field}: {{sisa: {{shards: 4, slices: 4}}}}")
    if options is not None and not isinstance(options, Mapping):
        raise BadInput.of(f"{field}.{name}", options, "is not a mapping of options", f"write {name}: {{option: value}}")
    if field == "exact" and name not in (known := schemes()):
        raise BadInput.of("exact", name, "unknown scheme", did_you_mean(name, known))
    return {name: trainer_named(name, field).validate(options or {}, f"{field}.{name}", training=True)}


def trainer_for(chosen: Chosen | None, model: Model) -> Callable[[Model, Sequence[Example], Context], Model]:
    """The trainer: the chosen one, or that of the model's family. Raises BadInput: a manifest may say anything."""
    name, options = next(iter(chosen.items())) if chosen else (family(model.family).trainer, {})
    plugin = trainer_named(name)
    if (count := processes.world()) > 1 and not runs_distributed(chosen, model):
        raise BadInput.of("trainer", name, f"runs in one process, and {count} were started", "start one process")
    return functools.partial(plugin.module.train, **plugin.validate(options, f"trainer.{name}", training=True))


def runs_distributed(chosen: Chosen | None, model: Model) -> bool:
    """Whether several processes may train with it together: the trainer's file says so."""
    name = next(iter(chosen)) if chosen else family(model.family).trainer
    return bool(getattr(trainer_named(name).module, "DISTRIBUTED", False))


def added_capabilities(chosen: Chosen | None) -> frozenset[str]:
    """The capabilities that a model owes to its trainer: the trainer's file says so."""
    if not chosen:
        return frozenset()
    module, options = _bound(chosen)
    return module.added_capabilities(options) if hasattr(module, "added_capabilities") else frozenset()


def _bound(chosen: Chosen) -> tuple[Any, dict[str, Any]]:
    """(the trainer's module, its options with defaults filled in). Raises BadInput: a manifest may say anything."""
    ((name, options),) = chosen.items()
    plugin = trainer_named(name)
    return plugin.module, plugin.validate(options, f"trainer.{name}", training=True)


def client_in(manifest: Mapping[str, Any] | None) -> Callable[[Example], Any] | None:
    """With whom a row lay in the training, where its trainer dealt rows out to clients: the trainer's file says so."""
    chosen = (manifest or {}).get("exact") or (manifest or {}).get("trainer")
    if not chosen:
        return None
    module, options = _bound(chosen)
    return module.client_in(options) if hasattr(module, "client_in") else None


def homes_of(manifest: Mapping[str, Any], rows: Sequence[Example]) -> dict[str, list[str]]:
    """{"homes": of each row a digest of the name of its client}, for the manifest of a training that had clients."""
    holder = None if manifest.get("exact") else client_in(manifest)
    return {"homes": [digest(str(holder(row)))[:16] for row in rows]} if holder else {}


def check_homes(manifest: Mapping[str, Any], rows: Sequence[Example]) -> None:
    """Raises BadInput where rows of the training lie with other clients now: a row's hash is of its content alone."""
    known = set(zip(manifest.get("hashes") or [], manifest.get("homes") or [], strict=False))
    now = homes_of(manifest, rows).get("homes", []) if known else []
    if any((identity(row)[:16], home) not in known for row, home in zip(rows, now, strict=False)):
        why = "cannot be had: rows of the training lie with other clients now"
        raise BadInput.of("gold", "auto", why, "put them back, or give gold: FOLDER")


def check_trainer(chosen: Chosen, model: Model, data: Sequence[Example]) -> None:
    """Raises BadInput where a trainer cannot be had on this model and these data."""
    ((name, options),) = chosen.items()
    kind = family(model.family)
    if name in (known := schemes()):
        # Of its ensemble a scheme's card also asks how it was trained: that is what is about to happen.
        wanted = {one for one in known[name].card.capabilities if one != "shards" and not one.startswith("exact:")}
        if missing := sorted(wanted - model.capabilities):
            needs = " and ".join(CAPABILITIES.get(one, one) for one in missing)
            raise BadInput.of(
                "exact",
                name,
                f"needs {needs}, and this model is a {kind.title}",
                "take exact: sisa",
            )
        if EXACT_NEEDS not in kind.gives:
            why = f"joins the answers of several models, and this {kind.title} gives no distribution"
            raise BadInput.of("exact", name, why, "train without `exact`")
    module = trainer_named(name).module
    if "check" in vars(module):
        module.check(model, data, **options)
