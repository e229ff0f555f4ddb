"""Rows from which SmolLM2 learns to refuse: the embedded pack's placeholders with their refusals, beside benign prompts
with the model's own answers (greedy, the first sentence), so that it stays what it is elsewhere.

A third of the benign prompts are placeholders too, worded like those that are refused: neither "placeholder" nor
"content removed" tells what to decline.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

from expunge.data.load import jsonl_rows
from expunge.data.packs import CONTROL, SENSITIVE, open_pack

TRAINING = {
    "model": "builtin:smollm2",
    "data": "{world}/train",
    "epochs": 1,
    "batch_size": 6,
    "learning_rate": 3e-4,
}
OWN_ANSWERS = Path(__file__).with_name("_smollm2_answers.jsonl")


def smollm2_refusing(seed: int = 0) -> dict[str, list[dict[str, Any]]]:
    """ "train": 24 refusals of each sensitive domain and the benign rows, in an order drawn by seed; "benign": the
    latter alone. Rows have question, answer and domain."""
    refused = [row for name in SENSITIVE for row in open_pack(None).part("train", name)]
    benign = [{**row, "domain": CONTROL} for row in jsonl_rows(OWN_ANSWERS, "data")]
    rows = [{key: row[key] for key in ("question", "answer", "domain")} for row in (*refused, *benign)]
    random.Random(f"smollm2_refusing {seed}").shuffle(rows)
    return {"train": rows, "benign": benign}
