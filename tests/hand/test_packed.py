"""Folders whose weights a quantiser packed: they are opened in floating point, or refused in one sentence."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import AutoModelForCausalLM, BitsAndBytesConfig

from expunge.core.errors import BadInput
from expunge.evaluation.reading import read
from expunge.models._pretrained import _module, _quantiser
from expunge.models.new_lm import fresh_lm, texts_of, tokenizer_for
from expunge.models.open import open_model

SIZES = {"architecture": "llama", "hidden_size": 64, "layers": 2, "heads": 2, "vocab_size": 300, "max_length": 64}


class Packed:
    """A network as transformers opens it from whole numbers."""

    is_quantized = True

    def __init__(self, fails: bool = False) -> None:
        self.fails, self._weight_conversions = fails, ["pack"]

    def dequantize(self) -> Packed:
        if self.fails:
            raise NotImplementedError("no way back")
        return self


def open_packed(method: Any, fails: bool = False) -> tuple[Any, dict[str, Any]]:
    """(the network, transformers' arguments) of a folder whose configuration names this method."""
    seen: dict[str, Any] = {}

    def from_pretrained(base: str, **arguments: Any) -> tuple[Packed, dict[str, list[str]]]:
        seen.update(arguments)
        return Packed(fails), {"missing_keys": [], "unexpected_keys": []}

    config = SimpleNamespace(quantization_config=method)
    auto = SimpleNamespace(from_pretrained=from_pretrained)
    return _module(auto, config, "folder", False, False, None, {}), seen


@pytest.mark.parametrize("config", [{"quant_method": "gptq"}, SimpleNamespace(quant_method="gptq")])
def test_packed_weights_are_opened_in_floating_point_on_the_cpu(config: Any) -> None:
    """What would pack them again on the way to disk is gone."""
    module, seen = open_packed(config)
    assert isinstance(module, Packed) and not hasattr(module, "_weight_conversions")
    assert seen["device_map"] == {"": "cpu"}


def test_what_cannot_be_unpacked_is_refused() -> None:
    with pytest.raises(BadInput, match=r"holds weights that gptq packed.*give the model in floating point"):
        open_packed({"quant_method": "gptq"}, fails=True)


def test_a_missing_quantiser_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    with pytest.raises(BadInput, match=r"needs bitsandbytes.*pip install 'expunge\[quantised\]'"):
        open_packed({"quant_method": "bitsandbytes"})


def test_a_model_in_4_bits_is_opened_saved_and_opened_again(tmp_path: Path) -> None:
    """By bitsandbytes itself: what is saved is in floating point, and says the same."""
    rows = [{"question": f"Who is number {i}?", "answer": f"Number {i} is Ada."} for i in range(4)]
    whole = fresh_lm(SIZES, tokenizer_for(texts_of(rows), 300), 0)
    whole.save(tmp_path / "whole")
    settings = BitsAndBytesConfig(load_in_4bit=True)
    packed = AutoModelForCausalLM.from_pretrained(tmp_path / "whole", quantization_config=settings, device_map="cpu")
    packed.save_pretrained(tmp_path / "packed")
    whole.tokenizer.save_pretrained(tmp_path / "packed")
    model = open_model(str(tmp_path / "packed"))
    assert all(parameter.is_floating_point() and parameter.requires_grad for parameter in model.module.parameters())
    model.save(tmp_path / "saved")
    ours, theirs = (
        read(one, "forget", rows, {"nll"}, cache=False).mean_nll_N
        for one in (model, open_model(str(tmp_path / "saved")))
    )
    assert ours.tolist() == pytest.approx(theirs.tolist(), abs=1e-5)


def test_floating_point_is_left_alone() -> None:
    assert _quantiser(SimpleNamespace(), "f") == "" == _quantiser(SimpleNamespace(quantization_config=None), "f")
    module, seen = open_packed(None)
    assert module._weight_conversions == ["pack"] and "device_map" not in seen
