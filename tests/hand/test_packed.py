"""Folders whose weights a quantiser packed: they are opened in floating point, or refused in one sentence."""

from __future__ import annotations

import sys
from types import SimpleNamespace
from typing import Any

import pytest

from expunge.core.errors import BadInput
from expunge.models._pretrained import _module, _quantiser


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
        return Packed(fails), {"missing_keys": []}

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


def test_floating_point_is_left_alone() -> None:
    assert _quantiser(SimpleNamespace()) == "" and _quantiser(SimpleNamespace(quantization_config=None)) == ""
    module, seen = open_packed(None)
    assert module._weight_conversions == ["pack"] and "device_map" not in seen
