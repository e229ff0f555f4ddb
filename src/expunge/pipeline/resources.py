"""A run's needs, estimated from shapes alone, against what this machine has: memory, disk, seconds."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import psutil
import torch

from expunge.core import processes, registry
from expunge.core.budget import Budget
from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.models.family import family
from expunge.models.memory import reading_bytes
from expunge.training.pace import FLOPS
from expunge.training.recomputation import can_recompute

GB = 1e9


def size(count: float) -> str:
    """Bytes in words: GB with a decimal, or MB where it is less than a tenth of a GB."""
    return f"{count / GB:,.1f} GB" if count >= 1e8 else f"{count / 1e6:,.1f} MB"


@dataclass(frozen=True)
class Estimate:
    """Bytes by kind, and a guess of seconds."""

    weights: float
    gradients: float
    moments: float
    activations: float
    logits: float
    reading: float
    """Beyond the weights, when splits are read and answers generated."""
    parts: bool
    """Whether a step is several forwards, so that gradients are there beside the activations of the next."""
    seconds: float
    trainable: int
    parameters: int
    available: float

    @property
    def peak(self) -> float:
        """Bytes at the peak, with a twentieth on top for what shapes do not show.

        In a step of one forward, gradients come as activations go, so that the larger of the two counts.
        """
        forward = self.activations + self.logits
        step = self.gradients + forward if self.parts else max(self.gradients, forward)
        return 1.05 * (self.weights + max(self.moments + step, self.reading))

    def over(self, devices: int) -> Estimate:
        """The same on each of so many devices that split gradients and moments; each holds the weights to read."""
        return replace(self, gradients=self.gradients / devices, moments=self.moments / devices)

    @property
    def sentence(self) -> str:
        parts = (
            ("weights", self.weights),
            ("gradients", self.gradients),
            ("Adam moments", self.moments),
            ("activations", self.activations),
            ("logits", self.logits),
            ("reading", self.reading),
        )
        return ", ".join(f"{name} {size(value)}" for name, value in parts)

    def to_json(self) -> dict[str, Any]:
        return {
            "peak_memory_bytes": round(self.peak),
            "available_bytes": round(self.available),
            "seconds": round(self.seconds, 1),
            "moving_parameters": self.trainable,
            "parameters": self.parameters,
            "parts": self.sentence,
        }


WHOLE = 2
"""Times as many arrays of logits where a loss takes whole distributions: the logits and what it reads of them too."""


@dataclass(frozen=True)
class Load:
    """The size of a run's passes. rows: sequences in a forward; length: tokens of the longest; counted: of these,
    those that a loss may count; parts: whether a step has several forwards; read: examples of the largest split, and
    longest: tokens of the longest of them; moment_bytes: of a parameter's two moments; distributions: whether a loss
    takes more of them than the labels' log-probabilities."""

    rows: int
    length: int
    counted: int
    parts: bool
    read: int
    longest: int
    steps: int
    tokens_per_step: float
    checkpointing: bool
    moment_bytes: float
    bf16: bool
    distributions: bool = False


def trainable_parameters(model: Model, weights: str, options: Mapping[str, Any]) -> tuple[int, int]:
    """(moving parameters, of them beside the base): LoRA's lie beside the base, others within.

    A mask's parameters all count, since their gradients and moments are held whole.
    """
    module = model.module
    if weights == "layers":  # which these are depends on no data; to choose them makes them float32
        stored = {name: p.data for name, p in module.named_parameters()}
        names = registry.load("weights", weights).factory(**options)(model, {}, None).parameters
        for name, p in module.named_parameters():
            p.data = stored[name]
        return sum(p.numel() for name, p in module.named_parameters() if name in names), 0
    if weights != "lora":
        return sum(p.numel() for p in module.parameters()), 0
    rank = int(options.get("rank", 16))
    head: Any = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None  # type: ignore[operator]
    extra = sum(
        rank * (m.in_features + m.out_features)
        for m in module.modules()
        if isinstance(m, torch.nn.Linear) and m is not head
    )
    return extra, extra


def estimate(
    model: Model, load: Load, *, weights: str, options: Mapping[str, Any], elsewhere: bool = False
) -> Estimate:
    """Estimate memory and time from shapes alone.

    elsewhere: the limit is another machine's; it is taken for an accelerator where the file's weights
    are of half precision. A CPU holds them in float32, whatever the file has.
    """
    module = model.module
    device = processes.device().type
    total = sum(p.numel() for p in module.parameters())
    halves = all(p.element_size() < 4 for p in module.parameters())
    accelerator = device == "cuda" or (elsewhere and halves)
    low = load.bf16 or accelerator
    # What is frozen stays in the dtype of the file (float32 on a CPU); what moves is float32, with its gradient and
    # two moments.
    frozen = float(sum(p.numel() * (p.element_size() if accelerator else 4) for p in module.parameters()))
    trainable, beside = trainable_parameters(model, weights, options)
    held = frozen + 4.0 * beside if beside else 4.0 * trainable + frozen * (total - trainable) / max(1, total)
    needs = partial(
        family(model.family).memory, model, rows=load.rows, cell=2 if low else 4, checkpointing=load.checkpointing
    )
    kept, _ = needs(length=load.length)
    _, logits = needs(length=load.counted)
    passes = 6 if not beside else 4
    flops = load.steps * load.tokens_per_step * (passes + (2 if load.checkpointing else 0)) * total
    return Estimate(
        held,
        4.0 * trainable,
        load.moment_bytes * trainable,
        kept,
        WHOLE * logits if load.distributions else logits,
        reading_bytes(model, rows=load.read, length=load.longest, share=load.counted / max(1, load.length)),
        load.parts,
        flops / FLOPS.get(device, FLOPS["cpu"]),
        trainable,
        total,
        _available(device),
    )


def _available(device: str) -> float:
    """Bytes that this machine has for a run: all of a GPU's, or what is free of the host's."""
    if device == "cuda":
        return float(torch.cuda.get_device_properties(0).total_memory)
    return float(psutil.virtual_memory().available)


def memory_limit(budget: Budget) -> float:
    """Bytes that parts of a step are to fit: the budget's memory, else a GPU's, else half of this machine's.

    What is free now would make the same request train differently tomorrow.
    """
    if budget.memory is not None:
        return budget.memory * 1e9
    if processes.device().type == "cuda":
        return float(torch.cuda.get_device_properties(0).total_memory)
    return 0.5 * float(psutil.virtual_memory().total)


def fits_memory(made: Estimate, budget: Budget, weights: str, guess: Callable[..., Estimate], model: Model) -> None:
    """Raises BadInput, with a setting that would fit, where the peak exceeds the limit."""
    limit = budget.memory * 1e9 if budget.memory is not None else made.available
    if made.peak <= limit:
        return
    layered = can_recompute(model.module)
    ways: list[tuple[str, dict[str, Any]]] = []
    if layered:
        ways.append(("budget.gradient_checkpointing: true", {"checkpointing": True}))
    ways.append(("budget.micro_batch_size: 1", {"micro": 1}))
    if layered:
        ways.append(("both", {"checkpointing": True, "micro": 1}))
    if weights != "lora" and layered:
        ways += [
            (f"weights: lora{' with ' + name if name else ''}", {"weights": "lora", **changes})
            for name, changes in [("", {}), *ways]
        ]
    names = {"both": "budget.gradient_checkpointing: true and budget.micro_batch_size: 1"}
    for name, changes in ways:
        if (then := guess(**changes)).peak <= limit:
            for short, long in names.items():
                name = name.replace(short, long)
            fix = f"set {name} (about {size(then.peak)})"
            break
    else:
        plan = "" if budget.memory is not None else " (budget.memory: 80 plans for one of 80 GB)"
        fix = f"choose a smaller model or a larger machine{plan}: no setting of ours makes it fit"
    what = "all weights that move, with gradients and moments in float32" if weights == "all" else f"weights: {weights}"
    there = (
        f"budget.memory allows {size(limit)}" if budget.memory is not None else f"this machine has {size(limit)} free"
    )
    raise BadInput.of(
        "budget.memory" if budget.memory is not None else "model",
        "",
        f"about {size(made.peak)} are needed at the peak ({what}: {made.sentence}), and {there}",
        fix,
    )


def fits_disk(made: Estimate, weights: str, model: Model, out: Path) -> None:
    """Raises BadInput where the disk has too little room for the model and its checkpoints."""
    place = out.absolute()
    while not place.exists():
        place = place.parent
    free = shutil.disk_usage(place).free
    # The model or its adapter, twice (the new one is written beside the old), and a checkpoint in float32:
    # what moves, two moments, and the best weights.
    stored = sum(p.numel() * p.element_size() for p in model.module.parameters())
    need = 2 * (4 * made.trainable if weights == "lora" else stored) + 16 * made.trainable + 5e7
    if free < need:
        raise BadInput.of(
            "out",
            str(out),
            f"lies on a disk with {size(free)} left, and the run may need {size(need)}",
            "free some, or choose another disk",
        )
