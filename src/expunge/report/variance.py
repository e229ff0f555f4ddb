"""Variance components: how much of a figure's spread comes from the base, the method's seed, and the examples read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from expunge.evaluation.intervals import Z

SOURCES = {"base": "the base", "seed": "the method's seed", "reading": "the examples that are read"}
MORE = {"base": "more bases", "seed": "more seeds", "reading": "more examples"}
Components = dict[str, float]


@dataclass(frozen=True)
class Reading:
    """A figure of one run: its value, and its interval where it has one."""

    world: str
    base: int
    value: float
    ends: tuple[float, float] | None


def components(readings: Sequence[Reading]) -> Components | None:
    """The variance of a figure by source, in the figure's unit squared; None for a single base or a single seed.

    Bases within worlds and seeds within bases, by the method of moments (one-way random effects). `seed` is the
    variance within a base. `base` is what the variance of the bases' means has above a share of it: (MS between - MS
    within) / seeds, cut at 0; `base_estimate` is the same before the cut. `reading` is the variance that the figure's
    interval stands for. It is added, not taken off the others: all runs read the same examples, so their choice does
    not show in the spread between runs.
    """
    cells: dict[tuple[str, int], list[float]] = {}
    for one in readings:
        cells.setdefault((one.world, one.base), []).append(one.value)
    worlds = {world for world, _ in cells}
    seeds = min(map(len, cells.values()), default=0)
    if len(cells) <= len(worlds) or seeds < 2 or any(one.ends is None for one in readings):
        return None
    means = {key: float(np.mean(values)) for key, values in cells.items()}
    between = 0.0
    for world in worlds:
        own = [mean for (of, _), mean in means.items() if of == world]
        between += seeds * float(np.sum((np.array(own) - np.mean(own)) ** 2))
    between /= len(cells) - len(worlds)
    within = float(np.mean([np.var(values, ddof=1) for values in cells.values()]))
    reading = float(np.mean([((one.ends[1] - one.ends[0]) / (2 * Z)) ** 2 for one in readings if one.ends]))
    return _cut((between - within) / seeds, within, reading)


def _cut(base: float, seed: float, reading: float) -> Components:
    return {"base": max(0.0, base), "seed": seed, "reading": reading, "base_estimate": base}


def mean_components(rows: Iterable[Mapping[str, Components]]) -> dict[str, Components]:
    """Figure -> its components averaged over the methods that have them; the base's before it is cut."""
    found: dict[str, list[Components]] = {}
    for row in rows:
        for name, parts in row.items():
            found.setdefault(name, []).append(parts)
    return {
        name: _cut(*(float(np.mean([one[part] for one in parts])) for part in ("base_estimate", "seed", "reading")))
        for name, parts in found.items()
    }


def sentences(found: Mapping[str, Components], names: Iterable[str]) -> list[str]:
    """The components of these figures in words, and by what their spread would shrink most."""
    said = []
    for name in names:
        parts = found.get(name)
        total = sum(parts[source] for source in SOURCES) if parts else 0.0
        if not parts or total <= 0:
            continue
        order = sorted(SOURCES, key=lambda source: -parts[source])
        shares = [f"{100 * parts[source] / total:.0f} % from {SOURCES[source]}" for source in order]
        cut = "; the negative estimate for the base was cut at 0" if parts["base_estimate"] < 0 else ""
        said.append(
            f"Of the spread of {name.replace('_', ' ')}, {shares[0].replace(' from', ' comes from')}, {shares[1]} and "
            f"{shares[2]}{cut}. {MORE[order[0]].capitalize()} would narrow it most."
        )
    return said
