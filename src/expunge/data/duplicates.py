"""Near duplicates across splits: rows that repeat most of a forget row's words in its order."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from expunge.core.card import Example
from expunge.core.words import words
from expunge.data.examples import answer_of, form, question_of

RUN = 3
"""Words of a shingle."""
ALIKE = 0.7
"""Smallest share of common shingles (Jaccard) at which two rows repeat one another."""
COMMON = 20
"""Forget rows beyond which a shingle is a phrase of the data's own wording, and leads to no row."""
LONGEST = 20_000
"""Characters of a row that are compared: its start."""
NAMED = 3
"""Pairs that a note names."""


def near_duplicates(forget: Sequence[Example], others: Sequence[Example]) -> list[tuple[int, int]]:
    """(row of `others`, the forget row that it is most like), counted from 0, in the order of `others`."""
    holders: dict[str, list[int]] = defaultdict(list)
    shingles = [_shingles(row) for row in forget]
    for i, found in enumerate(shingles):
        for shingle in found:
            holders[shingle].append(i)
    pairs = []
    for j, row in enumerate(others):
        ours = _shingles(row)
        near = {i for shingle in ours if len(places := holders.get(shingle, [])) <= COMMON for i in places}
        shares = {i: len(ours & shingles[i]) / len(ours | shingles[i]) for i in near}
        if shares and max(shares.values()) >= ALIKE:
            pairs.append((j, min(i for i in shares if shares[i] == max(shares.values()))))
    return pairs


def _shingles(row: Example) -> set[str]:
    """The runs of words of a row's texts; none of a picture or a table's row."""
    keys = form(row) or ()
    if not {"answer", "text", "messages"} & set(keys):
        return set()
    text = str(row["text"]) if "label" in keys else f"{question_of(row)} {answer_of(row)}"
    found = words(text[:LONGEST])
    return {" ".join(found[i : i + RUN]) for i in range(max(1, len(found) - RUN + 1))} if found else set()


def duplicate_notes(splits: Mapping[str, Sequence[Example]]) -> list[str]:
    """A sentence for each of retain, holdout and test that nearly repeats forget rows, for the plan."""
    notes = []
    for name in ("retain", "holdout", "test"):
        if pairs := near_duplicates(splits.get("forget", []), splits.get(name, [])):
            named = ", ".join(f"row {j + 1} like forget row {i + 1}" for j, i in pairs[:NAMED])
            more = ", ..." if len(pairs) > NAMED else ""
            count = f"{len(pairs)} of {len(splits[name])} rows nearly {'repeats' if len(pairs) == 1 else 'repeat'}"
            notes.append(f"{name}: {count} a forget row ({named}{more}): what must go stays there.")
    return notes
