"""Adapters opened as PEFT has them: PEFT's own logits are the measure."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import peft
import pytest
import torch
import transformers

from expunge.core.errors import BadInput
from expunge.models.adapters import check_adapter, insert
from expunge.models.new_lm import tokenizer_for
from expunge.models.open import open_on_cpu

SIZES = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
IDS = torch.tensor([[5, 9, 2, 7, 11, 3]])


@pytest.fixture
def base(tmp_path: Path) -> Any:
    """A Llama with tied embeddings, saved with its tokenizer."""
    tokenizer = tokenizer_for(["Where does Jo work? In a mill."], 300)
    torch.manual_seed(0)
    config = transformers.CONFIG_MAPPING["llama"](vocab_size=len(tokenizer), tie_word_embeddings=True, **SIZES)
    module = transformers.AutoModelForCausalLM.from_config(config)
    module.save_pretrained(tmp_path / "base")
    tokenizer.save_pretrained(tmp_path / "base")
    return transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "base")


def saved(wrapped: Any, folder: Path) -> Any:
    """The adapter, trained a little, in its folder; the PEFT model in eval mode."""
    with torch.no_grad():
        for parameter in wrapped.parameters():
            if parameter.requires_grad:
                parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)) * 0.1)
    wrapped.save_pretrained(folder)
    return wrapped.eval()


def lora(**settings: Any) -> Any:
    return peft.LoraConfig(**{"r": 4, "task_type": "CAUSAL_LM", **settings})


@pytest.mark.parametrize("targets", [["q_proj"], ["q_proj", "embed_tokens"], ["lm_head"], ["embed_tokens", "lm_head"]])
def test_a_merged_adapter_gives_peft_s_logits_and_is_saved_so(targets: list[str], base: Any, tmp_path: Path) -> None:
    theirs = saved(peft.get_peft_model(base, lora(target_modules=targets)), tmp_path / "adapter")
    model = open_on_cpu(str(tmp_path / "adapter"))
    with torch.no_grad():
        want = theirs(input_ids=IDS).logits
        torch.testing.assert_close(model.module(input_ids=IDS).logits, want, rtol=1e-5, atol=1e-5)
        (tmp_path / "again").mkdir()
        model.save(tmp_path / "again")
        again = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "again")
        torch.testing.assert_close(again(input_ids=IDS).logits, want, rtol=1e-5, atol=1e-5)


def test_an_adapter_brings_its_tokens_and_its_template(base: Any, tmp_path: Path) -> None:
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "base")
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>"]})
    tokenizer.chat_template = "{% for m in messages %}<|im_start|>{{ m['content'] }}<|im_end|>{% endfor %}"
    base.resize_token_embeddings(len(tokenizer), mean_resizing=False)
    wrapped = peft.get_peft_model(base, lora(target_modules=["q_proj"], modules_to_save=["embed_tokens", "lm_head"]))
    theirs = saved(wrapped, tmp_path / "adapter")
    tokenizer.save_pretrained(tmp_path / "adapter")
    model: Any = open_on_cpu(str(tmp_path / "adapter"))
    assert len(model.tokenizer) == model.vocabulary == len(tokenizer)
    assert model.tokenizer.chat_template == tokenizer.chat_template
    ids = torch.tensor([[len(tokenizer) - 1, 4, len(tokenizer) - 2, 8]])
    with torch.no_grad():
        torch.testing.assert_close(
            model.module(input_ids=ids).logits, theirs(input_ids=ids).logits, rtol=1e-5, atol=1e-5
        )


def test_a_classification_adapter_opens_as_a_classifier(base: Any, tmp_path: Path) -> None:
    causal = transformers.AutoModelForSequenceClassification.from_pretrained(tmp_path / "base", num_labels=3)
    theirs = saved(
        peft.get_peft_model(causal, lora(task_type="SEQ_CLS", target_modules=["q_proj"])), tmp_path / "adapter"
    )
    theirs.base_model.model.config.pad_token_id = 0
    model = open_on_cpu(str(tmp_path / "adapter"))
    assert model.family == "classifier"
    with torch.no_grad():
        torch.testing.assert_close(
            model.module(input_ids=IDS).logits, theirs(input_ids=IDS).logits, rtol=1e-5, atol=1e-5
        )


def test_an_adapter_without_a_base_is_named(tmp_path: Path) -> None:
    (tmp_path / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": null}')
    with pytest.raises(BadInput, match="base_model_name_or_path is null"):
        check_adapter(tmp_path)


def test_all_linear_leaves_out_what_peft_forbids_on_mamba() -> None:
    config = transformers.CONFIG_MAPPING["mamba"](vocab_size=50, hidden_size=16, num_hidden_layers=1, state_size=4)
    names = insert(
        transformers.AutoModelForCausalLM.from_config(config), rank=2, alpha=4, dropout=0.0, targets="all-linear"
    )
    assert any("in_proj" in name for name in names)
    assert not any("out_proj" in name or "lm_head" in name for name in names)
