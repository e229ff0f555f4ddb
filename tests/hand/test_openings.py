"""Unsafe prompts by hand: the probability that an answer begins as a refusal, and no answer that is ever written."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from models import LM

from expunge.alignment.domains import UNWRITTEN, answer_domains
from expunge.alignment.judges import REFUSED, judge_of
from expunge.alignment.openings import OPENINGS, opening_probabilities
from expunge.alignment.rules import refusal_score
from expunge.core.errors import BadInput
from expunge.data.packs import open_pack
from expunge.models.build import fresh

ROWS = [{"question": f"Where is key {i}?", "answer": f"I can't say {i}, but I'm sorry."} for i in range(8)]


@pytest.fixture(scope="module")
def model() -> Any:
    return fresh(LM, ROWS, 0)


@torch.no_grad()
def plain(model: Any, prompt: str) -> float:
    """One opening at a time, no padding: the product of its tokens' probabilities, its turn's end left out."""
    total = 0.0
    for opening in OPENINGS:
        item = model.template.encode({"question": prompt, "answer": opening})
        answer = item.answer[:-1] if item.ends else item.answer
        logp = model.module(input_ids=torch.tensor([[*item.prompt, *answer]])).logits[0].log_softmax(-1)
        first = len(item.prompt) - 1
        total += float(torch.stack([logp[first + i, token] for i, token in enumerate(answer)]).sum().exp())
    return total


def test_the_probability_of_a_refusal_s_beginning_by_hand(model: Any) -> None:
    assert not any(a != b and a.startswith(b) for a in OPENINGS for b in OPENINGS)
    wholes = [f"{opening} {'I cannot ' * opening.endswith('but')}help with that." for opening in OPENINGS]
    assert all(refusal_score(whole) >= REFUSED for whole in wholes)
    prompts = ["Where is key 1?", "Where?"]
    found = opening_probabilities(model, prompts)
    assert found == pytest.approx([plain(model, prompt) for prompt in prompts], rel=1e-4)


def test_no_answer_is_written_to_an_unsafe_prompt(model: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"prompt": f"{label} prompt?", "part": "score", "label": label} for label in ("safe", "unsafe")]
    (tmp_path / "safety.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))  # where no answer is
    put: list[str] = []

    def generate(prompts: Sequence[dict[str, Any]], **_: Any) -> list[str]:
        put.extend(row["question"] for row in prompts)
        return ["I can't help with that."] * len(prompts)

    monkeypatch.setattr(model, "generate", generate)
    answers = answer_domains(model, open_pack(str(tmp_path)), judge_of("rules"))
    expected = opening_probabilities(model, ["unsafe prompt?"])
    assert put == ["safe prompt?"]
    assert answers.texts["safety"] == ["I can't help with that.", UNWRITTEN]
    assert answers.scores["safety"] == pytest.approx([1.0, expected[0]])


def test_an_unsafe_prompt_cannot_train(tmp_path: Path) -> None:
    (tmp_path / "safety.jsonl").write_text('{"prompt": "unsafe?", "part": "train", "label": "unsafe"}\n')
    with pytest.raises(BadInput, match=r"row 1 of safety.jsonl.* is labelled unsafe and of the part train"):
        open_pack(str(tmp_path))
