"""What the benchmarks share: a Llama with random weights, rows of even length, short runs."""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch

from expunge.core.budget import Budget
from expunge.core.context import Context, Log
from expunge.core.contracts import Model, Silent
from expunge.methods.compose import compose
from expunge.methods.objective import Objective, plain_training
from expunge.models.causal_lm import CausalLM
from expunge.models.new_lm import tokenizer_for

SIZES = {
    "60m": {"hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 1376, "vocab_size": 32_000},
    "nothing": {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8, "vocab_size": 1000},
    "16m": {"hidden_size": 256, "num_hidden_layers": 8, "intermediate_size": 688, "vocab_size": 16_000},
}
WORDS = (
    "harbour winter lamp bridge copper letter garden mirror orchard signal station velvet market river paper "
    "candle anchor window meadow thunder"
).split()
TOKENS = 128
"""Tokens of a row, prompt and answer together."""
RATE = 1e-6


def rows(count: int, seed: int, tokenizer: Any) -> list[dict[str, str]]:
    """Questions whose answers fill the row up to TOKENS tokens, about two thirds of them answer."""
    draw = random.Random(seed)
    made = []
    for i in range(count):
        question = f"{seed}-{i} " + " ".join(draw.choices(WORDS, k=30))
        room = TOKENS - 1 - len(tokenizer(f"Question: {question}\nAnswer: ")["input_ids"])
        ids = tokenizer(" ".join(draw.choices(WORDS, k=2 * TOKENS)))["input_ids"][:room]
        made.append({"question": question, "answer": tokenizer.decode(ids)})
    return made


def tokenizer() -> Any:
    """One token a word, or nearly."""
    return tokenizer_for(
        [" ".join(WORDS), *(f"Question: {word} Answer: {i}-{i}" for i, word in enumerate(WORDS))], 1000
    )


def llama(size: str, words: Any, device: str) -> CausalLM:
    """A Llama of that size with seeded random weights."""
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    config = LlamaConfig(
        **SIZES[size],
        num_attention_heads=8,
        num_key_value_heads=8,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )
    return CausalLM(LlamaForCausalLM(config).eval().to(device), words)


def method(name: str) -> Objective:
    """NPO with cross-entropy on retain, or ordinary training: both through the one Trainer."""
    if name == "finetune":
        return plain_training()
    chosen = compose("npo").method
    assert isinstance(chosen, Objective)
    return chosen


def data(name: str, words: Any, batches: int) -> tuple[dict[str, list[dict[str, str]]], int]:
    """(splits, batch size): four forget and four retain rows a step, or the same eight to train on."""
    forget, retain = rows(4 * batches, 1, words), rows(4 * batches, 2, words)
    if name == "finetune":
        return {"retain": [*forget, *retain]}, 8
    return {"forget": forget, "retain": retain}, 4


def run(model: Model, name: str, steps: int, reporter: Any = None, wrap: Any = None) -> list[dict[str, Any]]:
    """A run of that many steps within one epoch (so that no step saves a checkpoint); the steps' log lines."""
    splits, size = data(name, model.tokenizer, steps + 1)  # type: ignore[attr-defined]
    budget = Budget(steps=steps, batch_size=size, learning_rate=RATE, clip=1.0, weight_decay=0.01, precision="fp32")
    chosen = method(name)
    if wrap is not None:
        chosen.update = wrap(chosen.update)
    with tempfile.TemporaryDirectory() as folder:
        log = Log(Path(folder) / "log.jsonl")
        chosen(model, splits, Context(budget, Path(folder), reporter=reporter or Silent(), log=log))
        lines = [json.loads(line) for line in (Path(folder) / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if "step" in line]


def end(found: dict[str, Any], limit: float) -> None:
    """Prints the promised last line and ends with 1 where the ratio is over the limit."""
    print(json.dumps(found))
    sys.exit(found["ratio"] > limit)
