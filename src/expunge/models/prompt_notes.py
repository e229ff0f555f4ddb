"""Notes on how examples reach a language model: dates, turns that do not count, cut prompts."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from expunge.core.card import Example
from expunge.data.examples import answer_of, question_of
from expunge.data.turns import earlier_answers
from expunge.models.chat import DAY, render
from expunge.models.generation import LONGEST

OVERHEAD = {"question": "", "answer": "."}
"""What a template writes around every example."""
LOOKED_AT = 1_000
"""Rows of a split whose conversations are rendered to see what becomes of their turns."""
AROUND = 8
"""Most tokens that an encoder's tokenizer puts around a text."""


def prompt_notes(model: Any, splits: Mapping[str, Sequence[Example]], turns: str = "last") -> list[str]:
    """Sentences for the plan and the evidence; none for a family without prompts. Raises BadInput.

    turns: as the request has it. Under "all" each answer of a conversation is an example by now.
    """
    if "tokens" not in model.capabilities:
        return _cut_texts(model, splits)
    notes = []
    if model.template.dated:
        notes.append(f"The chat template writes today's date: prompts carry {DAY:%d %b %Y} on all days.")
    if getattr(model, "plain_attention", None) is False and any(_has_variants(rows) for rows in splits.values()):
        notes.append("Each answer is read in a row of its own: the network does not let answers share a prompt's row.")
    around = len(model.template.encode(OVERHEAD).prompt)
    for name, rows in splits.items():
        # A token has at least one byte: only what is long in bytes can be long in tokens.
        long = [row for row in rows if _bytes(row) + around > min(model.limit, LONGEST)]
        sizes = [(len(item.prompt), len(item.answer)) for item in map(model.template.encode, long)]
        earlier = sum(bool(earlier_answers(row)) for row in rows)
        if earlier and turns == "last":
            notes.append(
                f"{name}: {earlier} conversations have earlier assistant turns; only the last answer counts "
                "(`turns: all` counts each)."
            )
        elif earlier:
            notes.append(f"{name}: each answer of a conversation counts, as one of {len(rows)} examples.")
        notes += _unwritten(model, name, rows)
        if cut := sum(prompt + answer > model.limit for prompt, answer in sizes):
            notes.append(
                f"{name}: {cut} of {len(rows)} prompts are longer than the model's {model.limit:,} tokens leave room "
                "for; they were cut at their start."
            )
        if unread := sum(answer > LONGEST for _, answer in sizes):
            notes.append(
                f"{name}: {unread} answers are longer than {LONGEST:,} tokens, are not generated to their end, and do "
                "not count in text scores."
            )
    return notes


def _unwritten(model: Any, name: str, rows: Sequence[Example]) -> list[str]:
    """A sentence on conversations of which the chat template leaves out a message before the answer."""
    looked_at = [row["messages"] for row in rows[:LOOKED_AT] if "messages" in row] if model.template.chat else []
    lost: dict[str, int] = {}
    for messages in looked_at:
        text = render(model.tokenizer, messages)
        # A tool's text may be written as JSON; earlier answers lose their thoughts in many templates.
        forms = ((m["role"], m["content"].strip()) for m in messages[:-1] if m["role"] != "assistant")
        for role in {role for role, said in forms if said not in text and json.dumps(said)[1:-1] not in text}:
            lost[role] = lost.get(role, 0) + 1
    return [
        f"{name}: the chat template leaves out the {role} turn of {count} of {len(looked_at)} conversations: the model "
        "does not read it."
        for role, count in sorted(lost.items())
    ]


def _cut_texts(model: Any, splits: Mapping[str, Sequence[Example]]) -> list[str]:
    """A sentence for each split with texts that are longer than a classifier or an encoder reads."""
    limit: int | None = getattr(model, "text_limit", None)
    notes: list[str] = []
    if limit is None:
        return notes
    for name, rows in splits.items():
        # A token has at least one byte, and few stand around a text.
        long = [row["text"] for row in rows if len(str(row.get("text", "")).encode()) + AROUND > limit]
        if cut := sum(len(model.processor(text, verbose=False)["input_ids"]) > limit for text in long):
            what, was = ("is longer", "it was") if cut == 1 else ("are longer", "they were")
            notes.append(
                f"{name}: {cut} of {len(rows)} texts {what} than the {limit:,} tokens that the model reads; {was} cut "
                "at the end."
            )
    return notes


def _has_variants(rows: Sequence[Example]) -> bool:
    return any(row.get("paraphrased_answer") or row.get("perturbed_answer") for row in rows)


def _bytes(row: Example) -> int:
    return len(question_of(row).encode()) + len(answer_of(row).encode())
