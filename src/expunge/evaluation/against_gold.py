"""Scores that compare with gold example by example, and the worst membership attacker."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterable, Mapping, Sequence

import numpy as np
from scipy import special

from expunge.core.card import Example
from expunge.evaluation import intervals
from expunge.evaluation.acceptance import Table, by_name
from expunge.evaluation.comparison import Difference, difference
from expunge.evaluation.groups import count_groups, group_numbers, groups_of
from expunge.evaluation.implied import KNOWN_AGAIN
from expunge.evaluation.scores import Label, Score
from expunge.ledger.evidence import SECOND_GOLD

COMPARED_ROLES = ("before", "after", SECOND_GOLD)
UNCOMPARED = ("privacy_blind_auc", "privacy_reference_auc", "privacy_worst")
"""The blind baseline says nothing of a model, and the reference attack reads gold itself: its figure of gold is 0.5 by
definition."""
WORST = "privacy_worst"


Rows = Mapping[str, Sequence[Example]]
"""Split -> its examples, by whose groups intervals are clustered."""


def scores_against_gold(scores: Iterable[Score], criteria: Collection[str], rows: Rows | None = None) -> list[Score]:
    """The scores that compare these with gold's. criteria: the names of scores that a criterion compares with gold."""
    rows = rows or {}
    table = by_name(scores)
    found = worst_attacker(table, rows)
    for role in ("after", SECOND_GOLD):
        found += _above(table, role, rows.get("forget", ()))
        for name in sorted({*criteria, "forget_rouge_l"}):
            found += _by_example(table, name, role, rows, beyond=name in criteria)
    return found


def worst_attacker(table: Table, rows: Rows) -> list[Score]:
    """privacy_worst of each role: the largest difference of an attack's AUC to gold's, either way.

    Its interval holds for all attacks at once: each difference has its interval at level 1 - .05 / A (Bonferroni),
    paired by example (`intervals.auc_difference`), and the largest ends are taken.
    """
    names = [n for n, role in table if role == "gold" and n.startswith("privacy_") and n not in UNCOMPARED]
    names = [name for name in names if table[name, "gold"].unit == "auc" and table[name, "gold"].measured]
    found = []
    for role in COMPARED_ROLES:
        pairs = {name: (table[name, role], table[name, "gold"]) for name in names if (name, role) in table}
        lost = [f"{name}: {pair[0].why}" for name, pair in pairs.items() if not pair[0].measured]
        pairs = {name: pair for name, pair in pairs.items() if pair[0].measured}
        if pairs:
            worst = _worst(pairs, role, rows)
            why = f"{worst.why}; measured on gold and not on this model: {'; '.join(lost)}"  # which may tell all
            found.append(
                dataclasses.replace(worst, high=None if worst.high is None else 1.0, why=why) if lost else worst
            )
        elif role == "after":
            found.append(_no_attacker(table))
    return found


def _worst(pairs: dict[str, tuple[Score, Score]], role: str, rows: Rows) -> Score:
    level = 1 - 0.05 / len(pairs)
    ends: dict[str, tuple[float, float, float]] = {}
    for name, pair in pairs.items():
        apart = _apart(*pair, rows, level)
        if apart.low is not None and apart.high is not None:
            ends[name] = abs(apart.value), max(0.0, apart.low, -apart.high), max(-apart.low, apart.high)
    name = max(ends or pairs, key=lambda n: ends[n][0] if ends else abs(difference(*pairs[n]).value))
    score, gold = pairs[name]
    value, low, high = (min(1.0, max(end[i] for end in ends.values())) for i in range(3)) if ends else (0.0, 0.0, 0.0)
    auc, theirs = score.value or 0.0, gold.value or 0.0
    flipped = "; who flips the sign" if auc < 0.5 else "; the attacker"
    why = (
        f"{name}: AUC {auc:.3g}, gold {theirs:.3g}{flipped} has {max(auc, 1 - auc):.3g} "
        f"(attacker AUC = max(AUC, 1 - AUC)); the worst of {len(pairs)} attacks"
    )
    label = _label(role)
    if not ends:
        return Score(**label, value=abs(auc - theirs), low=None, high=None, n=1, why=why)
    return Score(**label, value=value, low=low, high=high, n=score.n, why=why)


def _apart(score: Score, gold: Score, rows: Rows, level: float) -> Difference:
    """The difference of an attack's AUC to gold's: over the same examples where these are known, else the two intervals
    in quadrature, widened to the level."""
    if paired := _auc_difference(score, gold, rows, level):
        return Difference(*paired)
    apart = difference(score, gold)
    if apart.low is None or apart.high is None:
        return apart
    wider = float(special.ndtri(0.5 + level / 2)) / intervals.Z
    low, high = (apart.value + wider * (end - apart.value) for end in (apart.low, apart.high))
    return Difference(apart.value, low, high)


def _auc_difference(score: Score, gold: Score, rows: Rows, level: float) -> intervals.Interval | None:
    """The paired difference; None where examples are unknown, or clustered by groups that are."""
    sides, groups = [], []
    for split, ours, theirs in (("forget", score.values, gold.values), ("holdout", score.others, gold.others)):
        if ours is None or theirs is None or len(ours) != len(theirs):
            return None
        gone = np.ma.getmaskarray(ours) | np.ma.getmaskarray(theirs)
        examples = list(rows.get(split, ()))
        groups.append(list(itertools.compress(examples, ~gone)) if len(examples) == len(ours) else None)
        sides.append(tuple(np.ma.masked_array(x, mask=gone, dtype=float).compressed() for x in (ours, theirs)))
    if min(len(side[0]) for side in sides) < 2:
        return None
    numbers = None
    if score.groups is not None:
        if groups[0] is None or groups[1] is None or (found := group_numbers(groups[0], groups[1])) is None:
            return None
        numbers = found[0], found[1]
    (first, other), (second, others) = sides
    return intervals.auc_difference((first, second), (other, others), groups=numbers, level=level)


def _no_attacker(table: Table) -> Score:
    reasons = [
        score.why
        for role in ("after", "gold")
        for (name, of), score in table.items()
        if of == role and name.startswith("privacy_") and score.unit == "auc" and not score.measured
    ]
    golds = any(role == "gold" for _, role in table)
    why = (reasons[0] if reasons else "no membership attack applies") if golds else "no gold model"
    return Score.not_measured(why, **_label("after"))


def _label(role: str) -> Label:
    return {"name": WORST, "side": "privacy", "split": "forget", "role": role, "unit": "auc", "better": "lower"}


def _above(table: Table, role: str, rows: Sequence[Example]) -> list[Score]:
    """forget_nll_above_gold: the chance that a forget example's NLL exceeds one of gold's, a tie counted as half.

    The AUC of the two samples; the same examples are on both sides, and the units of its interval.
    """
    score, gold = table.get(("forget_nll", role)), table.get(("forget_nll", "gold"))
    if score is None or gold is None or score.values is None or gold.values is None:
        return []
    ours, theirs = (np.ma.masked_array(x.values, dtype=float) for x in (score, gold))
    if len(ours) != len(theirs):
        return []
    gone = np.ma.getmaskarray(ours) | np.ma.getmaskarray(theirs)
    groups = groups_of(rows, gone) if len(rows) == len(ours) else None
    sides = [np.ma.masked_array(x, mask=gone).compressed() for x in (ours, theirs)]
    if not len(sides[0]):
        return []
    found = intervals.auc_by_example(sides[0][None], sides[1][None], groups=groups)
    return [
        Score(
            "forget_nll_above_gold",
            score.side,
            score.split,
            role,
            *found,
            len(sides[0]),
            "share",
            "gold",
            why="0.5 where the NLLs are distributed as gold's",
            groups=count_groups(groups),
        )
    ]


def _by_example(table: Table, name: str, role: str, rows: Rows, *, beyond: bool) -> list[Score]:
    """`<name>_gap`, the mean difference to gold over the same examples, and `<name>_beyond`, the share far from gold.

    An NLL is compared as exp(-NLL) in the second, so that both are in shares.
    """
    score, gold = table.get((name, role)), table.get((name, "gold"))
    if score is None or gold is None or score.values is None or gold.values is None:
        return []
    if score.unit not in ("share", "nats") or len(score.values) != len(gold.values):
        return []
    ours, theirs = (np.ma.masked_array(x.values, dtype=float) for x in (score, gold))
    apart = ours - theirs
    gap = np.ma.compressed(apart)
    if not len(gap):
        return []
    examples = rows.get(score.split, ())
    same = len(examples) == len(ours)
    groups = groups_of(examples, np.ma.getmaskarray(apart)) if same else None
    base = dataclasses.replace(score, n=len(gap), values=None, others=None, groups=count_groups(groups))
    value, low, high = intervals.mean(gap, groups=groups)
    paired = dataclasses.replace(base, name=f"{name}_gap", unit="ratio", why="the same examples under both models")
    found = [dataclasses.replace(paired, value=value, low=low, high=high, values=apart)]
    if beyond:
        if score.unit == "nats":
            apart = np.ma.exp(-ours) - np.ma.exp(-theirs)
        far = np.ma.masked_array(np.abs(apart) > KNOWN_AGAIN, dtype=float)
        value, low, high = intervals.proportion(far.compressed(), groups=groups)
        why = f"examples whose own figure is more than {KNOWN_AGAIN} from gold's"
        shares = dataclasses.replace(base, name=f"{name}_beyond", unit="share", better="lower", why=why)
        found.append(dataclasses.replace(shares, value=value, low=low, high=high, values=far))
    return found
