"""Near duplicates across splits: rows that repeat most of a forget row's words in its order."""

from __future__ import annotations

from collections import Counter, defaultdict
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
    holders: dict[tuple[str, ...], list[int]] = defaultdict(list)
    shingles = [_shingles(row) for row in forget]
    for i, found in enumerate(shingles):
        for shingle in found:
            holders[shingle].append(i)
    pairs = []
    for j, row in enumerate(others):
        ours = _shingles(row)
        known = [places for shingle in ours if (places := holders.get(shingle))]
        # The share is at most what all shingles give that lead to the row, or are too common to lead anywhere.
        common = sum(len(places) > COMMON for places in known)
        hits = Counter(i for places in known if len(places) <= COMMON for i in places)
        least = ALIKE / (1 + ALIKE) - 1e-9
        near = [i for i, n in hits.items() if n + common >= least * (len(ours) + len(shingles[i]))]
        shares = {i: len(ours & shingles[i]) / len(ours | shingles[i]) for i in near}
        if shares and max(shares.values()) >= ALIKE:
            pairs.append((j, min(i for i in shares if shares[i] == max(shares.values()))))
    return pairs


def _shingles(row: Example) -> set[tuple[str, ...]]:
    """The runs of words of a row's texts; none of a picture, with a caption or without, or a table's row."""
    keys = form(row) or ()
    if "image" in keys or not {"answer", "text", "messages"} & set(keys):
        return set()
    text = str(row["text"]) if "label" in keys else f"{question_of(row)} {answer_of(row)}"
    found = words(text[:LONGEST])
    if len(found) < RUN:
        return {tuple(found)} if found else set()
    return set(zip(*(found[i:] for i in range(RUN)), strict=False))


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
