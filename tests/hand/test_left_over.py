"""Weights that a folder's configuration has no place for, and matrices that an adapter's has none for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from safetensors.torch import load_file, save_file
from tests.several import small_lm

from expunge.core.errors import BadInput
from expunge.models.open import open_on_cpu


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lm") / "base"
    small_lm().save(folder)
    return folder


def changed(base: Path, folder: Path, weights: Callable[[Any], Any] = lambda state: state, **config: Any) -> str:
    shutil.copytree(base, folder)
    settings = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**settings, **config}))
    save_file(weights(load_file(folder / "model.safetensors")), folder / "model.safetensors", {"format": "pt"})
    return str(folder)


def test_a_layer_that_the_configuration_does_not_count_is_not_left_out(base: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"holds weights that its configuration builds no place for \(model.layers.1"):
        open_on_cpu(changed(base, tmp_path / "m", num_hidden_layers=1))


@pytest.mark.parametrize("name", ["bias", "weight_scale_inv"])
def test_nor_is_a_part_of_a_layer(name: str, base: Path, tmp_path: Path) -> None:
    """A bias under attention_bias: false; the scales of weights in eight bits whose configuration says nothing."""
    more = f"model.layers.0.self_attn.q_proj.{name}"
    with pytest.raises(BadInput, match=more):
        open_on_cpu(changed(base, tmp_path / "m", lambda state: {**state, more: torch.ones(32)}))


def test_matrices_in_whole_numbers_need_a_scale(base: Path, tmp_path: Path) -> None:
    name = "model.layers.0.self_attn.q_proj.weight"
    given = changed(base, tmp_path / "m", lambda state: {**state, name: (state[name] * 100).to(torch.int8)})
    with pytest.raises(BadInput, match=rf"in whole numbers without a scale \({name}\)"):
        open_on_cpu(given)


def test_a_network_without_layers_is_none(base: Path, tmp_path: Path) -> None:
    with pytest.raises(BadInput, match=r"builds a network without layers \(num_hidden_layers: 0\)"):
        open_on_cpu(changed(base, tmp_path / "m", num_hidden_layers=0))


@pytest.mark.parametrize("name", ["v_head.summary.weight", "model.layers.0.self_attn.rotary_emb.inv_freq"])
def test_what_belongs_to_nothing_here_is_left_unread(name: str, base: Path, tmp_path: Path) -> None:
    open_on_cpu(changed(base, tmp_path / "m", lambda state: {**state, name: torch.ones(2)}))


@pytest.mark.parametrize("lost", ["targets", "layer"])
def test_an_adapter_s_matrices_all_find_their_layers(lost: str, base: Path, tmp_path: Path) -> None:
    """PEFT drops those that it finds no layer for."""
    config = peft.LoraConfig(r=2, task_type="CAUSAL_LM", target_modules=["q_proj", "v_proj"])
    wrapped = peft.get_peft_model(open_on_cpu(str(base)).module, config)
    wrapped.peft_config["default"].base_model_name_or_path = str(base)
    wrapped.save_pretrained(folder := tmp_path / "adapter")
    open_on_cpu(str(folder))
    if lost == "targets":
        path = folder / "adapter_config.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "target_modules": ["v_proj"]}))
    else:
        state = load_file(folder / "adapter_model.safetensors")
        more = {name.replace("layers.0", "layers.9"): x.clone() for name, x in state.items()}
        save_file({**more, **state}, folder / "adapter_model.safetensors", {"format": "pt"})
    with pytest.raises(BadInput, match="and its configuration and base take"):
        open_on_cpu(str(folder))
