"""The loop's optimiser: AdamW, whose two moments are in float32, in 8 bits, or in the host's memory; or SGD."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from expunge.core import processes
from expunge.core.budget import Budget
from expunge.core.errors import BadInput
from expunge.core.extras import require
from expunge.training import sharding

MOMENTUM = 0.9
"""Of SGD."""


def moment_bytes(budget: Budget) -> float:
    """Bytes of a parameter's moments in the memory of the model's device.

    In 8 bits, 256 values share two scales. The host's memory holds a copy of the parameter too.
    """
    if budget.optimizer == "adamw_offloaded":
        return 12.0 if processes.device().type == "cpu" else 0.0
    return {"adamw_8bit": 2.03, "sgd": 4.0}.get(budget.optimizer or "", 8.0)


def optimiser_of(parameters: Sequence[nn.Parameter], rate: float, decay: float, budget: Budget) -> Any:
    """The optimiser that the budget names."""
    if budget.optimizer == "adamw_8bit":
        # Tensors under 4096 values stay in float32, as Dettmers et al. (arXiv:2110.02861) have it.
        from bitsandbytes.optim.adamw import AdamW8bit

        return AdamW8bit(parameters, lr=rate, weight_decay=decay)
    if budget.optimizer == "adamw_offloaded":
        return Offloaded(parameters, lr=rate, weight_decay=decay)
    if budget.optimizer == "sgd":
        return torch.optim.SGD(sharding.groups(parameters), lr=rate, momentum=MOMENTUM, weight_decay=decay)
    return torch.optim.AdamW(sharding.groups(parameters), lr=rate, weight_decay=decay, fused=True)


def check_optimiser(budget: Budget) -> None:
    """Raises BadInput where the optimiser's package is missing, or where several processes would each hold it."""
    if budget.optimizer == "adamw_8bit":
        require("budget.optimizer", budget.optimizer, "bitsandbytes", "quantised")
    if budget.optimizer not in (None, "adamw") and processes.world() > 1:
        raise BadInput.of(
            "budget.optimizer",
            budget.optimizer,
            "was never run in several processes",
            "leave it out, or run one process",
        )


class Offloaded(torch.optim.AdamW):
    """AdamW on copies of the parameters in the host's memory, with its moments beside them.

    The device holds weights and gradients alone; each step takes the gradients over and brings the weights back. On
    the CPU the steps are AdamW's, bit for bit.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], **options: Any) -> None:
        self.originals = list(parameters)
        self.copies = [nn.Parameter(p.detach().to("cpu", copy=True)) for p in self.originals]
        super().__init__(self.copies, fused=True, **options)

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        with torch.no_grad():
            for original, copy in zip(self.originals, self.copies, strict=True):
                copy.copy_(original)  # which a checkpoint or a term may have changed
                copy.grad = None if original.grad is None else original.grad.to("cpu")
            super().step(closure)
            for original, copy in zip(self.originals, self.copies, strict=True):
                original.copy_(copy)
                copy.grad = None

    def zero_grad(self, set_to_none: bool = True) -> None:
        for original in self.originals:
            original.grad = None
