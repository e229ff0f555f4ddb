"""Batches do not change figures: rows together are what they are alone, whatever the family."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from expunge.core.contracts import want_of
from expunge.core.errors import BadInput
from expunge.models import padding
from expunge.models.causal_lm import CausalLM
from expunge.models.generation import batches
from expunge.models.new_lm import tokenizer_for
from expunge.models.open import open_on_cpu
from expunge.models.settings import settings_digest
from expunge.models.templates import Encoded
from expunge.models.weights import check_finite

ROWS = [
    {"question": f"Where does {name} work?", "answer": answer}
    for name, answer in (
        ("Jo", "In a mill."),
        ("Mina Orlow", "At the harbour office in Telmar, since spring."),
        ("Ada", "At sea."),
    )
]
SIZES: dict[str, Any] = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 48,
    "vocab_size": 300,
}


def model_of(kind: str, **more: Any) -> CausalLM:
    tokenizer = tokenizer_for([row["question"] + row["answer"] for row in ROWS], 300)
    torch.manual_seed(0)
    module = transformers.AutoModelForCausalLM.from_config(transformers.CONFIG_MAPPING[kind](**{**SIZES, **more}))
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.normal_(0, 0.3)
    return CausalLM(module.eval(), tokenizer)


@pytest.mark.parametrize(("kind", "pads"), [("llama", True), ("rwkv", False)])
def test_rows_together_are_what_they_are_alone(kind: str, pads: bool) -> None:
    model = model_of(kind)
    model.check_batches()
    assert model.pads is pads
    together = model.forward(model.collate(ROWS), want_of({"nll", "hidden:" + model.blocks[0]}))
    for i, row in enumerate(ROWS):
        alone = model.forward(model.collate([row]), want_of({"nll", "hidden:" + model.blocks[0]}))
        torch.testing.assert_close(together.nll_B[i], alone.nll_B[0], rtol=1e-4, atol=1e-4)
        for path, states in alone.hidden.items():
            torch.testing.assert_close(together.hidden[path][i, -int(alone.n_B[0]) :], states[0], rtol=1e-3, atol=1e-4)


def test_a_model_that_sees_later_tokens_is_refused() -> None:
    with pytest.raises(BadInput, match="not a causal language model"):
        model_of("bert").check_batches()


def test_prompts_of_one_length_share_a_batch_where_padding_counts() -> None:
    rows = [Encoded([1] * length, [2], True) for length in (2, 3, 2, 3)]
    assert list(batches(rows, [16] * 4)) == [[0, 2, 1, 3]]
    assert list(batches(rows, [16] * 4, padded=False)) == [[0, 2], [1, 3]]


def test_a_weight_that_is_not_finite_is_named() -> None:
    model = model_of("llama")
    check_finite(model.module, "m")
    with torch.no_grad():
        model.module.model.layers[1].mlp.down_proj.weight[0, 0] = float("nan")
    with pytest.raises(BadInput, match=r"layers\.1\.mlp\.down_proj\.weight holds NaN"):
        check_finite(model.module, "m")


def test_settings_change_with_the_configuration_and_not_with_the_folder(tmp_path: Path) -> None:
    model = model_of("mistral", sliding_window=None, num_key_value_heads=4)
    before = settings_digest(model)
    (tmp_path / "one").mkdir()
    model.save(tmp_path / "one")
    shutil.copytree(tmp_path / "one", tmp_path / "other")
    assert settings_digest(open_on_cpu(str(tmp_path / "one"))) == settings_digest(open_on_cpu(str(tmp_path / "other")))
    model.module.config.sliding_window = 6
    windowed = settings_digest(model)
    assert windowed != before
    model.module.generation_config.repetition_penalty = 1.5
    assert settings_digest(model) != windowed


def test_padding_that_attends_changes_no_figure_and_no_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    """On CUDA padding attends to everything; here the CPU is made to do the same."""
    model = model_of("llama")
    seen: list[torch.Tensor] = []

    def gradient() -> list[torch.Tensor]:
        model.module.zero_grad()
        model.forward(model.collate(ROWS)).nll_B.sum().backward()
        return [parameter.grad.clone() for parameter in model.module.parameters() if parameter.grad is not None]

    def open_mask(module: Any, inputs: Any, named: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
        seen.append(padding.open_rows(named["attention_mask"]))
        return inputs, {**named, "attention_mask": seen[-1]}

    before = gradient()
    monkeypatch.setattr(padding, "open_mask", open_mask)
    padding.attend_in_padding([model.module.get_submodule(path) for path in model.blocks])
    after = gradient()
    assert seen and all(bool(mask.any(-1).all()) for mask in seen)
    assert len(before) == len(after) > 10
    for was, now in zip(before, after, strict=True):
        torch.testing.assert_close(now, was)
