"""The registry: a plug-in is one file in its kind's folder, and the file's stem is its public name.

Other packages add plug-ins through the entry-point group "expunge.<kind>". Options, bounds and help come from the
factory's keyword-only signature and its docstring.
"""

from __future__ import annotations

import functools
import importlib
import importlib.metadata
import importlib.util
import inspect
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any, Generic, TypeVar

from pydantic import ConfigDict, ValidationError, create_model

from expunge.core.booleans import read_as_numbers
from expunge.core.card import Card
from expunge.core.errors import BadInput, did_you_mean, sentences

METHOD_KINDS = ("objectives", "retain", "weights", "updates", "wrappers", "edits", "guards", "exact", "federated")
KINDS = {
    **{kind: f"expunge.methods.{kind}" for kind in METHOD_KINDS},
    "strategies": "expunge.methods.strategies",
    "protections": "expunge.methods.protections",
    "pretexts": "expunge.models.pretexts",
    "metrics": "expunge.metrics",
    "attacks": "expunge.attacks",
    "ood": "expunge.evaluation.ood",
    "detectors": "expunge.evaluation.detectors",
}
SINGULAR = {
    "objectives": "objective",
    "retain": "retain",
    "weights": "weights",
    "updates": "update",
    "wrappers": "wrapper",
    "edits": "edit",
    "guards": "guard",
    "exact": "exact",
    "federated": "federated",
    "strategies": "strategy",
    "protections": "protection",
    "pretexts": "pretext",
    "metrics": "metric",
    "attacks": "attack",
    "ood": "OOD score",
    "detectors": "detector",
}


OBJECTS = {
    "models": ("expunge.models.families", "FAMILY", "model family"),
    "trainers": ("expunge.methods.trainers", "train", "trainer"),
}
"""Kinds whose plug-in has no card: where ours are, the name that each file exports, and what one is called."""

C = TypeVar("C", bound=Card)


@dataclass(frozen=True)
class Plugin(Generic[C]):
    """One plug-in: the factory named like its file, its card and its published defaults."""

    kind: str
    name: str
    module: ModuleType

    @property
    def card(self) -> C:
        return self.module.CARD

    @property
    def factory(self) -> Callable[..., Any]:
        return getattr(self.module, self.name)

    @property
    def recipe(self) -> dict[str, Any]:
        return dict(getattr(self.module, "RECIPE", {}))

    @property
    def summary(self) -> str:
        return (inspect.getdoc(self.factory) or self.card.title).strip().splitlines()[0]

    def options(self) -> dict[str, inspect.Parameter]:
        """Option name -> its parameter, from the factory's keyword-only signature."""
        return _options(self.factory)

    def training(self) -> dict[str, inspect.Parameter]:
        """The options of an exact scheme's `train`: those under `exact:` in train.yaml."""
        return _options(self.module.train) if hasattr(self.module, "train") else {}

    def fields(self) -> dict[str, Any]:
        """Option name -> its pydantic field: type, default and bounds."""
        return dict(_model(self.factory).model_fields)

    def validate(self, options: Mapping[str, Any], where: str, *, training: bool = False) -> dict[str, Any]:
        """The options, bounds checked and defaults filled in. Raises BadInput with every fault.

        training: those of `train`, not of the factory.
        """
        known = self.training() if training else self.options()
        factory = self.module.train if training else self.factory
        faults = [
            BadInput.of(f"{where}.{name}", name, f"unknown {self.name} option", did_you_mean(name, known))
            for name in options
            if name not in known
        ]
        try:
            model = _model(factory)(**{k: v for k, v in options.items() if k in known})
            faults += read_as_numbers(options, model, where)
        except ValidationError as error:
            faults += sentences(error.errors(), where)
        if faults:
            raise BadInput.all(faults)
        return {name: getattr(model, name) for name in known}


def _options(factory: Callable[..., Any]) -> dict[str, inspect.Parameter]:
    found = inspect.signature(factory).parameters
    return {name: parameter for name, parameter in found.items() if parameter.kind is parameter.KEYWORD_ONLY}


@functools.cache
def _model(factory: Callable[..., Any]) -> Any:
    # Without the return type, whose own names a plug-in need not import.
    options = _options(factory)
    given = {name: hint for name, hint in factory.__annotations__.items() if name in options}
    hints = typing.get_type_hints(SimpleNamespace(__annotations__=given), factory.__globals__, include_extras=True)
    fields: dict[str, Any] = {
        name: (hints.get(name, Any), ... if p.default is inspect.Parameter.empty else p.default)
        for name, p in options.items()
    }
    config = ConfigDict(extra="forbid", arbitrary_types_allowed=True, allow_inf_nan=False)
    return create_model(factory.__name__, __config__=config, **fields)


@functools.cache
def names(kind: str) -> dict[str, str]:
    """Public name -> module path of every plug-in of a kind. Imports none of them."""
    package = OBJECTS[kind][0] if kind in OBJECTS else KINDS[kind]
    spec = importlib.util.find_spec(package)
    found: dict[str, str] = {}
    for place in (spec.submodule_search_locations or []) if spec else []:
        for path in sorted(Path(place).glob("*.py")):
            if not path.stem.startswith("_"):
                found[path.stem] = f"{package}.{path.stem}"
    for entry in importlib.metadata.entry_points(group=f"expunge.{kind}"):
        if entry.name in found:
            raise BadInput.of(
                entry.name, entry.value, f"has the name of a built-in plug-in of kind {kind}", "rename its entry point"
            )
        found[entry.name] = entry.value.partition(":")[0]
    return found


@functools.cache
def load(kind: str, name: str, where: str = "method") -> Plugin:
    """The plug-in of that kind and name; raises BadInput with the nearest known name."""
    known = names(kind)
    if name not in known:
        raise BadInput.of(where, name, f"unknown {SINGULAR[kind]}", did_you_mean(name, known))
    module = importlib.import_module(known[name])
    if not hasattr(module, "CARD") or not hasattr(module, name):
        raise BadInput.of(where, name, f"lacks a CARD or a function {name}()", "define both in the plug-in's file")
    return Plugin(kind, name, module)


def module_of(kind: str, name: str, where: str) -> ModuleType:
    """The file of a plug-in without a card, which exports what its kind asks for; raises BadInput."""
    known, (_, attribute, single) = names(kind), OBJECTS[kind]
    if name not in known:
        raise BadInput.of(where, name, f"unknown {single}", did_you_mean(name, known))
    module = importlib.import_module(known[name])
    if not hasattr(module, attribute):
        raise BadInput.of(where, name, f"names a file without {attribute}", f"a {single}'s file exports it")
    return module


def everything(kind: str) -> list[Plugin]:
    """All plug-ins of a kind, imported."""
    return [load(kind, name) for name in names(kind)]
