"""Positive controls: whether each attack works at all, and how small a difference it could have found.

An attack that brings little out of the model before the change, which plainly knows the forget set, would find nothing
on any model; that it finds nothing on the changed one shows nothing. Suffixes: N examples of the forget set.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import special

from expunge.evaluation.attack import Found
from expunge.evaluation.scores import Score

LEAST_SHARE = 0.5
"""An attack counts from this share of what direct questions bring out of the model before the change."""
POWER = 0.8
"""The chance with which the smallest detectable gap is found, by a two-sided test at the 5 % level."""

Results = Mapping[str, Mapping[str, Found | str]]
"""Role -> attack -> its result, or why it could not run."""


@dataclass(frozen=True)
class Control:
    """How an attack does on the model before the change.

    recovered, direct: mean knowledge in 0-1 that it and that direct questions bring out there, of the same examples;
    None where the attack was not run there. smallest_gap: see the function; None where nothing tells the spread.
    n: examples behind it.
    """

    recovered: float | None
    direct: float | None
    smallest_gap: float | None
    n: int

    @property
    def counts(self) -> bool:
        """Whether the attack counts in robustness_hidden; one without a control does."""
        return self.recovered is None or self.direct is None or self.recovered >= LEAST_SHARE * self.direct

    @property
    def words(self) -> str:
        """The control in words, for a remark."""
        said = []
        if self.recovered is not None and self.direct is not None:
            said.append(
                f"control: it brings {self.recovered:.2f} out of the model before the change, direct questions "
                f"{self.direct:.2f}" + ("" if self.counts else ", so it does not count in robustness_hidden")
            )
        if self.smallest_gap is not None:
            said.append(f"smallest gap that it could have found at n = {self.n}: {self.smallest_gap:.2f}")
        return "; ".join(said)


def at_one_strength(results: Results, role: str = "after") -> Results:
    """The results, those on gold models at the strength that each attack took on the model of this role."""
    own = {name: found.golds for name, found in results.get(role, {}).items() if isinstance(found, Found)}
    return {
        other: {name: own.get(name, {}).get(other, found) for name, found in each.items()}
        for other, each in results.items()
    }


def controls(results: Results, direct_N: np.ndarray | None) -> dict[str, Control]:
    """Attack -> its control, of those that recovered knowledge from the changed model.

    direct_N: knowledge that direct questions bring out of the model before the change; None without such a model.
    The spread for the smallest gap is that of the paired differences to gold, else that of the values on the model
    before the change.
    """
    found = {}
    for name in results.get("after", {}):
        after, gold, before = (_recovered_values(results, role, name) for role in ("after", "gold", "before"))
        if after is None:
            continue
        spread = before if gold is None else after - gold
        kept = np.zeros(0) if spread is None else np.ma.compressed(spread)
        recovered = direct = None
        if before is not None and direct_N is not None and before.count():
            recovered = float(before.mean())
            same = len(direct_N) == len(before)  # not of an attack that asks questions of its own (probes)
            direct = float(np.ma.masked_array(direct_N, mask=np.ma.getmaskarray(before) if same else False).mean())
        found[name] = Control(recovered, direct, smallest_gap(kept), len(kept))
    return found


def smallest_gap(values_N: np.ndarray) -> float | None:
    """The smallest mean that a t test of [N] values would tell from 0 with a chance of 80 %; None without spread.

    (t_.975 + t_.8) s / sqrt(N), t with N - 1 degrees of freedom, s the values' deviation.
    """
    n = len(values_N)
    if n < 2 or not np.ptp(values_N):
        return None
    quantiles = special.stdtrit(n - 1, 0.975) + special.stdtrit(n - 1, POWER)
    return float(quantiles * np.std(values_N, ddof=1) / n**0.5)


def with_controls(scores: Sequence[Score], found: Mapping[str, Control]) -> list[Score]:
    """The scores of attacks, with its control in the remark of each attack's own score on the changed model."""
    words = {f"robustness_{name}": control.words for name, control in found.items()}
    return [
        dataclasses.replace(score, why="; ".join([*filter(None, [score.why, words[score.name]])]))
        if score.role == "after" and score.measured and words.get(score.name)
        else score
        for score in scores
    ]


def _recovered_values(results: Results, role: str, name: str) -> np.ma.MaskedArray | None:
    result = results.get(role, {}).get(name)
    if not isinstance(result, Found) or result.recovered_N is None:
        return None
    return np.ma.masked_invalid(np.ma.masked_array(result.recovered_N, dtype=float))
