"""Reading: answers that share the row of their prompt have the values that they have in rows of their own, for fewer
tokens; requests share what they read of a model."""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from expunge.core.contracts import want_of
from expunge.data.batching import TOKENS
from expunge.evaluation.reading import read
from expunge.evaluation.readout import Readout
from expunge.models import causal_lm
from expunge.models.causal_lm import CausalLM
from expunge.models.decoding import _logits
from expunge.models.generation import new_tokens
from expunge.models.guarded import Guarded
from expunge.models.new_lm import tokenizer_for
from expunge.models.passes import passes
from expunge.models.prompt_notes import prompt_notes
from expunge.models.shared_prompts import groups_of, has_plain_attention, pack_shared, shared_passes
from expunge.models.templates import Encoded
from expunge.pipeline.comparison import cut_remarks
from expunge.pipeline.observe import Observation
from expunge.training.precision import autocast

PLACES = ("In a mill.", "At sea.", "At the harbour office in Telmar, since spring.", "Where the river ends.")
ROWS: list[dict[str, Any]] = [
    {
        "question": f"Where does {name} work, as far as people in the town can tell?",
        "answer": PLACES[i],
        "paraphrased_answer": [f"{name} works here: {PLACES[i]}"],
        "perturbed_answer": [place for place in PLACES if place != PLACES[i]],
    }
    for i, name in enumerate(("Jo", "Mina Orlow", "Ada"))
]
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 300,
}
WANT = want_of({"nll", "logp", "argmax", "moments"})


def model_of(kind: str, **more: Any) -> CausalLM:
    """A tiny network of a family with random weights, as it is when it was opened."""
    tokenizer = tokenizer_for([row["question"] + " ".join(PLACES) for row in ROWS], 300)
    torch.manual_seed(0)
    config = transformers.CONFIG_MAPPING[kind](**{**SIZES, **more})
    model = CausalLM(transformers.AutoModelForCausalLM.from_config(config).eval(), tokenizer)
    with torch.no_grad():
        for parameter in model.module.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.2)
    model.check_batches()
    return model


def count_tokens(model: CausalLM, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """A list that gets the tokens of each forward."""
    counts: list[int] = []
    forward = model.forward

    def counting(batch: Any, want: Any) -> Any:
        counts.append(batch.inputs["input_ids"].numel())
        return forward(batch, want)

    monkeypatch.setattr(model, "forward", counting)
    return counts


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_a_readout_is_the_same_and_takes_fewer_tokens(
    kind: str, attention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = model_of(kind, attn_implementation=attention)
    assert model.plain_attention and has_plain_attention(model)
    tokens = count_tokens(model, monkeypatch)
    channels = {"nll", "logp", "argmax", "moments", "variants"}
    shared = read(model, "forget", ROWS, channels, cache=False)
    fewer = sum(tokens)
    tokens.clear()
    model.plain_attention = False
    apart = read(model, "forget", ROWS, channels, cache=False)
    assert fewer < 0.7 * sum(tokens)
    np.testing.assert_allclose(shared.mean_nll_N, apart.mean_nll_N, rtol=1e-6)
    for name in ("logp", "mu", "sigma", "paraphrased", "perturbed"):
        for ours, theirs in zip(getattr(shared, name), getattr(apart, name), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-6)
    for name in ("argmax", "n_N", "ends_N", "answers"):
        assert all(np.array_equal(a, b) for a, b in zip(getattr(shared, name), getattr(apart, name), strict=True))


def test_an_answer_is_blind_to_the_others() -> None:
    """The same answer beside other ones has the same likelihood; beside itself alone too."""
    model = model_of("llama")
    question = ROWS[0]["question"]

    def nll(answers: list[str]) -> float:
        rows = [{"question": question, "answer": answer} for answer in answers]
        found = {place: out.nll_B[b].item() for part, out in shared_passes(model, rows) for b, place in enumerate(part)}
        return found[len(answers) - 1]

    alone = next(out.nll_B.item() for _, out in passes(model, [{"question": question, "answer": PLACES[0]}]))
    for others in (PLACES[1:], PLACES[2:], PLACES[3:]):
        assert nll([*others, PLACES[0]]) == pytest.approx(alone, rel=1e-6)


@pytest.mark.parametrize(
    ("kind", "more"),
    [
        ("rwkv", {}),  # its state runs through all earlier tokens, whatever the mask
        ("bloom", {}),  # ALiBi counts the mask's places
        ("mistral", {"sliding_window": 6, "num_key_value_heads": 4}),
        ("gpt_neo", {"num_heads": 4, "num_layers": 2, "attention_types": [[["global", "local"], 1]]}),
        ("llama", {"max_position_embeddings": 12}),
    ],
)
def test_families_that_cannot_share_read_each_answer_in_its_own_row(kind: str, more: dict[str, Any]) -> None:
    assert model_of(kind, **more).plain_attention is False


def test_a_wide_window_is_none() -> None:
    assert model_of("mistral", sliding_window=TOKENS, num_key_value_heads=4).plain_attention
    assert not model_of("mistral", sliding_window=TOKENS - 1, num_key_value_heads=4).plain_attention


def test_what_changes_hidden_states_and_guards_keep_rows_apart() -> None:
    model = model_of("llama")
    assert not has_plain_attention(Guarded(model, None))  # type: ignore[arg-type]
    handle = model.module.model.layers[0].register_forward_hook(lambda *_: None)
    assert not has_plain_attention(model)
    handle.remove()
    assert has_plain_attention(model)


def test_the_notes_name_a_network_that_keeps_answers_apart() -> None:
    assert prompt_notes(model_of("llama"), {"forget": ROWS}) == []
    (note,) = prompt_notes(model_of("bloom"), {"forget": ROWS})
    assert note.startswith("Each answer is read in a row of its own")
    assert prompt_notes(model_of("bloom"), {"forget": [{"question": "Who?", "answer": "Ada."}]}) == []


def test_hidden_states_are_read_row_by_row(monkeypatch: pytest.MonkeyPatch) -> None:
    model = model_of("llama")
    rows = [{"question": ROWS[0]["question"], "answer": place} for place in PLACES]
    found = list(shared_passes(model, rows, want_of({"nll", f"hidden:{model.blocks[0]}"})))
    assert all(out.hidden[model.blocks[0]].shape[0] == len(part) for part, out in found)
    assert sorted(place for part, _ in found for place in part) == [0, 1, 2, 3]


def test_only_whole_equal_prompts_share_and_only_where_it_saves_work() -> None:
    long = list(range(50))
    items = [Encoded(prompt, [1] * 8, True) for prompt in (long, [*long[:-1], 99], long, [7], [7], long)]
    assert groups_of(items, 64) == [[0, 2, 5], [3, 4]]
    short = [Encoded([7], [1] * 200, True)] * 3  # one token of a prompt is not worth 400 positions of attention
    assert groups_of(short, 64) == []
    wide = [Encoded(long, [1] * (TOKENS // 2 - 49), True)] * 3  # two fill a row to its last token but one
    assert groups_of(wide, 10**6) == [[0, 1]]
    assert groups_of([Encoded(long, [1] * (TOKENS // 2 - 23), True)] * 3, 10**6) == []


def test_positions_restart_behind_the_prompt_and_answers_see_it_and_themselves() -> None:
    batch = pack_shared([Encoded([5, 6], [1, 2, 3], True), Encoded([5, 6], [4, 9], True)], [[0, 1]], 0, torch.float32)
    assert batch.inputs["input_ids"].tolist() == [[5, 6, 1, 2, 4]]
    assert batch.inputs["position_ids"].tolist() == [[0, 1, 2, 3, 2]]
    assert (batch.inputs["attention_mask"][0, 0] == 0).int().tolist() == [
        [1, 0, 0, 0, 0],
        [1, 1, 0, 0, 0],
        [1, 1, 1, 0, 0],
        [1, 1, 1, 1, 0],
        [1, 1, 0, 0, 1],
    ]
    assert batch.labels_BT.tolist() == [[1, 2, 3], [0, 4, 9]] and batch.n_B.tolist() == [3, 2]
    assert batch.places_BT.tolist() == [[1, 2, 3], [0, 1, 4]]


def test_runs_share_readouts_by_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another role and a copy of the model read nothing again; other channels and other variants generate nothing
    again; other weights do both."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    work: list[str] = []

    def opened(seed: int = 0) -> CausalLM:
        model = model_of("llama")
        with torch.no_grad():
            model.module.model.norm.weight += seed
        forward, generate = model.forward, model.generate
        monkeypatch.setattr(model, "forward", lambda *given: work.append("forward") or forward(*given))
        monkeypatch.setattr(
            model, "generate", lambda *given, **more: work.append("generate") or generate(*given, **more)
        )
        return model

    def work_of(model: CausalLM, role: str, channels: set[str], rows: Any = ROWS) -> set[str]:
        work.clear()
        read(model, "forget", rows, channels, role=role)
        return set(work)

    both = {"nll", "argmax", "variants", "generation"}
    assert work_of(opened(), "before", both) == {"forward", "generate"}
    assert work_of(opened(), "gold", both) == set()
    assert work_of(opened(), "before", both | {"moments"}) == {"forward"}
    assert work_of(opened(), "before", {"generation", "nll"}) == {"forward"}
    bare = [{name: row[name] for name in ("question", "answer")} for row in ROWS]
    assert work_of(opened(), "before", both, bare) == {"forward"}
    assert work_of(opened(1), "before", both) == {"forward", "generate"}


def test_a_readout_from_the_cache_is_the_one_that_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    channels = {"nll", "logp", "argmax", "moments", "variants", "generation"}
    first, second = (read(model_of("llama"), "forget", ROWS, channels) for _ in range(2))
    for part in fields(Readout):
        one, other = getattr(first, part.name), getattr(second, part.name)
        if isinstance(one, list):
            assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True)), part.name
        else:
            assert np.array_equal(one, other) if isinstance(one, np.ndarray) else one == other, part.name


def test_a_readout_in_bfloat16_is_near_and_has_an_entry_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    channels = {"nll", "logp", "argmax", "moments", "variants", "generation"}
    model = model_of("llama")
    own = read(model, "forget", ROWS, channels)
    with autocast("bf16"):
        half = read(model, "forget", ROWS, channels)
    assert own.nll_N is not None and half.nll_N is not None
    apart = np.abs(own.nll_N - half.nll_N) / own.n_N
    assert 0 < apart.max() < 0.02, "bfloat16 rounds to one part in 256"
    assert half.texts is not None and len(half.texts) == len(ROWS)
    again = read(model, "forget", ROWS, channels)
    assert again.nll_N is not None and np.array_equal(again.nll_N, own.nll_N), "neither is taken for the other"


def test_tokens_that_tie_when_they_are_rounded_are_told_apart_in_generation() -> None:
    """1.001 is 1 in bfloat16; of a tie the lowest id, here that of the end, would win."""
    head = torch.nn.Linear(1, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.tensor([[1.0], [1.001]]))
    model = SimpleNamespace(module=SimpleNamespace(get_output_embeddings=lambda: head))
    with autocast("bf16"), torch.no_grad():
        assert head(torch.ones(1, 1)).argmax().item() == 0
        assert _logits(model, head, torch.ones(1, 1, dtype=torch.bfloat16)).argmax().item() == 1


def test_answers_that_come_to_their_limit_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The count is cached with the texts; a quantile of the answers' lengths has texts of its own."""
    monkeypatch.setenv("EXPUNGE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(causal_lm, "end_ids", lambda *given: [])
    model = model_of("llama")
    limits = new_tokens(model.encode(ROWS)), new_tokens(model.encode(ROWS), quantile=0.5)
    assert limits[0][0] > limits[1][0] and limits[0][2] == limits[1][2], "the longest answer always fits"
    for channel, limit in (("generation", limits[0]), ("generation:0.5", limits[1])):
        found = [read(model, "forget", ROWS, {channel}) for _ in range(2)]
        assert [one.cut for one in found] == [3, 3] and found[0].texts == found[1].texts
        assert found[0].texts == [model.generate([row], max_new_tokens=n)[0] for row, n in zip(ROWS, limit)]
    monkeypatch.setattr(causal_lm, "end_ids", lambda *given: list(range(300)))
    assert read(model, "retain", ROWS, {"generation"}, cache=False).cut == 0
    once = Readout("forget", "after", ROWS, None, np.ones(3), cut=2)
    reads = {"before": Observation(), "second_gold": Observation(readouts={"forget": once})}
    assert cut_remarks(reads) == [
        "Generated answers that did not end within their limit: second gold 2 of 3 on forget."
    ]
