"""Continuing prompts: the texts of transformers' own loop, with rows that are done out of the batch."""

from __future__ import annotations

import weakref
from typing import Any

import pytest
import torch
import transformers
from transformers.cache_utils import DynamicLayer

from expunge.core.compute import Compute
from expunge.models.causal_lm import CausalLM
from expunge.models.decoding import decode
from expunge.models.key_values import Buffers, with_room
from expunge.models.metering import count_passes
from expunge.models.new_lm import tokenizer_for

WORDS = "harbour winter lamp bridge copper letter garden mirror orchard signal station velvet"
ROWS = [
    {"question": f"What of {word}?", "answer": " ".join(WORDS.split()[: 1 + 2 * i])}
    for i, word in enumerate(WORDS.split())
]


@pytest.fixture(scope="module")
def model() -> CausalLM:
    """A tiny Llama with random weights whose end of text is likely, so that answers end at many places."""
    tokenizer = tokenizer_for([WORDS, *(row["question"] for row in ROWS)], 300)
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=48,
        vocab_size=300,
        eos_token_id=tokenizer.eos_token_id,
    )
    module = transformers.LlamaForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.5)
        module.lm_head.weight[tokenizer.eos_token_id] *= 3
    found = CausalLM(module, tokenizer)
    found.check_batches()
    assert found.plain_attention
    return found


def count_rows(model: CausalLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets the rows of each forward of the network's body."""
    rows: list[int] = []
    forward = model.module.model.forward

    def counting(*given: Any, **named: Any) -> Any:
        rows.append(len(named["input_ids"]))
        return forward(*given, **named)

    monkeypatch.setattr(model.module.model, "forward", counting)
    return rows


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"batch_size": 5},
        {"max_new_tokens": 9},
        {"shown": 0.5},
        {"temperature": 0.7, "seed": 3},
        {"temperature": 1.3, "seed": 4, "batch_size": 5},
    ],
    ids=str,
)
def test_the_texts_are_those_of_transformers_for_less_work(
    model: CausalLM, settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = count_rows(model, monkeypatch)
    ours, work = model.generate(ROWS, **settings), sum(rows)
    rows.clear()
    monkeypatch.setattr(model, "plain_attention", False)
    assert ours == model.generate(ROWS, **settings)
    assert work < 0.9 * sum(rows)
    assert len({len(text) for text in ours}) > 4, "the answers end at different places"


def test_rows_that_are_done_leave_while_passes_are_counted(model: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    """As within a method: the counter's hooks read no row, and the count is that of the rows that went on."""
    rows, compute = count_rows(model, monkeypatch), Compute()
    plain, work = model.generate(ROWS), sum(rows)
    rows.clear()
    with count_passes(model, compute):
        assert model.generate(ROWS) == plain
    assert sum(rows) == work and compute.forward > 0
    monkeypatch.setattr(model, "plain_attention", False)
    whole = Compute()
    with count_passes(model, whole):
        assert model.generate(ROWS) == plain
    assert compute.forward < 0.9 * whole.forward


def test_a_row_ends_at_its_end_token_or_its_limit(model: CausalLM) -> None:
    prompts = [[5, 6], [7, 8, 9], [10]]
    free = decode(model, prompts, [12] * 3, [])
    assert [len(ids) for ids in free] == [12] * 3
    cut = decode(model, prompts, [3, 12, 1], [])
    assert cut == [free[0][:3], free[1], free[2][:1]]
    end = free[1][4]
    first = free[1].index(end) + 1
    assert decode(model, prompts[1:2], [12], [end])[0] == free[1][:first]


def test_hooks_and_guards_leave_generation_to_transformers(model: CausalLM, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    own = model._new_ids
    monkeypatch.setattr(model, "_new_ids", lambda prompts, *given: calls.append(len(prompts)) or own(prompts, *given))
    model.generate(ROWS[:2])
    assert calls == []
    handle = model.module.model.layers[0].register_forward_hook(lambda *_: None)
    model.generate(ROWS[:2])
    handle.remove()
    model.generate(ROWS[:2], rows=lambda places: None)
    assert calls == [2, 2]


def test_buffers_hold_what_transformers_own_cache_holds() -> None:
    """A prompt, two steps, rows dropped, and more tokens than there was room for."""
    torch.manual_seed(0)
    ours, theirs = DynamicLayer(), DynamicLayer()
    memory, rows = Buffers(ours, 5), 3
    for tokens in (3, 1, 1, 0, 1, 4):
        if not tokens:
            rows = 2
            for layer in (ours, theirs):
                layer.batch_select_indices(torch.tensor([2, 0]))
            continue
        new = [torch.randn(rows, 2, tokens, 4) for _ in range(2)]
        for one, other in zip(ours.update(*new), theirs.update(*new), strict=True):
            assert torch.equal(one, other)
    assert ours.get_seq_length() == 10 and memory.held[0].shape == (2, 2, 12, 4)
    gone = weakref.ref(memory)
    del ours, layer, memory
    assert gone() is None, "freed with its layer, without the garbage collector"


def test_only_layers_that_attend_to_all_tokens_have_buffers() -> None:
    config = transformers.Gemma3TextConfig(num_hidden_layers=3, sliding_window=4)
    config.layer_types = ["sliding_attention", "full_attention", "sliding_attention"]
    assert ["update" in vars(layer) for layer in with_room(config, 9).layers] == [False, True, False]
