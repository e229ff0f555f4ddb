"""Reasoning traces as answers of their own."""

from __future__ import annotations

from expunge.core.contracts import Example


def trace_as_answer(example: Example) -> Example | None:
    """Return the question with its reasoning trace as the answer; None where the example has no trace."""
    if not example.get("trace") or "question" not in example:
        return None
    return {"question": example["question"], "answer": f"<think>{example['trace']}</think>"}
