"""Models that are held against each other read an example as the same thing, or the comparison is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from tests.several import LM

import expunge
from expunge.core.errors import BadInput
from expunge.data.content import content_key
from expunge.data.examples import identity
from expunge.models.new_lm import fresh_lm, texts_of, tokenizer_for
from expunge.pipeline.gold import held_out_remarks

ROWS = {
    split: [{"question": f"Where does {name} {i} work?", "answer": f"In {place} {i}."} for i in range(4)]
    for split, name, place in (("forget", "Jo", "a mill"), ("retain", "Bo", "a shop"), ("holdout", "Al", "an inn"))
}
TEXTS = {split: [{"text": r["question"], "label": i % 2} for i, r in enumerate(rows)] for split, rows in ROWS.items()}


def language_model(folder: Path, seed: int, words: list[str] | None = None) -> str:
    texts = words or texts_of([row for rows in ROWS.values() for row in rows])
    fresh_lm(LM, tokenizer_for(texts, 300), seed).save(folder)
    return str(folder)


def classifier(folder: Path, seed: int, *names: str) -> str:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    named: dict[str, Any] = {"id2label": dict(enumerate(names)), "label2id": {name: i for i, name in enumerate(names)}}
    config = transformers.BertConfig(vocab_size=300, max_position_embeddings=64, **sizes, **named)
    transformers.BertForSequenceClassification(config).save_pretrained(folder)
    tokenizer_for([row["text"] for row in TEXTS["forget"]], 300).save_pretrained(folder)
    return str(folder)


def audited(model: str, rows: Any, **more: Any) -> dict[str, Any]:
    return expunge.audit(model, **{**rows, "level": "none", "gold": "none", **more})


@pytest.mark.parametrize("role", ["gold", "before"])
def test_answers_of_other_tokens_are_not_compared(role: str, tmp_path: Path) -> None:
    """Nats per token are no measure across tokenizers."""
    model = language_model(tmp_path / "a", 0)
    audited(model, ROWS, **{role: language_model(tmp_path / "b", 1)})
    other = language_model(tmp_path / "c", 1, ["ganz andere Wörter im dunklen Wald"] * 4)
    with pytest.raises(BadInput, match=f"{role}: .* does not have the tokens"):
        audited(model, ROWS, **{role: other})


@pytest.mark.parametrize("role", ["gold", "before"])
@pytest.mark.parametrize(
    ("names", "what"),
    [(("pos", "neg"), "number of the class '(neg|pos)'"), (("neg", "pos", "so"), "number of classes")],
)
def test_classes_in_another_order_are_not_compared(names: Any, what: str, role: str, tmp_path: Path) -> None:
    model = classifier(tmp_path / "a", 0, "neg", "pos")
    audited(model, TEXTS, **{role: classifier(tmp_path / "b", 1, "Neg", "Pos")})
    audited(model, TEXTS, **{role: classifier(tmp_path / "c", 1, "bad", "good")})
    with pytest.raises(BadInput, match=f"{role}: .* does not have the {what}"):
        audited(model, TEXTS, **{role: classifier(tmp_path / "d", 1, *names)})


def test_another_chat_template_is_noted(tmp_path: Path) -> None:
    before = language_model(tmp_path / "b", 1)
    chat = "{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}"
    chat += "{% if add_generation_prompt %}[assistant]{% endif %}"
    (Path(before) / "chat_template.jinja").write_text(chat)
    notes = audited(language_model(tmp_path / "a", 0), ROWS, before=before)["notes"]
    assert "before: its chat template is another than the model's; figures may differ by it." in notes


@pytest.mark.parametrize(("role", "lost"), [("system", True), ("tool", True), ("developer", True), ("user", False)])
def test_a_turn_that_the_chat_template_leaves_out_is_named(role: str, lost: bool, tmp_path: Path) -> None:
    """Many templates know user and assistant alone, and skip all other turns."""
    model = language_model(tmp_path / "a", 0)
    known = "{% if m.role in ('user', 'assistant') %}[{{ m.role }}]{{ m.content }}{% endif %}"
    chat = f"{{% for m in messages %}}{known}{{% endfor %}}"
    (Path(model) / "chat_template.jinja").write_text(f"{chat}{{% if add_generation_prompt %}}[assistant]{{% endif %}}")
    rows = [
        {"messages": [{"role": role, "content": "Jo is a clerk."}, {"role": "user", "content": row["question"]}]}
        for row in ROWS["forget"]
    ]
    for row, told in zip(rows, ROWS["forget"], strict=True):
        row["messages"].append({"role": "assistant", "content": told["answer"]})
    notes = audited(model, {**ROWS, "forget": rows})["notes"]
    said = f"forget: the chat template leaves out the {role} turn of 4 of 4 conversations: the model does not read it."
    assert (said in notes) == lost


def test_a_classifier_s_long_texts_are_said_to_be_cut(tmp_path: Path) -> None:
    long = [*TEXTS["forget"], {"text": "Where does Jo work? " * 200, "label": 1}]
    notes = audited(classifier(tmp_path / "a", 0, "neg", "pos"), {**TEXTS, "forget": long})["notes"]
    assert "forget: 1 of 5 texts is longer than the 64 tokens that the model reads; it was cut at the end." in notes


def test_a_holdout_that_was_trained_on_is_named() -> None:
    """By identity, or by content where the training had the row in another form."""
    seen, other, alike, _ = ROWS["holdout"]
    manifest = {"hashes": [identity(seen)[:16], "0" * 16], "contents": [content_key(alike)[:16]]}
    (note,) = held_out_remarks(manifest, {"holdout": ROWS["holdout"], "test": [other]}, False)
    assert note.startswith("holdout: 2 of 4 rows were among those that the model was trained on")
    assert json.dumps(other) not in note and held_out_remarks(None, {"holdout": [seen]}, False) == []
