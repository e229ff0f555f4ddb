"""Integrated gradients: the part of a classifier's answer that each pixel accounts for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch

from expunge.core.card import Example
from expunge.core.contracts import Model, Want
from expunge.models.passes import evaluating
from expunge.models.weights import device_of

STEPS = 32


def integrated_gradients(model: Model, examples: Sequence[Example], steps: int = STEPS) -> np.ndarray | None:
    """[N, H, W] parts of the label's probability by pixel, colours added up (Sundararajan et al. 2017, equation 2).

    The path leads from inputs of 0 to the picture, in the network's own units; the integral is taken at the middles of
    `steps` equal parts. A row adds up to the probability of its label less that at 0. None where the inputs are not
    one array of pictures, or the network passes no gradient to them.
    """
    found = []
    for row in examples:
        batch = model.collate([row] * steps)
        if len(batch.inputs) != 1:
            return None
        ((name, given),) = batch.inputs.items()
        if not given.is_floating_point() or given.dim() not in (3, 4):
            return None
        share = ((torch.arange(steps) + 0.5) / steps).reshape(-1, *[1] * (given.dim() - 1))
        with evaluating(model.module), torch.enable_grad():
            x = (given * share).to(device_of(model.module)).requires_grad_(True)
            out = model.forward(replace(batch, inputs={name: x}), Want(frozenset({"logp"})))
            if not out.logp_BT.requires_grad:
                return None
            (gradient,) = torch.autograd.grad(out.logp_BT.exp().sum(), x)
        part = (gradient.mean(0).cpu() * given[0]).double().numpy()
        found.append(part if part.ndim == 2 else part.sum(axis=_colours(part)))
    return np.stack(found) if found else None


def _colours(part: np.ndarray) -> int:
    """The axis of a picture's colours: the shorter of the first and the last."""
    return 0 if part.shape[0] <= part.shape[-1] else 2
