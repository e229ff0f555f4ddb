"""Training on changed pictures: random kernels, moves, noise and JPEG, drawn anew for each picture of each step."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from annotated_types import Ge, Le
from PIL import Image
from torch import Tensor, nn
from torch.nn.functional import affine_grid, grid_sample

from expunge.core.context import Context
from expunge.core.contracts import Example, Losses, Model, Update
from expunge.methods._seen import altering, check_pictures, like, planes
from expunge.methods.objective import plain_training
from expunge.methods.protecting import convolve

NAME = "augmented"
Share = Annotated[float, Ge(0), Le(1)]


def check(model: Model, data: Sequence[Example], **options: object) -> None:
    """Raises BadInput unless the model is a classifier of pictures."""
    check_pictures(model, data, NAME)


def train(
    fresh: Model,
    data: Sequence[Example],
    context: Context,
    *,
    kernels: Share = 1.0,
    shift: Share = 0.1,
    noise: Annotated[float, Ge(0)] = 0.1,
    quality: Annotated[int, Ge(0), Le(100)] = 0,
) -> Model:
    """Train on pictures that were changed at random, so that no one change tells the class.

    kernels: how strong a random 3 x 3 kernel is that each picture is convolved with, mixed with the picture itself
    (random convolutions, arXiv:2007.13003, with weights above 0); it breaks convolutions of each class. shift: the
    largest move, as a share of the side. noise: standard deviation of what is added to each pixel. quality: of a JPEG
    that each picture passes through (arXiv:2301.13838), which takes faint noise away; 0 for none. A picture keeps its
    own largest value; pixels in 0-1.
    """
    check(fresh, data)

    def change(x: Tensor) -> Tensor:
        if not x.numel():
            return x
        found = planes(x)
        found = _convolve_at_random(found, kernels) if kernels else found
        found = _move(found, shift) if shift else found
        found = compress(found, quality) if quality else found
        found = (found + noise * torch.randn_like(found)).clamp(0, 1) if noise else found
        return like(found, x)

    def update(losses: Losses, parameters: Sequence[nn.Parameter]) -> None:
        with altering(losses.model.module, change):
            for micro in losses:
                (loss,) = micro().values()
                loss.backward()
        losses.reduce_gradients(parameters)

    return plain_training(update=Update(update))(fresh, {"retain": list(data)}, context)


def _convolve_at_random(x_BCHW: Tensor, strength: float) -> Tensor:
    """The pictures under a kernel each, mixed with themselves, and at their own largest value."""
    count = len(x_BCHW)
    kernels_B33 = torch.rand(count, 3, 3, device=x_BCHW.device)
    kernels_B9 = kernels_B33.flatten(1)
    kernels_B9[torch.arange(count), torch.randint(9, (count,))] += 2.0  # one cell leads, as in a move or a blur
    own_B111 = strength * torch.rand(count, 1, 1, 1, device=x_BCHW.device)
    blurred_BCHW = convolve(x_BCHW, kernels_B33 / kernels_B33.sum((1, 2), keepdim=True))
    mixed_BCHW = (1 - own_B111) * x_BCHW + own_B111 * blurred_BCHW
    largest_B111 = x_BCHW.amax((1, 2, 3), keepdim=True)
    return mixed_BCHW * largest_B111 / mixed_BCHW.amax((1, 2, 3), keepdim=True).clamp(min=1e-6)


def _move(x_BCHW: Tensor, shift: float) -> Tensor:
    """The pictures, each moved by up to a share of the side both ways."""
    affine_B23 = torch.eye(2, 3, device=x_BCHW.device).repeat(len(x_BCHW), 1, 1)
    affine_B23[:, :, 2] = 2 * shift * (2 * torch.rand(len(x_BCHW), 2, device=x_BCHW.device) - 1)
    grid = affine_grid(affine_B23, list(x_BCHW.shape), align_corners=False)
    return grid_sample(x_BCHW, grid, align_corners=False)


def compress(x_BCHW: Tensor, quality: int) -> Tensor:
    """The pictures as a JPEG of that quality shows them."""
    found = []
    for one_CHW in (255 * x_BCHW.clamp(0, 1)).round().byte().cpu().numpy():
        file = io.BytesIO()
        picture = Image.fromarray(one_CHW[0] if len(one_CHW) == 1 else one_CHW.transpose(1, 2, 0))
        picture.save(file, "JPEG", quality=max(1, quality))
        seen = np.asarray(Image.open(file), dtype=np.float32) / 255
        found.append(seen[None] if seen.ndim == 2 else seen.transpose(2, 0, 1))
    return torch.from_numpy(np.stack(found)).to(x_BCHW.device)
