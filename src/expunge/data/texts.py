"""Examples as plain texts, and files of examples."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from expunge.core.card import Example
from expunge.core.errors import BadInput
from expunge.core.files import write_text
from expunge.data.arrays import as_json
from expunge.data.examples import answer_of, form, question_of


def write_rows(path: Path, examples: Sequence[Example]) -> None:
    """Examples as JSONL, ready to be added to a forget set."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False, default=as_json) + "\n" for row in examples))


def texts_only(examples: Sequence[Example], name: str) -> None:
    """Raises BadInput where an example has a label."""
    for i, row in enumerate(examples):
        if "label" in (form(row) or ()):
            raise BadInput.of(
                name, f"row {i + 1}", "has a label and no text to compare", "give questions and answers, or texts"
            )


def text_of(example: Example) -> str:
    """Question and answer, or the text: all that an example says."""
    return " ".join(part for part in (question_of(example), answer_of(example)) if part)
