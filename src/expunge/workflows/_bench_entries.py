"""The rows of a bench: methods, each with the options that a grid gives it."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.core.errors import BadInput, Faults, did_you_mean
from expunge.core.files import digest
from expunge.core.request import Request, parse_sets
from expunge.methods.auto import NAME, is_auto, options_of
from expunge.methods.compose import compose, every_method
from expunge.pipeline import run_folder

KINDS = ("choice", "recipe", "objective", "wrapper", "edit", "guard", "exact", "federated")
"""The kinds that are compared unless methods are named: all that are methods by themselves."""


@dataclass(frozen=True)
class Entry:
    """One row to be: a method with its options; `label` names the row and its folder."""

    label: str
    name: str
    spec: Any

    @property
    def folder(self) -> str:
        """The label as a folder's name: every file system takes it, and no two labels share one."""
        plain = re.sub(r"[^\w.=+-]+", "_", self.label)
        return plain if plain == self.label and len(plain) < 100 else f"{plain[:80]}-{digest(self.label)[:8]}"


def entries_of(methods: Sequence[str] | None, grid: Sequence[str]) -> list[Entry]:
    """One entry per method, or one per combination where a grid names options of it. Raises BadInput."""
    known = {NAME: "choice", **every_method()}
    if methods is None:
        names = [name for name, kind in known.items() if kind in KINDS and name != "retrain"]
    else:
        names = list(dict.fromkeys(methods))
    if not names:
        raise BadInput.of("--methods", "", "names no method", "give names with commas between, or leave it out")
    faults = Faults()
    axes: dict[str, dict[str, list[Any]]] = {}
    for line in grid:
        with faults:
            method, option, values = _grid_line(line, names)
            axes.setdefault(method, {})[option] = values
    entries = []
    for name in names:
        if name in known:
            entries += _combinations(name, axes.get(name, {}), faults)
        else:
            faults.add(BadInput.of("--methods", name, "unknown method", did_you_mean(name, known)))
    faults.raise_any()
    return entries


def _combinations(name: str, axes: Mapping[str, Sequence[Any]], faults: Faults) -> list[Entry]:
    """The method with each combination of its options' values. Faults are collected."""
    entries = []
    for values in itertools.product(*axes.values()):
        options = dict(zip(axes, values, strict=True))
        label = " ".join([name, *(f"{option}={_short(value)}" for option, value in options.items())])
        entries.append(Entry(label, name, {name: options} if options else name))
        if options:
            with faults:
                _check_options(entries[-1].spec)
    return entries


def _check_options(spec: Any) -> None:
    """Raises BadInput for options that the method does not take."""
    if is_auto(spec):
        options_of(spec)
    else:
        compose(spec, where="--grid")


def in_sequence(entries: Sequence[Entry], by: str) -> list[Entry]:
    """Each method that trains, on the forget set's parts as requests one after another."""
    known = every_method()
    return [
        Entry(f"{entry.label} in sequence", entry.name, {"sequential": {"by": by, "inner": entry.spec}})
        for entry in entries
        if known.get(entry.name) in ("recipe", "objective")
    ]


def _grid_line(line: str, names: Sequence[str]) -> tuple[str, str, list[Any]]:
    """(method, option, values) of METHOD.OPTION=VALUE,VALUE. Raises BadInput."""
    key, equals, values = line.partition("=")
    method, dot, option = key.strip().partition(".")
    if not (equals and dot and method and option and values.strip()):
        raise BadInput.of("--grid", line, "is not a line of a grid", "write --grid METHOD.OPTION=VALUE,VALUE")
    if method not in names:
        raise BadInput.of(
            "--grid", line, f"is about {method!r}, which is not among the methods", did_you_mean(method, names)
        )
    return method, option, parse_sets([f"{option}=[{values}]"], "--grid")[option]


def _short(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def request_values(base: Mapping[str, Any], entry: Entry, seed: int, folder: Path) -> dict[str, Any]:
    """The request of one run: the bench's own, with the entry's method, a seed and a folder below the bench's."""
    return {**base, "method": entry.spec, "seed": seed, "out": str(folder / entry.folder / f"seed-{seed}")}


def check_folders(base: Mapping[str, Any], entries: Sequence[Entry], seeds: Sequence[int], folder: Path) -> None:
    """Check that no folder holds another request's run. Raises BadInput."""
    faults = Faults()
    for entry, seed in itertools.product(entries, seeds):
        with faults:
            request = Request.parse(request_values(base, entry, seed, folder))
            if Path(request.out).is_dir():
                run_folder.same(request, Path(request.out))
    faults.raise_any()
