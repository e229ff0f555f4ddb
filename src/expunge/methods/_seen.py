"""Changes of the pictures that a network is shown in training."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from torch import Tensor, nn

from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.data.examples import form
from expunge.models.family import family


def check_pictures(model: Model, data: Sequence[Example], trainer: str) -> None:
    """Raises BadInput unless the model is a classifier of pictures."""
    if not family(model.family).labelled or (data and "image" not in (form(data[0]) or ())):
        why = "changes pictures with labels in training, and these are none"
        raise BadInput.of("trainer", trainer, why, "give images with labels, or leave the trainer out")


@contextlib.contextmanager
def altering(module: nn.Module, change: Callable[[Tensor], Tensor]) -> Iterator[None]:
    """The network is shown `change` of every batch of pictures while this lasts."""

    def hook(_module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any]) -> Any:
        if inputs:
            return (change(inputs[0]), *inputs[1:]), named
        return inputs, {**named, "pixel_values": change(named["pixel_values"])}

    handle = module.register_forward_pre_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


def planes(x: Tensor) -> Tensor:
    """[B, C, H, W] of pictures [B, H, W] or [B, H, W, C]; those with three or fewer channels first stay."""
    if x.dim() == 3:
        return x[:, None]
    return x if x.shape[1] <= 3 else x.movedim(-1, 1)


def like(planes_BCHW: Tensor, x: Tensor) -> Tensor:
    """The pictures in the order of dimensions that `x` has."""
    if x.dim() == 3:
        return planes_BCHW[:, 0]
    return planes_BCHW if x.shape[1] <= 3 else planes_BCHW.movedim(1, -1)
