"""Adapters through PEFT: LoRA put in and written so that PEFT opens it; others' checked and merged when opened."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from expunge.core.errors import BadInput
from expunge.models import schemas
from expunge.models._folder import foreign

PROMPTS = (
    "PROMPT_TUNING",
    "MULTITASK_PROMPT_TUNING",
    "P_TUNING",
    "PREFIX_TUNING",
    "CPT",
    "CARTRIDGE",
    "ADAPTION_PROMPT",
)
"""Kinds of adapters that stand beside the weights."""
OTHERS = ("XLORA", "POLY")
"""Kinds that open further adapters, which their configuration names, or that no weights could hold."""
FOREIGN = ("megatron_config", "auto_mapping", "layer_replication")
"""Settings that name code to import, or that multiply the base's layers."""


def check_adapter(folder: Path, field: str = "model") -> str:
    """The base that an adapter names; all that can be known of the adapter without loading it. Raises BadInput."""
    path = folder / "adapter_config.json"
    config = schemas.read(path, schemas.Adapter, field, "save the adapter again")
    kind = str(config.get("peft_type") or "")
    if kind in OTHERS:
        raise BadInput.of(
            field, str(folder), f"is an adapter of the kind {kind}, which cannot be merged", "give a plain LoRA adapter"
        )
    core = config.get("megatron_core") not in (None, "megatron.core")
    if named := next((name for name in FOREIGN if config.get(name)), "megatron_core" if core else ""):
        raise BadInput.of(
            field,
            str(path),
            f"cannot be used: {named} is set, which no adapter that we merge needs",
            "save the adapter without it",
        )
    weights = folder / "adapter_model.safetensors"
    ranks = [config.get("r") or 0, *(config.get("rank_pattern") or {}).values()]
    if weights.is_file():
        with foreign(field, str(weights), "cannot be read", "save the adapter again"), safe_open(weights, "pt") as file:
            widest = max((max(file.get_slice(name).get_shape(), default=1) for name in file.keys()), default=1)
        if max(ranks) > widest:  # memory for the rank would be taken before the weights are looked at
            raise BadInput.of(
                field,
                str(path),
                f"cannot be used: the rank {max(ranks):,} is not that of its weights",
                "save the adapter again",
            )
    return str(config.get("base_model_name_or_path") or "")


def merge(model: Any, folder: Path) -> None:
    """Merges the adapter in a folder into the model's weights. Raises BadInput."""
    from peft import PeftModel

    kind = str(schemas.read(folder / "adapter_config.json", schemas.Adapter, "model").get("peft_type") or "")
    if kind in PROMPTS:
        raise BadInput.of(
            "model",
            str(folder),
            f"is a {kind.lower().replace('_', ' ')} adapter, which cannot be merged",
            "open the ensemble that it belongs to, or its base",
        )
    with (
        foreign("model", str(folder), "is an adapter that cannot be opened on its base", "save the adapter again"),
        warnings.catch_warnings(),
    ):  # on the meta device there is nothing to copy to, of which torch warns a line a tensor
        warnings.filterwarnings("error", message=".*missing adapter keys.*")  # they would stay as they are drawn
        warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter.*")
        wrapped = PeftModel.from_pretrained(model.module, str(folder))
        model.module = wrapped.merge_and_unload()
    model.source, model.merged = "", True  # the base's folder no longer holds these weights
    for parameter in model.module.parameters():
        parameter.requires_grad_(True)


def insert(module: nn.Module, *, rank: int, alpha: int, dropout: float, targets: Any) -> list[str]:
    """Puts LoRA matrices into the module in place (paths stay) and returns their parameters' names.

    Everything else is frozen; the matrices are float32 whatever the base's dtype.
    """
    from peft import LoraConfig, inject_adapter_in_model

    kind = "CAUSAL_LM" if hasattr(module, "get_output_embeddings") and module.get_output_embeddings() else None  # type: ignore[operator]
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets, task_type=kind, bias="none"
    )
    inject_adapter_in_model(config, module)
    names = []
    for name, parameter in module.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:
            parameter.data = parameter.data.float()
            names.append(name)
    return names


def linear_targets(module: nn.Module) -> str | list[str]:
    """All linear layers but a language model's head: PEFT's word for them, which knows only models with such a head."""
    if getattr(module, "get_output_embeddings", lambda: None)() is not None:
        return "all-linear"
    return [path for path, layer in module.named_modules() if isinstance(layer, nn.Linear)]


def save_adapter(module: Any, folder: Path, base: str) -> None:
    """adapter_config.json and adapter_model.safetensors, which `PeftModel.from_pretrained` opens."""
    from peft import get_peft_model_state_dict

    config = next(iter(module.peft_config.values()))  # where PEFT keeps what was injected
    config.base_model_name_or_path = str(Path(base).resolve()) if Path(base).exists() else base
    config.inference_mode = True
    state = {}
    for name, value in get_peft_model_state_dict(module).items():
        key = name if name.startswith("base_model.model.") else f"base_model.model.{name}"
        state[key] = value.detach().cpu().contiguous()
    save_file(state, folder / "adapter_model.safetensors")
    config.save_pretrained(folder)
