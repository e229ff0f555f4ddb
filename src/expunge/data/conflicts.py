"""Rows that contradict others, or themselves: one array under two labels, and false answers that are true."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from expunge.core.card import Example
from expunge.data.content import canonical_text, content_key
from expunge.data.examples import answer_of, form

ARRAYS = ("image", "features")
"""Inputs that are compared number by number. Texts that repeat one another are told by their words."""


def conflict_notes(splits: Mapping[str, Sequence[Example]]) -> list[str]:
    """Sentences for the plan and the evidence."""
    return [*_label_conflicts(splits), *_perturbed_conflicts(splits)]


def _label_conflicts(splits: Mapping[str, Sequence[Example]]) -> list[str]:
    """A sentence for each split with arrays of the forget set, under other labels (equal ones are refused)."""
    forget = {key for row in splits.get("forget", []) if (key := _array_key(row))}
    notes = []
    for name in ("retain", "holdout", "test") if forget else ():
        rows = splits.get(name, [])
        if count := sum(_array_key(row) in forget for row in rows):
            what = "is a forget row" if count == 1 else "are forget rows"
            notes.append(f"{name}: {count} of {len(rows)} rows {what} under another label: what must go stays there.")
    return notes


def _array_key(row: Example) -> str:
    """The content of a row's array alone; empty where it has none."""
    name = next((key for key in form(row) or () if key in ARRAYS), "")
    return content_key({name: row[name]}) if name else ""


def _perturbed_conflicts(splits: Mapping[str, Sequence[Example]]) -> list[str]:
    """A sentence for each split with perturbed answers, which are to be false, that are the row's own answer."""
    notes = []
    for name, rows in splits.items():
        if count := sum(_has_true_perturbed(row) for row in rows):
            whose = "has its" if count == 1 else "have their"
            notes.append(
                f"{name}: {count} of {len(rows)} rows {whose} own answer among the perturbed ones, which are to be "
                "false: the truth ratio counts it as both."
            )
    return notes


def _has_true_perturbed(row: Example) -> bool:
    perturbed = row.get("perturbed_answer") or []
    return bool(perturbed) and canonical_text(answer_of(row)) in {canonical_text(str(one)) for one in perturbed}
