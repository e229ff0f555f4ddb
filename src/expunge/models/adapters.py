"""Adapters through PEFT: LoRA put in and written so that PEFT opens it; others' checked and merged when opened."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from expunge.core.documents import read_text
from expunge.core.errors import BadInput
from expunge.models import schemas
from expunge.models._folder import foreign
from expunge.models.merging import merge_weights, resize

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
LARGEST = 2**20
"""Bytes of a chat template's file."""
FOREIGN = ("megatron_config", "auto_mapping", "layer_replication")
"""Settings that name code to import, or that multiply the base's layers."""


STATE_SPACES = ("falcon_h1", "mamba", "mamba2", "falcon_mamba", "nemotron_h")
FORBIDDEN = ("out_proj", "conv1d")
"""Layers of state-space models that PEFT gives no LoRA: their kernels read the weights, and pass the layer by."""


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
    if not (base := str(config.get("base_model_name_or_path") or "")):
        raise BadInput.of(
            field,
            str(path),
            "names no base model (base_model_name_or_path is null)",
            "set base_model_name_or_path to the folder or hub name of the adapter's base",
        )
    return base


def merge(module: Any, folder: Path) -> Any:
    """The module with the adapter in a folder merged into its weights. Raises BadInput."""
    config = schemas.read(folder / "adapter_config.json", schemas.Adapter, "model")
    kind = str(config.get("peft_type") or "")
    if kind in PROMPTS:
        raise BadInput.of(
            "model",
            str(folder),
            f"is a {kind.lower().replace('_', ' ')} adapter, which cannot be merged",
            "open the ensemble that it belongs to, or its base",
        )
    if config.get("alora_invocation_tokens"):
        raise BadInput.of(
            "model",
            str(folder),
            "is an activated LoRA (alora_invocation_tokens), which acts on some tokens alone and cannot be merged",
            "give a plain LoRA adapter",
        )
    resize(module, folder)
    return merge_weights(module, folder)


def tokenizer_source(folder: Path, base: str) -> str:
    """Where the tokenizer of an adapter lies: in its own folder, where it brings one, else beside its base."""
    own = any((folder / name).is_file() for name in ("tokenizer.json", "tokenizer_config.json", "tokenizer.model"))
    return str(folder) if own else base


def chat_template_of(folder: Path) -> str | None:
    """The chat template that lies in an adapter's folder as a file of its own."""
    path = folder / "chat_template.jinja"
    return read_text(path, "model", LARGEST) if path.is_file() else None


def insert(module: nn.Module, *, rank: int, alpha: int, dropout: float, targets: Any) -> list[str]:
    """Puts LoRA matrices into the module in place (paths stay) and returns their parameters' names.

    Everything else is frozen; the matrices are float32 whatever the base's dtype. On a state-space model `all-linear`
    leaves out the projections that PEFT forbids there (FORBIDDEN). Raises BadInput for targets that cannot carry LoRA.
    """
    from peft import LoraConfig, inject_adapter_in_model

    kind = "CAUSAL_LM" if hasattr(module, "get_output_embeddings") and module.get_output_embeddings() else None  # type: ignore[operator]
    if targets == "all-linear" and kind is not None:
        targets = linear_targets(module)
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=dropout, target_modules=targets, task_type=kind, bias="none"
    )
    with foreign("targets", str(targets), "cannot carry LoRA", "name linear layers of this model"):
        inject_adapter_in_model(config, module)
    names = []
    for name, parameter in module.named_parameters():
        parameter.requires_grad_("lora_" in name)
        if "lora_" in name:
            parameter.data = parameter.data.float()
            names.append(name)
    return names


def linear_targets(module: Any) -> str | list[str]:
    """All linear layers but a language model's head: PEFT's word for them, where it knows the model's head.

    Of a state-space model, those that PEFT gives LoRA.
    """
    head = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
    if head is not None and module.config.model_type not in STATE_SPACES:
        return "all-linear"
    layers = [path for path, layer in module.named_modules() if isinstance(layer, nn.Linear) and layer is not head]
    return layers if head is None else [path for path in layers if path.rpartition(".")[2] not in FORBIDDEN]


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
