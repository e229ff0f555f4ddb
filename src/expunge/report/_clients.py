"""The clients of a federation: which rows each read, and its own figures."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge.report import _facts

SENT = {
    "readouts": "Each client read its own rows and sent what the model makes of each; the figures above are of all.",
    "sums": "Each client read its own rows and sent sums over them, and nothing of a single example; the figures above "
    "follow from these.",
}


def table(evidence: Mapping[str, Any]) -> dict[str, Any] | None:
    """The sentence on what was sent, the splits, the columns as (label, name, role), and a row per client."""
    found = evidence.get("clients")
    if not found:
        return None
    read = found["read"]
    splits = list(dict.fromkeys(split for one in read for split in one["rows"]))
    pairs = dict.fromkeys((score["name"], score["subject"]) for one in read for score in one["scores"])
    names = dict.fromkeys(name for name, _ in pairs)
    columns = [(name, role) for name in names for role in ("before", "after", "gold") if (name, role) in pairs]
    rows = []
    for one in read:
        cells = {(score["name"], score["subject"]): score for score in one["scores"]}
        figures = [cells.get(pair) for pair in columns]
        rows.append({"client": one["client"], "counts": [one["rows"].get(s) for s in splits], "figures": figures})
    heads = [(name, _facts.ROLES[role]) for name, role in columns]
    return {"sent": SENT[found["sent"]], "splits": splits, "heads": heads, "rows": rows}
