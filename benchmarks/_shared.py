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

SIZES: dict[str, dict[str, Any]] = {
    "1b": {
        "hidden_size": 2048,
        "num_hidden_layers": 16,
        "intermediate_size": 8192,
        "vocab_size": 128_256,
        "num_attention_heads": 32,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": True,
    },
    "60m": {"hidden_size": 512, "num_hidden_layers": 8, "intermediate_size": 1376, "vocab_size": 32_000},
    "1m": {"hidden_size": 128, "num_hidden_layers": 4, "intermediate_size": 512, "vocab_size": 1000},
    "nothing": {"hidden_size": 8, "num_hidden_layers": 1, "intermediate_size": 8, "vocab_size": 1000},
    "16m": {"hidden_size": 256, "num_hidden_layers": 8, "intermediate_size": 688, "vocab_size": 16_000},
    "tiny": {"hidden_size": 64, "num_hidden_layers": 2, "intermediate_size": 128, "vocab_size": 1000},
}
"""The 1b is Llama 3.2 1B's shape."""
WORDS = (
    "harbour winter lamp bridge copper letter garden mirror orchard signal station velvet market river paper "
    "candle anchor window meadow thunder"
).split()
TOKENS = 128
"""Tokens of a row, prompt and answer together."""
RATE = 1e-6


def rows(
    count: int, seed: int, tokenizer: Any, tokens: int = TOKENS, shortest: int | None = None
) -> list[dict[str, str]]:
    """Questions whose answers fill the row up to so many tokens, about two thirds of them answer.

    shortest: of it, where the rows are to be of any length from there to `tokens`.
    """
    draw = random.Random(seed)
    made = []
    for i in range(count):
        length = tokens if shortest is None else draw.randint(shortest, tokens)
        question = f"{seed}-{i} " + " ".join(draw.choices(WORDS, k=30 * length // TOKENS))
        room = length - 1 - len(tokenizer(f"Question: {question}\nAnswer: ")["input_ids"])
        ids = tokenizer(" ".join(draw.choices(WORDS, k=2 * length)))["input_ids"][:room]
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
    shape = {"num_attention_heads": 8, "max_position_embeddings": 512, "tie_word_embeddings": False, **SIZES[size]}
    config = LlamaConfig(
        **shape,
        num_key_value_heads=8,
        pad_token_id=words.pad_token_id,
        bos_token_id=words.bos_token_id,
        eos_token_id=words.eos_token_id,
    )
    with torch.device(device):
        return CausalLM(LlamaForCausalLM(config).eval(), words)


def method(name: str) -> Objective:
    """NPO with cross-entropy on retain (of all weights, or by LoRA), or ordinary training: all through the one
    Trainer."""
    if name == "finetune":
        return plain_training()
    terms = {"forget": "npo", "retain": "cross_entropy"}
    chosen = compose({**terms, "weights": "lora"} if name == "lora" else "npo").method
    assert isinstance(chosen, Objective)
    return chosen


def data(
    name: str, words: Any, batches: int, size: int = 4, tokens: int = TOKENS, shortest: int | None = None
) -> tuple[dict[str, list[dict[str, str]]], int]:
    """(splits, batch size): `size` forget and as many retain rows a step, or the same rows to train on."""
    forget, retain = (rows(size * batches, seed, words, tokens, shortest) for seed in (1, 2))
    if name == "finetune":
        return {"retain": [*forget, *retain]}, 2 * size
    return {"forget": forget, "retain": retain}, size


def run(model: Model, name: str, steps: int, reporter: Any = None, wrap: Any = None) -> list[dict[str, Any]]:
    """A run of that many steps within one epoch (so that no step saves a checkpoint); the steps' log lines."""
    return run_on(data(name, model.tokenizer, steps + 1), model, name, steps, reporter, wrap)  # type: ignore[attr-defined]


def run_on(
    given: tuple[dict[str, list[dict[str, str]]], int],
    model: Model,
    name: str,
    steps: int,
    reporter: Any = None,
    wrap: Any = None,
    **fields: Any,
) -> list[dict[str, Any]]:
    """The same on these (splits, batch size). fields: of the budget, in the place of ours."""
    splits, size = given
    ours = {"learning_rate": RATE, "clip": 1.0, "weight_decay": 0.01, "precision": "fp32"}
    budget = Budget(steps=steps, batch_size=size, **{**ours, **fields})
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
