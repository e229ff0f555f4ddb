"""The examples that a method gets and those that evidence reads: of what must stay, and of the holdout, other ones."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from expunge.core.budget import Budget
from expunge.core.card import Example
from expunge.data.content import distinct
from expunge.data.rows import take
from expunge.data.sampling import LEAST_GROUPS, hold_out
from expunge.data.splits import HELD_OUT, SEEN, Splits
from expunge.evaluation.scores import must_go
from expunge.methods.compose import Composed

FORGET_READ, OTHERS_READ = 2000, 120
"""Examples that are read of a split at most: a seeded sample; n is given with each figure."""
SEEN_READ = 48
"""Of the part of retain that the method had, whose figures are there for comparison."""
METHOD_SPLITS = ("forget", "retain", "reference")
TRAINED_ON = "utility on data that were trained on"


def divide(splits: Splits, seed: int) -> Splits:
    """The splits with a part of retain held out; examples that a request adds to contain the change all train."""
    rows = splits.get("retain", [])
    added_N = np.fromiter(("contained" in row for row in rows), dtype=bool)
    training, held_out = hold_out(take(rows, (~added_N).nonzero()[0]), seed)
    if not held_out:
        return splits
    added = take(rows, added_N.nonzero()[0])
    return {**splits, "retain": [*training, *added] if added else training, HELD_OUT: held_out}


def join(splits: Splits) -> dict[str, Iterable[Example]]:
    """The splits with what was held out in retain again."""
    whole = itertools.chain(splits.get("retain", []), splits.get(HELD_OUT, []))
    return {name: whole if name == "retain" else rows for name, rows in splits.items() if name != HELD_OUT}


def method_splits(composed: Composed, budget: Budget) -> set[str]:
    """The splits that a method may read: of the holdout the stopping half, where the rule or a card names it."""
    named = {name for plugin in composed.plugins for name in (*plugin.card.sources, *plugin.card.optional)}
    named |= composed.optional
    if composed.objective:
        named |= {name for term in composed.objective.terms.values() for name in term.loss.reads}
    return {*METHOD_SPLITS, *named, *(["holdout"] if budget.stop == "holdout" else [])}


def evidence_splits(splits: Splits) -> Splits:
    """The splits that evidence reads, by its names: not what only trains or calibrates."""
    read = {name: rows for name, rows in splits.items() if name not in ("reference", HELD_OUT)}
    return {**read, "retain": splits[HELD_OUT], SEEN: splits["retain"]} if HELD_OUT in splits else read


def counted_rows(name: str, rows: Sequence[Example]) -> Sequence[Example]:
    """The rows of a split that evidence may read: of what must go, and of the holdout, each content once.

    Copies would narrow the intervals, and a few examples would count as many.
    """
    return distinct(rows) if must_go(name) or name == "holdout" else rows


def reading_limit(name: str, splits: Mapping[str, Sequence[Example]], held_out_rows: int | str = "auto") -> int:
    """Examples that are read of a split at most. held_out_rows: a request's.

    By default of the holdout as many as of the forget set: membership attacks tell the two apart, and the smaller side
    decides how sure their figures are. Of retain and test as many too, so that what is lost is known as surely as what
    is gone.
    """
    if must_go(name):
        return FORGET_READ
    if name == SEEN:
        return SEEN_READ
    if isinstance(held_out_rows, int):
        return held_out_rows
    return max(OTHERS_READ, min(FORGET_READ, len(splits["forget"])))


def most_read(splits: Splits, held_out_rows: int | str) -> dict[str, int]:
    """Split that evidence reads -> its rows that are read at most; fewer where some repeat, or steer the method."""
    return {
        name: min(len(rows), reading_limit(name, splits, held_out_rows))
        for name, rows in evidence_splits(splits).items()
    }


def remarks(splits: Mapping[str, Sequence[Example]]) -> dict[str, str]:
    """Split -> the remark that belongs to all figures on it."""
    return {"retain": TRAINED_ON} if "retain" in splits and HELD_OUT not in splits else {}


def notes(splits: Mapping[str, Sequence[Example]]) -> list[str]:
    """Sentences for the plan: where rows repeat others, and where nothing of retain is held out."""
    found = repeat_notes(splits)
    if not remarks(splits):
        return found
    return [
        *found,
        f"Nothing of retain is held out, which takes {LEAST_GROUPS} groups (rows, where they have no group): retain_* "
        f"is {TRAINED_ON}.",
    ]


def repeat_notes(splits: Mapping[str, Sequence[Example]]) -> list[str]:
    """A sentence for each split of which evidence counts repeated rows once."""
    found = []
    for name, rows in splits.items():
        if more := len(rows) - len(counted_rows(name, rows)):
            verb = "repeats an earlier one, and does" if more == 1 else "repeat earlier ones, and do"
            found.append(f"{name}: {more} of {len(rows)} rows {verb} not count again.")
    return found
