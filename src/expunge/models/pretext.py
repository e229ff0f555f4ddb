"""The task that an encoder is trained by without labels: its head, and the loss of each example."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core import registry
from expunge.core.card import Card
from expunge.core.errors import BadInput

DEFAULT = "nt_xent"


@dataclass(frozen=True)
class Seen:
    """The source of a batch's embeddings: pictures as they are, both views of each, and the network."""

    x_BCHW: Tensor
    views_2BCHW: Tensor
    embed: Callable[[Tensor], Tensor]
    """[B, C, H, W] pictures -> [B, D] embeddings."""


class Pretext(ABC):
    """A self-supervised task over two views of each example.

    together: examples that are read together in eval mode, where an example's loss depends on others; 0 where it is
    its own.
    """

    together: int = 0

    @abstractmethod
    def head(self, width: int) -> nn.Module:
        """The layers between embeddings of this width and the loss; their weights follow from torch's generator."""

    @abstractmethod
    def losses(self, head: nn.Module, h_2BD: Tensor) -> Tensor:
        """[B] each example's loss, of the embeddings of its first view (h[0]) and of its second (h[1])."""

    def losses_of(self, head: nn.Module, h_2BD: Tensor, seen: Seen) -> Tensor:
        """The same for a task that reads the pictures too; by default it does not."""
        return self.losses(head, h_2BD)


def pretext_of(value: Any, where: str) -> tuple[str, dict[str, Any]]:
    """(name, options with the defaults filled in) of a pretext, written as a name or {name: options}.

    Raises BadInput.
    """
    name, options = next(iter(value.items())) if isinstance(value, Mapping) and len(value) == 1 else (value, {})
    if not isinstance(name, str) or not isinstance(options, Mapping | None):
        raise BadInput.of(where, str(value), "is no pretext task", "write a name, or {name: {option: value}}")
    plugin: registry.Plugin[Card] = registry.load("pretexts", name, where)
    return name, plugin.validate(options or {}, f"{where}.{name}")


def make_pretext(name: str, options: Mapping[str, Any]) -> Pretext:
    """The pretext of that name."""
    made: Pretext = registry.load("pretexts", name, "pretext").factory(**options)
    return made


class _AscentAlone(torch.autograd.Function):
    """The identity on `whole`, whose gradient goes to `whole` where it lowers the loss and to `own` where it raises
    it."""

    @staticmethod
    def forward(ctx: Any, whole_B: Tensor, own_B: Tensor) -> Tensor:
        return whole_B.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor]:
        (grad_B,) = grads
        return grad_B.clamp(min=0), grad_B.clamp(max=0)


def ascend_alone(whole_B: Tensor, own_B: Tensor) -> Tensor:
    """[B] losses that are lowered by moving all examples, and raised by moving each one's own embeddings alone.

    The losses of an in-batch contrast rise most cheaply where an example's negatives come to it: a term that forgets
    would only scatter the batch. whole: the losses. own: equal losses in which the other examples are held fixed. Which
    of the two the gradient goes through follows from its sign: a loss that minimises this one (training, a
    retain term) has a positive one.
    """
    result: Tensor = _AscentAlone.apply(whole_B, own_B)
    return result
