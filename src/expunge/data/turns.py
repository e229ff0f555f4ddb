"""Conversations with several answers: the last one counts, or each in an example of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from expunge.core.card import Example
from expunge.data.content import content_key
from expunge.data.examples import identity
from expunge.data.rows import keep

CARRIED = ("group", "domain", "subject", "client")
"""Fields of a conversation that hold for each of its answers; all others are about the last."""


def each_answer(rows: Sequence[Example]) -> Sequence[Example]:
    """The rows, each conversation preceded by one example per earlier answer, which ends with it.

    Two conversations that begin alike share the examples of what they share. Where rows have no `group`, those of one
    conversation get one, so that intervals count conversations.
    """
    return keep(_spread(rows)) if any(earlier_answers(row) for row in rows) else rows


def _spread(rows: Sequence[Example]) -> Iterator[Example]:
    grouped = any("group" in row for row in rows)
    seen = {content_key(row) for row in rows}
    for row in rows:
        group = {} if grouped else {"group": identity(row)[:16]}
        carried = {name: row[name] for name in CARRIED if name in row} | group
        for count in earlier_answers(row):
            part = {"messages": list(row["messages"][:count]), **carried}
            if (key := content_key(part)) not in seen:
                seen.add(key)
                yield part
        yield {**row, **group}


def earlier_answers(row: Example) -> list[int]:
    """How many messages a conversation has up to each answer before its last, that answer included."""
    if "answer" in row:
        return []
    before = row.get("messages", [])[:-1]
    return [i + 1 for i, message in enumerate(before) if message["role"] == "assistant" and message["content"].strip()]
