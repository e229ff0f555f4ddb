"""Our own checkpoints: safetensors and JSON in a folder that appears by one rename.

Batch s and its seed are functions of (seed, stage, s), so no generator or loader state is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from expunge.core import processes
from expunge.core.context import outline
from expunge.core.files import delete, digest, new_file, new_folder, read_sealed, write_sealed
from expunge.training.sharding import split_like, whole

BEST = "best.safetensors"


def save(folder: Path, step: int, tensors: Mapping[str, Tensor], state: Mapping[str, Any]) -> None:
    """Writes `step-<step>` and deletes older ones. Only the first process writes."""
    if not processes.main():
        return
    folder.mkdir(parents=True, exist_ok=True)
    final = folder / f"step-{step:08d}"
    with new_folder(final) as temporary:
        save_file(
            {k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, temporary / "tensors.safetensors"
        )
        best = folder.parent / BEST
        told = {"tensors": digest(outline(tensors)), "best": best.is_file()}
        write_sealed(temporary / "state.json", {"step": step, **state, **told})
    for old in folder.glob("step-*"):
        if old != final:
            delete(old)


def latest(folder: Path) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
    """The newest whole checkpoint; None where there is none.

    One that is damaged counts as none, and so does one whose best weights are: what it led to is computed again.
    """
    for path in sorted(folder.glob("step-*"), reverse=True):
        tensors, state = _tensors(path / "tensors.safetensors"), read_sealed(path / "state.json")
        if tensors is None or state is None or state["tensors"] != digest(outline(tensors)):
            continue
        if not state["best"] or _tensors(folder.parent / BEST) is not None:
            return tensors, state
    return None


def _tensors(path: Path) -> dict[str, Tensor] | None:
    """The tensors of the file; None where it cannot be read."""
    try:
        return load_file(path)
    except (SafetensorError, OSError, ValueError):
        return None


def clear(folder: Path) -> None:
    """Deletes the checkpoints of a finished run; they vanish at once."""
    if processes.main():
        delete(folder)


def save_best(folder: Path, tensors: Mapping[str, Tensor]) -> None:
    """The best weights so far, in one file."""
    if processes.main():
        with new_file(folder / BEST) as written:
            save_file({k: v.detach().cpu().contiguous().clone() for k, v in tensors.items()}, written)


def load_best(folder: Path) -> dict[str, Tensor]:
    """The weights that `save_best` wrote last."""
    return load_file(folder / BEST)


def buffers(module: nn.Module) -> dict[str, Tensor]:
    """Persistent buffers (normalisation statistics), by name."""
    names = {name for name, _ in module.named_buffers()}
    return {name: value for name, value in module.state_dict().items() if name in names}


def optimiser_tensors(optimiser: torch.optim.Optimizer, names: list[str]) -> dict[str, Tensor]:
    """`optimiser.<parameter>.<key>` -> state tensor; a key within a key (bitsandbytes') comes after a slash."""
    found: dict[str, Tensor] = {}
    for i, values in optimiser.state_dict()["state"].items():
        for key, value in values.items():
            within = (
                {f"{key}/{inner}": one for inner, one in value.items()} if isinstance(value, dict) else {key: value}
            )
            found |= {f"optimiser.{names[i]}.{name}": whole(torch.as_tensor(one)) for name, one in within.items()}
    return found


def load_optimiser(optimiser: torch.optim.Optimizer, names: list[str], tensors: Mapping[str, Tensor]) -> None:
    """The inverse of `optimiser_tensors`."""
    state: dict[int, dict[str, Any]] = {}
    parameters = [p for group in optimiser.param_groups for p in group["params"]]
    for i, name in enumerate(names):
        head = f"optimiser.{name}."
        for key, value in tensors.items():
            if key.startswith(head):
                outer, _, inner = key[len(head) :].partition("/")
                if inner:
                    state.setdefault(i, {}).setdefault(outer, {})[inner] = value
                else:
                    state.setdefault(i, {})[outer] = split_like(value, parameters[i]) if value.dim() else value
    whole = optimiser.state_dict()
    whole["state"] = state
    optimiser.load_state_dict(whole)


def restore(module: nn.Module, tensors: Mapping[str, Tensor], prefix: str) -> None:
    """Copies `<prefix><name>` tensors into the module's parameters and buffers."""
    targets = {**dict(module.named_parameters(remove_duplicate=False)), **dict(module.named_buffers())}
    with torch.no_grad():
        for name, value in tensors.items():
            if name.startswith(prefix):
                target = targets[name[len(prefix) :]]
                target.copy_(split_like(value, target))
