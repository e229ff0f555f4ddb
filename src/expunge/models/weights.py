"""The parts that all models share: hooks for hidden states, fingerprints, snapshots, saving weights."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from expunge.core.errors import BadInput, did_you_mean


def quiet() -> None:
    """Our progress display is the only one: transformers' own bars would reach pipes and logs."""
    import transformers

    transformers.utils.logging.disable_progress_bar()


class _Enough(Exception):
    """Ends a forward when all wanted hidden states are there."""


@contextlib.contextmanager
def tap(module: nn.Module, paths: tuple[str, ...], stop: bool = False) -> Iterator[dict[str, Tensor]]:
    """Collects the outputs of modules by path (`path:in` collects the first input).

    With `stop` the forward inside the block ends once all are there.
    """
    found: dict[str, Tensor] = {}
    handles = []
    for path in paths:
        name, _, side = path.partition(":")
        target = submodule(module, name)

        def keep(_m: nn.Module, inputs: Any, output: Any, path: str = path, side: str = side) -> None:
            value = inputs if side == "in" else output
            found[path] = value[0] if isinstance(value, tuple) else value
            if stop and len(found) == len(paths):
                raise _Enough

        handles.append(target.register_forward_hook(keep))
    try:
        with contextlib.suppress(_Enough):
            yield found
    finally:
        for handle in handles:
            handle.remove()


def submodule(module: nn.Module, path: str) -> nn.Module:
    """The module at a path; raises BadInput with the nearest known path."""
    try:
        return module.get_submodule(path)
    except AttributeError:
        known = [name for name, _ in module.named_modules() if name]
        raise BadInput.of("layer", path, "is not a module of this model", did_you_mean(path, known)) from None


def find_blocks(module: nn.Module) -> list[str]:
    """Paths of the layers: the longest ModuleList of the model."""
    lists = [(len(m), path) for path, m in module.named_modules() if isinstance(m, nn.ModuleList)]
    if not lists:
        return []
    count, path = max(lists, key=lambda item: item[0])
    return [f"{path}.{i}" for i in range(count)]


def text_blocks(module: Any) -> list[str]:
    """Paths of a language model's layers: those of its text decoder, where pictures or sounds have layers as well."""
    from transformers import PreTrainedModel  # it takes seconds, and plans start here

    decoder = module.get_decoder() if isinstance(module, PreTrainedModel) else module
    path = next((name for name, part in module.named_modules() if part is decoder), "")
    return [f"{path}.{name}" if path else name for name in find_blocks(decoder)] or find_blocks(module)


def check_finite(module: nn.Module, source: str) -> None:
    """Raises BadInput that names the first weight of a checkpoint that holds NaN or an infinity."""
    for name, tensor in module.named_parameters():
        if not tensor.is_floating_point() or not tensor.numel() or tensor.device.type == "meta":
            continue
        low, high = tensor.detach().aminmax()  # one pass that takes no memory, and NaN passes through
        if not (torch.isfinite(low) and torch.isfinite(high)):
            kind = "NaN" if torch.isnan(low) or torch.isnan(high) else "an infinity"
            raise BadInput.of(
                "model", source, f"has a weight that is not finite ({name} holds {kind})", "give a sound checkpoint"
            )


def device_of(module: nn.Module) -> torch.device:
    """Where the module's weights lie, or the buffers of one that has none."""
    return next(itertools.chain(module.parameters(), module.buffers())).device


def fingerprint_of(module: nn.Module) -> str:
    """SHA-256 over names, dtypes, shapes and bytes of all weights and buffers."""
    total = hashlib.sha256()
    for name, tensor in sorted(snapshot(module).items()):
        total.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}".encode())
        flat = tensor.detach().cpu().contiguous().view(-1)
        if flat.numel():
            total.update(flat.view(torch.uint8).numpy().tobytes())
    return total.hexdigest()


def snapshot(module: nn.Module) -> dict[str, Tensor]:
    """All weights and buffers under their base names, with LoRA adapters folded in."""
    layers = dict(lora_layers(module))
    found: dict[str, Tensor] = {}
    for name, tensor in module.state_dict().items():
        if ".lora_" in name:
            continue
        found[name.replace(".base_layer.", ".")] = tensor.detach()
    for path, layer in layers.items():
        for adapter in layer.active_adapters:
            delta = layer.get_delta_weight(adapter).detach()
            key = f"{path}.weight"
            found[key] = (found[key].float() + delta.float()).to(found[key].dtype)
    return found


def lora_layers(module: nn.Module) -> Iterator[tuple[str, Any]]:
    """Path and layer of every LoRA layer in the module."""
    for path, layer in module.named_modules():
        if hasattr(layer, "lora_A") and hasattr(layer, "get_delta_weight"):
            yield path, layer


def untie(module: Any) -> None:
    """Gives the head a weight of its own where it shares the embeddings' and an adapter changes either of them."""
    try:
        inner, outer = module.get_input_embeddings(), module.get_output_embeddings()
    except (AttributeError, NotImplementedError):  # a network of another kind has neither
        return
    if inner is None or outer is None or not (_has_adapter(inner) or _has_adapter(outer)):
        return
    embeddings, head = _base_layer(inner), _base_layer(outer)
    if head.weight is not embeddings.weight:
        return
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=head.weight.requires_grad)
    for config in {id(c): c for c in (module.config, module.config.get_text_config())}.values():
        config.tie_word_embeddings = False


def _has_adapter(layer: nn.Module) -> bool:
    """Whether PEFT wraps a layer."""
    return type(layer).__module__.startswith("peft.")


def _base_layer(layer: Any) -> Any:
    return layer.get_base_layer() if hasattr(layer, "get_base_layer") else getattr(layer, "original_module", layer)


def thaw(module: nn.Module) -> None:
    """Let every parameter have gradients that can: quantised weights are whole numbers, and have none."""
    for parameter in module.parameters():
        if parameter.is_floating_point():
            parameter.requires_grad_(True)


def fold(module: nn.Module) -> bool:
    """Merges LoRA adapters into the weights and removes them; True where there were any."""
    layers = list(lora_layers(module))
    untie(module)
    for path, layer in layers:
        layer.merge()
        base = layer.get_base_layer()
        parent, _, name = path.rpartition(".")
        setattr(module.get_submodule(parent) if parent else module, name, base)
    thaw(module)
    if layers and hasattr(module, "peft_config"):
        del module.peft_config
    if layers and hasattr(module, "_hf_peft_config_loaded"):
        module._hf_peft_config_loaded = False  # type: ignore[assignment]
    return bool(layers)


def load_weights(module: nn.Module, path: Path, field: str, *, shapes_alone: bool = False) -> None:
    """A safetensors state dict into the module, strictly; raises BadInput. Never unpickles.

    shapes_alone: only whether names and shapes are the module's (which may lie on the meta device).
    """
    if path.suffix != ".safetensors":
        raise BadInput.of(
            field,
            str(path),
            "is not a safetensors file, and we load no pickle",
            "save the state dict with safetensors.torch.save_file",
        )
    if not path.is_file():
        raise BadInput.of(field, str(path), "does not exist", "give a .safetensors file")
    try:
        with safe_open(path, "pt") as file:
            shapes = {name: tuple(file.get_slice(name).get_shape()) for name in file.keys()}
        state = {} if shapes_alone else load_file(path)
    except Exception as error:
        raise BadInput.of(field, str(path), f"cannot be read ({error})", "save it again") from None
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    if odd := sorted(name for name in {*wanted, *shapes} if wanted.get(name) != shapes.get(name)):
        ours, theirs = wanted.get(odd[0], "not there"), shapes.get(odd[0], "not there")
        raise BadInput.of(
            field,
            str(path),
            f"does not fit the network ({odd[0]} is {ours} in it, and {theirs} in the file)",
            "give the weights of this factory with these arguments",
        )
    if not shapes_alone:
        module.load_state_dict(state)
