"""Weights, gradients and optimiser state split over the processes while a model trains (FSDP2).

Each block is split on its own and gathered when it is used; what lies outside the blocks (embeddings, the last norm,
the head) stays whole in each process. Gradients are summed, as ours are: a loss is already over the whole batch.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn.utils import clip_grads_with_norm_, get_total_norm

from expunge.core import processes
from expunge.core.contracts import Model, Trainable
from expunge.core.errors import BadInput


def is_split(tensor: Tensor) -> bool:
    """Whether the processes have a part of the tensor each (a DTensor, whose import takes seconds)."""
    return hasattr(tensor, "full_tensor")


def is_sharded(module: nn.Module) -> bool:
    """Whether parts of the module are split over the processes."""
    return any(map(is_split, module.parameters()))


@contextlib.contextmanager
def split_weights(model: Model, trainable: Trainable, wanted: bool | None) -> Iterator[Trainable]:
    """Inside, the model is split, and so is what it yields; afterwards each process has it whole again.

    Raises BadInput where the model or the choice of weights cannot be split. Nothing happens unless it is wanted.
    """
    if not wanted or processes.world() == 1:
        yield trainable
        return
    from torch.distributed.fsdp import fully_shard  # here, as it takes seconds

    _check(model, trainable)
    module = model.module
    if is_sharded(module):  # an inner run of a term on the same model
        yield trainable
        return
    mesh = init_device_mesh(processes.device().type, (processes.world(),))
    for path in model.blocks:
        block = fully_shard(module.get_submodule(path), mesh=mesh)
        block.set_gradient_divide_factor(1.0)
        block.set_force_sum_reduction_for_comms(True)
    found = dict(module.named_parameters())
    # In the order of the optimiser's groups.
    names = sorted(trainable.parameters, key=lambda name: is_split(found[name]))
    yield Trainable({name: found[name] for name in names}, None)
    _join(module)  # not after an error: the others may not come to it


def _check(model: Model, trainable: Trainable) -> None:
    why = ""
    if not model.blocks:
        why = "asks for splitting, and this model has no blocks by which it could be split"
    elif trainable.masks is not None:
        why = "asks for splitting, and these weights train under a mask"
    if why:
        raise BadInput.of("budget.shard", True, why, "leave it out, or choose `weights: all` or `weights: lora`")


def _join(module: nn.Module) -> None:
    """Put the whole parameters back in the place of the split ones, and take the hooks away."""
    from torch.distributed import _composable_state
    from torch.distributed._composable.contract import REGISTRY_KEY, STATE_KEY
    from torch.distributed.fsdp import FSDPModule

    for part in [part for part in module.modules() if isinstance(part, FSDPModule)]:
        state = part._get_fsdp_state()
        part.reshard()
        for holder in part.modules():
            for name, parameter in list(holder._parameters.items()):
                if parameter is not None and is_split(parameter):
                    value = nn.Parameter(whole(parameter).detach(), parameter.requires_grad)
                    holder._parameters[name] = value
        for handle in (state._pre_forward_hook_handle, state._post_forward_hook_handle):
            handle.remove()
        for key in (STATE_KEY, REGISTRY_KEY):  # it may be split again
            part.__dict__.pop(key, None)
        _composable_state._module_state_mapping.pop(part, None)
        part.__class__ = type(part).__bases__[1]


def whole(tensor: Tensor) -> Tensor:
    """The tensor with all of its values; every process must ask for it."""
    return tensor.full_tensor() if is_split(tensor) else tensor  # type: ignore[attr-defined]


def split_like(value: Tensor, target: Tensor) -> Tensor:
    """This process's part of a whole tensor, laid out as the target is."""
    if not is_split(target):
        return value
    from torch.distributed.tensor import distribute_tensor

    return distribute_tensor(value.to(target.device), target.device_mesh, target.placements, src_data_rank=None)  # type: ignore[attr-defined]


def groups(parameters: Sequence[nn.Parameter]) -> list[dict[str, Any]]:
    """Parameters by kind, the whole ones first, for an optimiser: one call cannot take both."""
    kinds = [[p for p in parameters if is_split(p) is split] for split in (False, True)]
    return [{"params": kind} for kind in kinds if kind]


def clip_gradients(parameters: Sequence[nn.Parameter], limit: float) -> None:
    """Scale all gradients down to this norm over all of them."""
    if not any(is_split(p) for p in parameters):
        nn.utils.clip_grad_norm_(parameters, limit)
        return
    parts = [group["params"] for group in groups(parameters)]
    norms = [get_total_norm([p.grad for p in part if p.grad is not None]) for part in parts]
    total = torch.stack([whole(norm) for norm in norms]).norm()
    for part in parts:
        clip_grads_with_norm_(part, limit, total)
