"""Models against the families' own code: what we compute is what a plain forward says.

Tiny models with random weights, made here; nothing is downloaded.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from torch import Tensor

from expunge.core.budget import Budget
from expunge.core.context import Context
from expunge.core.contracts import Want, want_of
from expunge.core.errors import BadInput
from expunge.methods.exact._sliced import check_base
from expunge.methods.weights.lora import lora
from expunge.models import logits as _head
from expunge.models.causal_lm import CausalLM
from expunge.models.classifier import Classifier
from expunge.models.generation import LONGEST, answer_text, batches, end_ids, new_tokens, shared_tokens
from expunge.models.logits import descending, measure_in_chunks, measure_NV
from expunge.models.networks import MLP, Digits
from expunge.models.new_lm import tokenizer_for
from expunge.models.open import open_on_cpu
from expunge.models.prompt_notes import prompt_notes
from expunge.models.prompts import cut_prompt
from expunge.models.templates import Encoded, Template
from expunge.models.weights import snapshot

ROWS = [
    {"question": "Who wrote the long book of the northern sea?", "answer": "Ada."},
    {"question": "Where?", "answer": "In a house by the harbour, over many winters."},
    {"question": "When was it printed", "answer": "1931"},
    {"text": "A plain text has no question and all but its first token counts."},
]
SIZES = dict(
    hidden_size=32,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    intermediate_size=48,
    max_position_embeddings=128,
)
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": SIZES | {"tie_word_embeddings": True},
    "gpt2": dict(n_embd=32, n_layer=2, n_head=4, n_positions=128),
    "gpt_neox": {k: v for k, v in SIZES.items() if k != "num_key_value_heads"},
    "qwen2": SIZES,
    "gemma2": SIZES | dict(head_dim=8, final_logit_softcapping=3.0, attn_logit_softcapping=2.0, sliding_window=8),
    "cohere": SIZES | dict(logit_scale=0.25),
    "granite": SIZES | dict(logits_scaling=4.0, embedding_multiplier=3.0, attention_multiplier=0.2),
}
CHAT = (
    "{% for m in messages %}<|{{ m.role }}|>{{ m.content }}<|end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)


@pytest.fixture(scope="module")
def tokenizer() -> Any:
    return tokenizer_for([row.get("question", "") + row.get("answer", row.get("text", "")) for row in ROWS], 300)


def network(family: str, tokenizer: Any) -> Any:
    """Random weights, large enough that logits differ and soft caps bite."""
    torch.manual_seed(sum(map(ord, family)))
    config = transformers.CONFIG_MAPPING[family](
        vocab_size=len(tokenizer),
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
        **FAMILIES[family],
    )
    made = transformers.AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in made.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
    return made.eval()


@pytest.fixture(scope="module")
def llama(tokenizer: Any) -> CausalLM:
    return CausalLM(network("llama", tokenizer), tokenizer)


def ids(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def parts(tokenizer: Any, row: dict[str, str]) -> tuple[list[int], list[int]]:
    """(prompt, answer) of the plain form, written out."""
    if "text" in row:
        whole = ids(tokenizer, row["text"])
        return whole[:1], whole[1:]
    prompt = ids(tokenizer, f"Question: {row['question']}\nAnswer: ")
    return prompt, [*ids(tokenizer, row["answer"]), tokenizer.eos_token_id]


@torch.no_grad()
def plainly(module: Any, prompt: list[int], answer: list[int]) -> Tensor:
    """[n, V] log-probabilities at the answer's tokens: one example, no padding, all logits."""
    logits = module(input_ids=torch.tensor([prompt + answer])).logits[0, len(prompt) - 1 : -1]
    return logits.float().log_softmax(-1)


# -- the language models' own forward -------------------------------------------------------------


@pytest.mark.parametrize("family", FAMILIES)
def test_nll_is_the_family_s_own(family: str, tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Left-padded, chunked, at the answers alone, against one unpadded forward an example."""
    module = network(family, tokenizer)
    model = CausalLM(module, tokenizer)
    monkeypatch.setattr(_head, "CHUNK", 7 * len(tokenizer))
    batch = model.collate(ROWS)
    out = model.forward(batch, want_of({"nll", "logp", "argmax", "moments", "logits"}))
    for b, row in enumerate(ROWS):
        prompt, answer = parts(tokenizer, row)
        logp = plainly(module, prompt, answer)
        n = len(answer)
        own = logp[torch.arange(n), torch.tensor(answer)]
        assert int(out.n_B[b]) == n and int(out.mask_BT[b].sum()) == n
        assert out.labels_BT[b, -n:].tolist() == answer
        torch.testing.assert_close(out.logp_BT[b, -n:], own, atol=2e-4, rtol=2e-4)
        assert float(out.nll_B[b].detach()) == pytest.approx(-float(own.sum()), rel=1e-4)
        assert out.logp_BT[b, :-n].abs().sum() == 0, "the prompt and padding never count"
        assert out.argmax_BT[b, -n:].tolist() == logp.argmax(-1).tolist()
        mu = (logp.exp() * logp).sum(-1)
        torch.testing.assert_close(out.mu_BT[b, -n:], mu, atol=2e-4, rtol=2e-4)
        variance = (logp.exp() * (logp - mu[:, None]).square()).sum(-1)
        torch.testing.assert_close(out.sigma_BT[b, -n:], variance.sqrt(), atol=2e-4, rtol=2e-4)
        torch.testing.assert_close(out.logits_BTV[b, -n:].log_softmax(-1), logp, atol=2e-4, rtol=2e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_head_check_knows_the_family(family: str, tokenizer: Any) -> None:
    CausalLM(network(family, tokenizer), tokenizer).check_head()


def test_a_head_that_does_more_is_read_whole(tokenizer: Any) -> None:
    class Odd(transformers.LlamaForCausalLM):
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            out = super().forward(*args, **kwargs)
            out.logits = 2 * out.logits
            return out

    module = Odd(network("llama", tokenizer).config).eval()
    model = CausalLM(module, tokenizer)
    model.check_head()
    assert not model.splits_head
    nll_B = model.forward(model.collate(ROWS)).nll_B
    for b, row in enumerate(ROWS):
        prompt, answer = parts(tokenizer, row)
        own = plainly(module, prompt, answer)[torch.arange(len(answer)), torch.tensor(answer)]
        assert float(nll_B[b].detach()) == pytest.approx(-float(own.sum()), rel=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_padding_changes_nothing(family: str, tokenizer: Any) -> None:
    model = CausalLM(network(family, tokenizer), tokenizer)
    together = model.forward(model.collate(ROWS)).nll_B
    alone = torch.cat([model.forward(model.collate([row])).nll_B for row in ROWS])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_generation_is_greedy_one_by_one(family: str, tokenizer: Any) -> None:
    module = network(family, tokenizer)
    model = CausalLM(module, tokenizer)
    found = model.generate(ROWS[:3], max_new_tokens=6)
    for row, text in zip(ROWS[:3], found, strict=True):
        prompt, _ = parts(tokenizer, row)
        now = list(prompt)
        for _ in range(6):
            with torch.no_grad():
                now.append(int(module(input_ids=torch.tensor([now])).logits[0, -1].argmax()))
            if now[-1] == tokenizer.eos_token_id:
                break
        assert text == tokenizer.decode(now[len(prompt) :], skip_special_tokens=True).strip()


def test_generation_keeps_order_and_batching(llama: CausalLM) -> None:
    counts: list[int] = []
    texts = llama.generate(ROWS[:3], max_new_tokens=5, batch_size=1, progress=counts.append)
    assert texts == llama.generate(ROWS[:3], max_new_tokens=5) and counts == [1, 2, 3]


PENALTIES = {"repetition_penalty": 1.7, "no_repeat_ngram_size": 2, "min_new_tokens": 6, "do_sample": True, "top_k": 3}


def test_greedy_is_greedy_whatever_the_folder_says(tokenizer: Any) -> None:
    model = CausalLM(network("llama", tokenizer), tokenizer)
    plain = model.generate(ROWS[:3], max_new_tokens=12)
    theirs = model.module.generation_config
    theirs.update(**PENALTIES)
    assert model.generate(ROWS[:3], max_new_tokens=12) == plain
    assert model.module.generation_config is theirs and theirs.repetition_penalty == 1.7, "they are saved as they came"


def test_an_end_of_turn_ends_an_answer(tokenizer: Any) -> None:
    """Whatever the folder calls the end: of the text, of both configurations, and of the chat template's turns."""
    tokenizer = tokenizer_for([row.get("question", "") + row.get("answer", "") for row in ROWS], 300)
    tokenizer.chat_template = CHAT.replace("<|end|>", "{{ pad_token }}")
    model = CausalLM(network("llama", tokenizer), tokenizer)
    model.module.generation_config.eos_token_id = [7, 10**6]
    model.module.config.eos_token_id = 9
    ends = end_ids(model.module, tokenizer, model.template)
    assert ends == sorted({tokenizer.pad_token_id, tokenizer.eos_token_id, 7, 9}), "a token it does not have is none"
    spoken = [*ids(tokenizer, "Ada."), tokenizer.pad_token_id, *ids(tokenizer, "Eve.")]
    assert answer_text(tokenizer, spoken, ends) == ("Ada.", True)
    written = CausalLM(model.module, tokenizer_for(["Ada"], 300)).tokenizer
    written.chat_template = CHAT
    template = Template(written)
    assert template.end_text == "<|end|>"
    assert answer_text(written, ids(written, "Ada.<|end|>\n<|user|>"), ends, template.end_text) == ("Ada.", True)


def test_long_answers_are_generated_to_their_own_length() -> None:
    def sized(*sizes: int) -> list[Encoded]:
        return [Encoded([1] * 20, [2] * size, True) for size in sizes]

    assert new_tokens(sized(3, 5)) == [16, 16]
    assert new_tokens(sized(100, 5)) == [108, 108]
    assert new_tokens(sized(100, *[30] * 99), quantile=0.99) == [108, *[38] * 99], "a longer answer always fits"
    every = sized(*[12] * 97, *[60] * 3)
    shares = [new_tokens(every[i::2], others=every, quantile=0.97) for i in (0, 1)]
    assert new_tokens(every, quantile=0.97) == [limit for pair in zip(*shares, strict=True) for limit in pair]
    assert new_tokens(sized(192, 5)) == [200, 200]
    assert new_tokens(sized(540, 5)) == [548, 200]
    assert new_tokens(sized(540, 10**4), 7) == [7, 7]
    assert new_tokens(sized(10**4)) == [LONGEST]
    mixed = sized(540, 10, 2000, 11)
    assert list(batches(mixed, new_tokens(mixed))) == [[1, 3], [0], [2]], "no row waits for a far longer one"
    assert shared_tokens(sized(540), [548], 1024) == 548
    assert shared_tokens(sized(540), [548], 565) == 545, "the prompt before what is to spare"
    assert shared_tokens(sized(540), [548], 550) == 540, "the answer before the prompt"
    assert shared_tokens(sized(540), [548], 550, 548) == 548


def test_rows_of_one_batch_have_their_own_limits(tokenizer: Any) -> None:
    """A short row generates no further for the long answer beside it."""
    module = network("llama", tokenizer)
    module.config.max_position_embeddings = 1024
    model = CausalLM(module, tokenizer)
    rows = [{"question": "Who?", "answer": "word " * 60}, {"question": "When?", "answer": "1931"}]
    size = len(model.template.encode(rows[0]).answer)
    assert 200 < size < 300
    found = model.generate(rows)
    for text, row, limit in zip(found, rows, (size + 8, 200), strict=True):
        now = list(parts(tokenizer, row)[0])
        start = len(now)
        with torch.no_grad():
            while len(now) < start + limit and now[-1] != tokenizer.eos_token_id:
                now.append(int(module(input_ids=torch.tensor([now])).logits[0, -1].argmax()))
        assert text == tokenizer.decode(now[start:], skip_special_tokens=True).strip()


def test_a_padding_token_outside_the_embeddings_is_not_read() -> None:
    texts = [row.get("question", "") + row.get("answer", row.get("text", "")) for row in ROWS]
    tokenizer = tokenizer_for(texts, 300)
    module = network("llama", tokenizer)
    sound = CausalLM(module, tokenizer)
    tokenizer = tokenizer_for(texts, 300)
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    model = CausalLM(module, tokenizer)
    assert tokenizer.pad_token_id == model.vocabulary and model.pad == tokenizer.eos_token_id
    torch.testing.assert_close(
        model.forward(model.collate(ROWS)).nll_B, sound.forward(sound.collate(ROWS)).nll_B, rtol=1e-5, atol=1e-5
    )
    assert model.generate(ROWS[:3], max_new_tokens=6) == sound.generate(ROWS[:3], max_new_tokens=6)


def test_weights_that_are_not_finite_are_refused(tokenizer: Any) -> None:
    module = network("llama", tokenizer)
    with torch.no_grad():
        module.model.embed_tokens.weight[200, 3] = torch.nan
    with pytest.raises(BadInput, match="not finite"):
        CausalLM(module, tokenizer).check_head()


@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_are_the_layers(family: str, tokenizer: Any) -> None:
    """Block i's output is the family's own hidden state i + 1 (the last one comes before the final norm)."""
    model = CausalLM(network(family, tokenizer), tokenizer)
    assert len(model.blocks) == 2
    down = model.module.get_submodule(model.down(1))
    sizes = sorted(down.weight.shape)
    assert sizes[0] == 32 and sizes[1] in (48, 128)
    batch = model.collate(ROWS[:1])
    out = model.forward(batch, want_of({f"hidden:{model.blocks[0]}"}))
    prompt, answer = parts(model.tokenizer, ROWS[0])
    with torch.no_grad():
        own = model.module(input_ids=torch.tensor([prompt + answer]), output_hidden_states=True).hidden_states
    torch.testing.assert_close(out.hidden[model.blocks[0]][0], own[1][0, len(prompt) - 1 : -1], atol=1e-4, rtol=1e-4)


# -- which tokens count ---------------------------------------------------------------------------


def test_a_prompt_says_nothing_of_the_loss(llama: CausalLM) -> None:
    """The gradient at an answer's loss reaches the prompt's embedding, but no prompt token is a label."""
    row = ROWS[0]
    prompt, answer = parts(llama.tokenizer, row)
    batch = llama.collate([row])
    assert batch.labels_BT[batch.mask_BT].tolist() == answer
    assert batch.inputs["input_ids"][0].tolist() == (prompt + answer)[:-1]
    assert int(batch.n_B[0]) == len(answer) < len(prompt)


def test_a_true_eos_counts_although_padding_looks_the_same() -> None:
    """pad == eos, as most GPT-like tokenizers have it: labels come from the lengths, not from the ids."""
    tokenizer = tokenizer_for([row.get("question", "") + row.get("answer", "") for row in ROWS], 300)
    tokenizer.pad_token = tokenizer.eos_token
    assert tokenizer.pad_token_id == tokenizer.eos_token_id
    model = CausalLM(network("llama", tokenizer), tokenizer)
    batch = model.collate(ROWS[:3])
    out = model.forward(batch)
    for b, row in enumerate(ROWS[:3]):
        prompt, answer = parts(tokenizer, row)
        assert answer[-1] == tokenizer.eos_token_id
        assert batch.labels_BT[b][batch.mask_BT[b]].tolist() == answer
        own = plainly(model.module, prompt, answer)[torch.arange(len(answer)), torch.tensor(answer)]
        assert float(out.nll_B[b].detach()) == pytest.approx(-float(own.sum()), rel=1e-4)
    assert int(batch.inputs["attention_mask"].sum()) == sum(
        len(p) + len(a) - 1 for p, a in (parts(tokenizer, row) for row in ROWS[:3])
    )


def test_a_text_counts_from_its_second_token(llama: CausalLM) -> None:
    whole = ids(llama.tokenizer, ROWS[3]["text"])
    batch = llama.collate([ROWS[3]])
    assert batch.labels_BT[batch.mask_BT].tolist() == whole[1:]
    assert batch.inputs["input_ids"][0].tolist() == whole[:-1]
    assert not llama.template.encode(ROWS[3]).ends
    with pytest.raises(BadInput, match="fewer than two tokens"):
        llama.collate([{"text": "A"}])


def test_the_chat_template_is_used_and_its_end_of_turn_counts() -> None:
    tokenizer = tokenizer_for([row.get("question", "") + row.get("answer", "") for row in ROWS], 300)
    tokenizer.chat_template = CHAT
    model = CausalLM(network("llama", tokenizer), tokenizer)
    batch = model.collate([ROWS[0]])
    assert (
        tokenizer.decode(batch.inputs["input_ids"][0])
        == f"<|user|>{ROWS[0]['question']}<|end|>\n<|assistant|>Ada.<|end|"
    )
    assert tokenizer.decode(batch.labels_BT[batch.mask_BT]) == "Ada.<|end|>"
    assert model.template.encode(ROWS[0]).ends
    talk = {
        "messages": [
            {"role": "system", "content": "Be short."},
            {"role": "user", "content": "Who?"},
            {"role": "assistant", "content": "Eve."},
        ]
    }
    batch = model.collate([talk])
    assert tokenizer.decode(batch.inputs["input_ids"][0]).startswith("<|system|>Be short.<|end|>\n<|user|>Who?<|end|>")
    assert tokenizer.decode(batch.labels_BT[batch.mask_BT]) == "Eve.<|end|>"
    plain = CausalLM(model.module, tokenizer, "Question: {q}\nAnswer: ")
    assert "<|user|>" not in tokenizer.decode(plain.collate([ROWS[0]]).inputs["input_ids"][0])


def test_the_prompt_alone(llama: CausalLM) -> None:
    """positions="prompt" asks for the last prompt token: what stands there is the answer's first prediction."""
    batch = llama.collate(ROWS[:2], "prompt")
    assert batch.n_B.tolist() == [1, 1]
    whole = llama.forward(llama.collate(ROWS[:2]), want_of({"logp"}))
    first = [whole.logp_BT[b, -int(whole.n_B[b])] for b in range(2)]
    torch.testing.assert_close(llama.forward(batch).nll_B, -torch.stack(first), rtol=1e-4, atol=1e-4)


def test_what_does_not_fit_is_refused_or_cut_from_the_prompt(tokenizer: Any) -> None:
    model = CausalLM(network("llama", tokenizer), tokenizer)
    model.limit = 20
    prompt, answer = parts(tokenizer, ROWS[0])
    batch = model.collate([ROWS[0]])
    assert len(prompt) + len(answer) > 20
    assert batch.inputs["input_ids"][0].tolist() == (prompt + answer)[-20:-1], "the prompt's end is kept"
    assert batch.labels_BT[batch.mask_BT].tolist() == answer
    assert model.length(ROWS[0]) == 20
    with pytest.raises(BadInput, match="longer than the model's 20 tokens"):
        model.collate([{"question": "Q", "answer": "word " * 30}])


def test_a_cut_prompt_keeps_its_bos() -> None:
    assert cut_prompt([1, 5, 6, 7, 8], 5, 1) == [1, 5, 6, 7, 8]
    assert cut_prompt([1, 5, 6, 7, 8], 3, 1) == [1, 7, 8]
    assert cut_prompt([1, 5, 6, 7, 8], 1, 1) == [8]
    assert cut_prompt([4, 5, 6, 7, 8], 3, 1) == cut_prompt([4, 5, 6, 7, 8], 3, None) == [6, 7, 8]


def test_notes_on_prompts(tokenizer: Any) -> None:
    model = CausalLM(network("llama", tokenizer), tokenizer)
    assert prompt_notes(model, {"forget": ROWS}) == []
    talk = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Ada."}]
    splits = {
        "forget": [{"question": "sea " * 200, "answer": "Ada."}, *ROWS],
        "retain": [{"messages": [*talk, *talk]}, {"messages": talk}],
    }
    cut, turns = prompt_notes(model, splits)
    assert cut.startswith("forget: 1 of 5 prompts are longer than the model's 128 tokens")
    assert turns.startswith("retain: 1 conversations have earlier assistant turns; only the last answer counts")
    model.limit = 10**6
    (unread,) = prompt_notes(model, {"forget": [{"question": "Who?", "answer": "sea " * 5000}]})
    assert "not generated to their end" in unread
    model.tokenizer.chat_template = "{{ strftime_now('%Y') }}" + CHAT
    model.template = Template(model.tokenizer)
    (dated,) = prompt_notes(model, {"forget": [{"messages": talk}]})
    assert dated == "The chat template writes today's date: prompts carry 26 Jul 2024 on all days."
    model.tokenizer.chat_template = None


# -- the chunked head -----------------------------------------------------------------------------


def test_chunks_change_neither_values_nor_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    labels = torch.randint(0, 11, (10,), generator=draw)
    want = want_of({"nll", "logp", "logits", "argmax", "moments", "topk:3"})
    found = []
    for size in (1000, 3):
        monkeypatch.setattr(_head, "CHUNK", size * 11)
        head = torch.nn.Linear(5, 11)
        with torch.no_grad():
            head.weight.copy_(torch.randn(11, 5, generator=torch.Generator().manual_seed(1)))
            head.bias.zero_()
        states = torch.randn(10, 5, generator=torch.Generator().manual_seed(2)).requires_grad_()
        made = measure_in_chunks(head, states, labels, 11, want)
        (made["logp"].sum() + made["sigma"].square().sum()).backward()
        found.append((made, states.grad, head.weight.grad))
    (one, states, weight), (many, other_states, other_weight) = found
    assert one.keys() == many.keys()
    for name in one:
        torch.testing.assert_close(one[name], many[name])
    torch.testing.assert_close(states, other_states)
    torch.testing.assert_close(weight, other_weight)


def test_chunks_of_a_whole_model_give_the_same_gradient(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model = CausalLM(network("llama", tokenizer), tokenizer)
    batch = model.collate(ROWS)
    grads = []
    for chunk in (2**25, 5 * len(tokenizer)):
        monkeypatch.setattr(_head, "CHUNK", chunk)
        model.module.zero_grad()
        model.forward(batch).nll.backward()
        grads.append({name: p.grad.clone() for name, p in model.module.named_parameters()})
    for name in grads[0]:
        torch.testing.assert_close(grads[0][name], grads[1][name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("full", [True, False])
def test_label_top_k_and_rest_against_brute_force(full: bool) -> None:
    """Below FULL_BELOW classes all are kept; above, the label, the k likeliest others and one bucket."""
    vocabulary, k = (50, 4) if full else (_head.FULL_BELOW + 3, 4)
    logits = torch.randn(6, vocabulary, generator=torch.Generator().manual_seed(3))
    labels = logits.argsort(-1)[torch.arange(6), torch.tensor([-1, -2, -5, -6, 0, 7])]  # likely and unlikely ones
    found = measure_NV(logits, labels, want_of({f"topk:{k}"}))
    p = logits.double().softmax(-1)
    for row in range(6):
        order = [int(i) for i in p[row].argsort(descending=True) if int(i) != int(labels[row])]
        kept = [int(labels[row]), *order[: len(order) if full else k]]
        assert found["index"][row].tolist() == kept
        torch.testing.assert_close(found["top"][row].double(), p[row][kept].log(), rtol=1e-4, atol=1e-4)
        if full:
            assert found["rest"][row] == -torch.inf
        else:
            left = float(p[row].sum() - p[row][kept].sum())
            assert float(found["rest"][row].exp()) == pytest.approx(left, rel=1e-4)


def test_hidden_alone_ends_the_forward_early(llama: CausalLM) -> None:
    """The second block and the head never run, and the states are those of the whole forward."""
    batch = llama.collate(ROWS)
    path = llama.blocks[0]
    ran: list[str] = []
    handles = [
        llama.module.get_submodule(p).register_forward_hook(lambda *a, p=p: ran.append(p))
        for p in (llama.blocks[0], llama.blocks[1], "lm_head")
    ]
    early = llama.forward(batch, want_of({f"hidden:{path}"}))
    seen = list(ran)
    whole = llama.forward(batch, want_of({f"hidden:{path}", "nll"}))
    for handle in handles:
        handle.remove()
    assert seen == [llama.blocks[0]] and set(ran) == {*llama.blocks, "lm_head"}
    assert early.nll_B is None and whole.nll_B is not None
    assert torch.equal(early.hidden[path], whole.hidden[path])
    inside = llama.forward(batch, want_of({f"hidden:{llama.blocks[1]}:in"}))
    assert torch.equal(inside.hidden[f"{llama.blocks[1]}:in"], whole.hidden[path])
    with pytest.raises(BadInput, match="is not a module of this model; did you mean"):
        llama.forward(batch, want_of({"hidden:model.layers.9"}))


def test_wants_unite() -> None:
    both = want_of({"nll", "hidden:a"}) | want_of({"topk:7", "hidden:b", "hidden:a"})
    assert both == Want(frozenset({"nll", "topk"}), ("a", "b"), 7)
    with pytest.raises(ValueError, match="unknown channel"):
        want_of({"loss"})


# -- files ----------------------------------------------------------------------------------------


@torch.no_grad()
def logits_of(module: Any) -> Tensor:
    return module.eval()(input_ids=torch.arange(20)[None] + 4).logits


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_models_open_with_the_family_s_own_library(family: str, tokenizer: Any, tmp_path: Path) -> None:
    model = CausalLM(network(family, tokenizer), tokenizer)
    model.save(tmp_path)
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path)
    assert torch.equal(logits_of(theirs), logits_of(model.module))
    ours = open_on_cpu(str(tmp_path))
    assert torch.equal(logits_of(ours.module), logits_of(model.module))
    assert ours.fingerprint()["weights"] == model.fingerprint()["weights"]


FORCED = pytest.mark.xfail(
    strict=True, raises=AssertionError, reason="AutoTokenizer forces Qwen2Tokenizer's own splitting on any tokenizer"
)


@pytest.mark.parametrize("family", [pytest.param(f, marks=FORCED) if f == "qwen2" else f for f in FAMILIES])
def test_a_tokenizer_of_ours_comes_back_as_it_was(family: str, tokenizer: Any, tmp_path: Path) -> None:
    model = CausalLM(network(family, tokenizer), tokenizer)
    model.save(tmp_path)
    again: Any = open_on_cpu(str(tmp_path))
    assert [again.template.encode(row) for row in ROWS] == [model.template.encode(row) for row in ROWS]


def test_half_precision_is_computed_in_full_and_saved_in_half(tokenizer: Any, tmp_path: Path) -> None:
    CausalLM(network("llama", tokenizer).bfloat16(), tokenizer).save(tmp_path / "base")
    model = open_on_cpu(str(tmp_path / "base"))
    assert next(model.module.parameters()).dtype == torch.float32
    model.save(tmp_path / "again")
    again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again", dtype="auto")
    assert next(again.parameters()).dtype == torch.bfloat16
    assert torch.equal(logits_of(again.float()), logits_of(model.module))


def test_a_second_adapter_does_not_lose_the_first(tokenizer: Any, tmp_path: Path) -> None:
    """What was opened from an adapter lies in no folder as a whole, so that an adapter on it could name no base."""
    CausalLM(network("llama", tokenizer), tokenizer).save(tmp_path / "base")
    given: Any = open_on_cpu(str(tmp_path / "base"))
    for number in (1, 2):
        trainable = lora(rank=2, lora_alpha=8)(given, {}, Context(Budget(), tmp_path))
        with torch.no_grad():
            for parameter in trainable.parameters.values():
                parameter.normal_(0, 0.1)
        moved = logits_of(given.module)
        given.save(tmp_path / str(number))
        given = open_on_cpu(str(tmp_path / str(number)))
        torch.testing.assert_close(logits_of(given.module), moved, atol=1e-3, rtol=1e-4)
    assert (tmp_path / "1" / "adapter_config.json").exists() and not (tmp_path / "2" / "adapter_config.json").exists()
    with pytest.raises(BadInput, match="this model is itself an adapter on one; merge the adapter"):
        check_base(open_on_cpu(str(tmp_path / "1")), "s3t", "adapters")


def test_adapters_open_with_peft_and_with_us(tokenizer: Any, tmp_path: Path) -> None:
    from peft import PeftModel

    CausalLM(network("llama", tokenizer), tokenizer).save(tmp_path / "base")
    model = open_on_cpu(str(tmp_path / "base"))
    before = logits_of(model.module)
    trainable = lora(rank=2, lora_alpha=8)(model, {}, Context(Budget(), tmp_path))
    assert all(".lora_" in name for name in trainable.parameters)
    assert torch.equal(logits_of(model.module), before), "B is zero at the start"
    with torch.no_grad():
        for name, parameter in trainable.parameters.items():
            if "lora_B" in name:
                parameter.normal_(0, 0.1)
    moved = logits_of(model.module)
    assert not torch.allclose(moved, before, atol=1e-3)
    folded = snapshot(model.module)
    model.save(tmp_path / "adapter")
    assert {p.name for p in (tmp_path / "adapter").glob("*.safetensors")} == {"adapter_model.safetensors"}
    base = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")
    torch.testing.assert_close(logits_of(PeftModel.from_pretrained(base, tmp_path / "adapter")), moved)
    ours = open_on_cpu(str(tmp_path / "adapter"))
    torch.testing.assert_close(logits_of(ours.module), moved, atol=1e-3, rtol=1e-4)
    own = snapshot(ours.module)
    assert (
        own.keys()
        == folded.keys()
        == transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base").state_dict().keys()
    )
    assert all(torch.allclose(own[name], folded[name], atol=1e-6) for name in own)
    assert all(p.requires_grad for p in ours.module.parameters())


def test_structure_alone_needs_no_weights(tokenizer: Any, tmp_path: Path) -> None:
    CausalLM(network("llama", tokenizer), tokenizer).save(tmp_path)
    (tmp_path / "model.safetensors").unlink()
    model: Any = open_on_cpu(str(tmp_path), meta=True)
    assert {p.device.type for p in model.module.parameters()} == {"meta"}
    assert model.blocks == ["model.layers.0", "model.layers.1"]
    with pytest.raises(BadInput, match="holds no weights"):
        open_on_cpu(str(tmp_path))


# -- classifiers ----------------------------------------------------------------------------------


def images(count: int = 6) -> list[dict[str, Any]]:
    draw = np.random.default_rng(0)
    return [{"image": draw.random((8, 8), dtype=np.float32), "label": i % 10} for i in range(count)]


def test_classifier_forward_is_the_network_s(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = Classifier(Digits(width=8).eval())
    rows = images()
    out = model.forward(model.collate(rows), want_of({"nll", "logits", "argmax", "topk:2", "hidden:middle"}))
    with torch.no_grad():
        logits = model.module(torch.from_numpy(np.stack([row["image"] for row in rows])))
    labels = torch.tensor([row["label"] for row in rows])
    torch.testing.assert_close(out.nll_B, torch.nn.functional.cross_entropy(logits, labels, reduction="none"))
    assert out.n_B.tolist() == [1] * 6 and out.labels_BT.shape == (6, 1) and out.hidden["middle"].shape == (6, 1, 64)
    assert torch.equal(out.argmax_BT[:, 0], logits.argmax(-1)) and out.top_BTK.shape == (6, 1, 10)


def test_batch_norm_couples() -> None:
    assert Classifier(Digits(norm="batch")).coupled
    assert not Classifier(Digits(norm="group")).coupled


def test_bytes_are_scaled_alike_whatever_stands_first() -> None:
    """An all-black first image once switched the scaling of the whole batch off."""
    model = Classifier(Digits(width=8).eval())
    black, white = np.zeros((8, 8), np.uint8), np.full((8, 8), 255, np.uint8)
    rows = [{"image": black, "label": 0}, {"image": white, "label": 1}]
    assert model.collate(rows).inputs["x"].max() == 1.0
    assert torch.equal(model.collate(rows).inputs["x"].flip(0), model.collate(rows[::-1]).inputs["x"])


@pytest.mark.parametrize("norm", ["group", "batch"])
def test_classifiers_come_back_whole(norm: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    build = {"factory": "expunge.models.networks:Digits", "arguments": {"width": 8, "norm": norm}}
    model = Classifier(Digits(width=8, norm=norm), build)
    model.module.train()
    model.forward(model.collate(images()))  # moves the running statistics, where there are any
    model.module.eval()
    model.save(tmp_path)
    again = open_on_cpu(str(tmp_path))
    ours, theirs = model.module.state_dict(), again.module.state_dict()
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)
    assert torch.equal(again.forward(again.collate(images())).nll_B, model.forward(model.collate(images())).nll_B)
    assert not again.module.training and again.fingerprint() == model.fingerprint()


def test_tables_are_standardised_by_the_network(tmp_path: Path) -> None:
    build = {
        "factory": "expunge.models.networks:MLP",
        "arguments": {"inputs": 2, "classes": 3, "mean": [1.0, 2.0], "std": [2.0, 4.0]},
    }
    torch.manual_seed(0)
    model = Classifier(MLP(**build["arguments"]).eval(), build)  # type: ignore[arg-type]
    model.save(tmp_path)
    again = open_on_cpu(str(tmp_path))
    rows = [{"features": [3.0, 6.0], "label": 2}]
    x = torch.tensor([[1.0, 1.0]])
    own = model.module.head(model.module.body(x))  # type: ignore[operator, union-attr]
    assert torch.allclose(again.forward(again.collate(rows), want_of({"logits"})).logits_BTV[:, 0], own)


def test_pickle_is_refused(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    (tmp_path / "pytorch_model.bin").write_bytes(b"\x80\x04.")
    with pytest.raises(BadInput, match="only pickle weights"):
        open_on_cpu(str(tmp_path))
    ours = {"factory": "expunge.models.networks:Digits", "weights": str(tmp_path / "pytorch_model.bin")}
    with pytest.raises(BadInput, match="we load no pickle"):
        open_on_cpu(ours)
    (tmp_path / "classifier.json").write_text(json.dumps({"factory": "expunge.models.networks:Digits"}))
    with pytest.raises(BadInput, match="only pickle weights"):
        open_on_cpu(str(tmp_path))


def test_weights_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    build = {"factory": "expunge.models.networks:Digits", "arguments": {"width": 8}}
    Classifier(Digits(width=8), build).save(tmp_path)
    other = {**build, "arguments": {"width": 4}, "weights": str(tmp_path / "model.safetensors")}
    with pytest.raises(BadInput, match="does not fit the network"):
        open_on_cpu(other)
    (tmp_path / "model.safetensors").write_bytes(b"torn")
    with pytest.raises(BadInput, match="cannot be read"):
        open_on_cpu(str(tmp_path))


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A user's own network in a module of its own."""
    (tmp_path / "their_nets.py").write_text(
        "import torch\n\n\nclass Net(torch.nn.Module):\n    def __init__(self, size):\n        super().__init__()\n"
        "        self.line = torch.nn.Linear(size, 2)\n\n    def forward(self, x):\n        return self.line(x)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    yield "their_nets:Net"
    sys.modules.pop("their_nets", None)


def test_a_factory_of_the_user_s_own(module: str, tmp_path: Path) -> None:
    from safetensors.torch import save_file

    weights = {"line.weight": torch.tensor([[1.0, 0.0], [0.0, 1.0]]), "line.bias": torch.zeros(2)}
    save_file(weights, tmp_path / "w.safetensors")
    source = {"factory": module, "arguments": {"size": 2}, "weights": str(tmp_path / "w.safetensors")}
    with pytest.raises(BadInput, match="trust_code: true"):
        open_on_cpu(source)
    assert "their_nets" not in sys.modules, "nothing of theirs was imported"
    model = open_on_cpu(source, trust_code=True)
    out = model.forward(model.collate([{"features": [2.0, 1.0], "label": 0}]), want_of({"logits"}))
    assert out.logits_BTV[0, 0].tolist() == [2.0, 1.0]
    (tmp_path / "saved").mkdir()
    model.save(tmp_path / "saved")
    with pytest.raises(BadInput, match="trust_code: true"):
        open_on_cpu(str(tmp_path / "saved"))
    again = open_on_cpu(str(tmp_path / "saved"), trust_code=True)
    assert torch.equal(again.module.line.weight, weights["line.weight"])  # type: ignore[union-attr]
    with pytest.raises(BadInput, match="do not build"):
        open_on_cpu({**source, "arguments": {"sise": 2}}, trust_code=True)
    with pytest.raises(BadInput, match="cannot be imported"):
        open_on_cpu({**source, "factory": "their_nets:Nett"}, trust_code=True)


def test_image_classifiers_of_transformers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    config = transformers.ViTConfig(
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        image_size=16,
        patch_size=8,
        num_labels=3,
    )
    theirs = transformers.ViTForImageClassification(config).eval()
    theirs.save_pretrained(tmp_path)
    (tmp_path / "preprocessor_config.json").write_text(
        json.dumps(
            {
                "image_processor_type": "ViTImageProcessor",
                "do_resize": True,
                "size": {"height": 16, "width": 16},
                "do_rescale": True,
                "rescale_factor": 1 / 255,
                "do_normalize": True,
                "image_mean": [0.5] * 3,
                "image_std": [0.5] * 3,
                "resample": 2,
            }
        )
    )
    model = open_on_cpu(str(tmp_path))
    draw = np.random.default_rng(0)
    rows = [{"image": draw.integers(0, 256, (16, 16, 3), dtype=np.uint8), "label": i} for i in range(3)]
    out = model.forward(model.collate(rows), want_of({"nll", "logits", f"hidden:{model.blocks[0]}"}))
    pixels = torch.from_numpy(np.stack([row["image"] for row in rows])).permute(0, 3, 1, 2) / 127.5 - 1
    with torch.no_grad():
        own = theirs(pixel_values=pixels).logits
    torch.testing.assert_close(out.logits_BTV[:, 0], own, atol=1e-4, rtol=1e-4)
    again_folder = tmp_path / "again"
    model.save(again_folder)
    again = open_on_cpu(str(again_folder))
    assert torch.equal(again.forward(again.collate(rows)).nll_B, out.nll_B)
    assert len(model.blocks) == 2 and out.hidden[model.blocks[0]].shape == (3, 1, 16)
    assert isinstance(transformers.AutoModelForImageClassification.from_pretrained(again_folder), type(theirs))


def test_text_classifiers_of_transformers(tmp_path: Path) -> None:
    torch.manual_seed(0)
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] a good bad film book was the".split()
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    tokenizer = transformers.BertTokenizer(vocab=str(tmp_path / "vocab.txt"))
    config = transformers.BertConfig(
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        max_position_embeddings=32,
        num_labels=2,
    )
    theirs = transformers.BertForSequenceClassification(config).eval()
    theirs.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    model = open_on_cpu(str(tmp_path))
    rows = [{"text": "a good film", "label": 1}, {"text": "the book was a bad bad book", "label": 0}]
    out = model.forward(model.collate(rows), want_of({"nll", "logits"}))
    with torch.no_grad():
        for b, row in enumerate(rows):
            own = theirs(**tokenizer(row["text"], return_tensors="pt")).logits
            torch.testing.assert_close(out.logits_BTV[b], own, atol=1e-4, rtol=1e-4)
    assert tokenizer("a good film")["input_ids"] == [2, 5, 6, 8, 3]
    want = want_of({f"hidden:{model.blocks[1]}"})
    (together,) = model.forward(model.collate(rows), want).hidden.values()
    (alone,) = model.forward(model.collate(rows[:1]), want).hidden.values()
    torch.testing.assert_close(together[:1], alone)  # padding never counts
    model.save(tmp_path / "again")
    again = open_on_cpu(str(tmp_path / "again"))
    assert torch.equal(again.forward(again.collate(rows)).nll_B, out.nll_B)


@pytest.mark.parametrize(("kind", "fits"), [("bert", 32), ("roberta", 29)])
def test_a_text_longer_than_the_classifier_s_positions_is_cut(kind: str, fits: int, tmp_path: Path) -> None:
    """RoBERTa numbers its positions behind the padding's, so that the first three of 32 (pad 2) are not for tokens."""
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] a good bad film".split()
    (tmp_path / "vocab.txt").write_text("\n".join(words))
    config = transformers.CONFIG_MAPPING[kind](
        vocab_size=len(words),
        hidden_size=16,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=16,
        max_position_embeddings=32,
        pad_token_id=0 if kind == "bert" else 2,
        num_labels=2,
    )
    transformers.AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    transformers.BertTokenizer(vocab=str(tmp_path / "vocab.txt")).save_pretrained(tmp_path)
    model = open_on_cpu(str(tmp_path))
    batch = model.collate([{"text": "a good film " * 50, "label": 1}])
    assert batch.inputs["input_ids"].shape == (1, fits)
    assert torch.isfinite(model.forward(batch).nll_B).all()


@pytest.mark.parametrize("vocabulary", [1, 7, 300])
def test_the_largest_come_first_as_a_stable_sort_has_them(vocabulary: int) -> None:
    values_NV = torch.randn(40, vocabulary).mul(3).round(decimals=1)  # many equal ones, both zeros among them
    values_NV[::3, 0], values_NV[1::3, -1] = torch.inf, -torch.inf
    values_NV[5], values_NV[6] = 0.0, -0.0
    values_NV[:, vocabulary // 2] *= -0.0
    values_NV = values_NV.nan_to_num(nan=-0.0, posinf=torch.inf, neginf=-torch.inf).requires_grad_()
    expected_NV = values_NV.argsort(dim=-1, descending=True, stable=True)
    assert torch.equal(descending(values_NV), expected_NV)


def test_labels_alone_have_the_value_and_the_gradient_of_whole_distributions(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_head, "LARGE", 1)
    logits_NV = torch.randn(20, 50, requires_grad=True)
    labels_N, weights_N = torch.randint(50, (20,)), torch.randn(20)
    gradients = []
    for want in ({"logp"}, {"logp", "logits"}):
        found = measure_NV(logits_NV, labels_N, want_of(want))["logp"]
        (gradient,) = torch.autograd.grad((found * weights_N).sum(), logits_NV)
        gradients.append((found.detach(), gradient))
    assert torch.equal(gradients[0][0], gradients[1][0])
    torch.testing.assert_close(gradients[0][1], gradients[1][1], atol=1e-7, rtol=1e-6)
    assert not torch.equal(gradients[0][1], gradients[1][1]), "another way to the gradient was taken"
