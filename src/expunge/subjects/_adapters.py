"""LoRA adapters through PEFT: put in, written so that PEFT opens them, merged when opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import nn


def insert(module: nn.Module, *, rank: int, alpha: int, dropout: float, targets: Any) -> list[str]:
    """Puts LoRA matrices into the module in place (paths stay) and returns their parameters' names.

    Everything else is frozen; the matrices are float32 whatever the base's dtype.
    """
    from peft import LoraConfig, inject_adapter_in_model

    kind = "CAUSAL_LM" if hasattr(module, "get_output_embeddings") and module.get_output_embeddings() else None  # type: ignore[operator]
    config = LoraConfig(r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets,
                        task_type=kind, bias="none")  # fmt: skip
    inject_adapter_in_model(config, module)
    module._expunge_lora = config  # type: ignore[assignment]
    names = []
    for name, parameter in module.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:
            parameter.data = parameter.data.float()
            names.append(name)
    return names


def save_adapter(module: Any, folder: Path, base: str) -> None:
    """adapter_config.json and adapter_model.safetensors, which `PeftModel.from_pretrained` opens."""
    from peft import get_peft_model_state_dict
    from safetensors.torch import save_file

    config = module._expunge_lora
    config.base_model_name_or_path = str(Path(base).resolve()) if Path(base).exists() else base
    config.inference_mode = True
    state = {}
    for name, value in get_peft_model_state_dict(module).items():
        key = name if name.startswith("base_model.model.") else f"base_model.model.{name}"
        state[key] = value.detach().cpu().contiguous()
    save_file(state, folder / "adapter_model.safetensors")
    config.save_pretrained(folder)
