"""Pairs of views of a picture, by random changes that leave what it shows; they follow from its draw."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor
from torch.nn.functional import affine_grid, grid_sample

Share = Annotated[float, Field(ge=0, le=0.5)]


class Views(BaseModel):
    """How many pairs of views a picture has in one reading, and how much two views of one picture differ.

    shift: the largest move, as a share of the side. scale: the largest change of size, as a share; a crop of a small
    picture often takes away what it shows, a change of size does not. crop: the smallest share of the area that a crop
    keeps; 1 for none. noise: standard deviation of what is added to each pixel. flip: whether half of the views are
    mirrored. pairs: pairs of views over which an example's loss is averaged; more tell better what was learned by
    heart, and cost as much more.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    shift: Share = 0.1
    scale: Share = 0.15
    crop: Annotated[float, Field(gt=0, le=1)] = 1.0
    noise: Annotated[float, Field(ge=0, le=10)] = 0.1
    flip: bool = False
    pairs: Annotated[int, Field(ge=1, le=64)] = 1

    def of(self, x_BCHW: Tensor, draws: Sequence[torch.Generator]) -> Tensor:
        """[B, pairs, 2, C, H, W] the views of each picture, drawn by its generator alone."""
        if not draws:
            return x_BCHW.new_zeros(0, self.pairs, 2, *x_BCHW.shape[1:])
        u_R7 = torch.cat([torch.rand(2 * self.pairs, 7, generator=draw) for draw in draws])
        pictures_RCHW = x_BCHW.repeat_interleave(2 * self.pairs, 0)
        grid = affine_grid(self._affine(u_R7), list(pictures_RCHW.shape), align_corners=False)
        moved_RCHW = grid_sample(pictures_RCHW, grid, align_corners=False)
        views = moved_RCHW.unflatten(0, (len(draws), self.pairs, 2))
        if self.noise:
            views = views + self.noise * torch.stack([torch.randn(views.shape[1:], generator=draw) for draw in draws])
        return views

    def _affine(self, u_R7: Tensor) -> Tensor:
        """[R, 2, 3] the map from a view's places to the picture's, both in -1..1, from uniform draws."""
        way_R7 = 2 * u_R7 - 1
        zoom_R = 1 / (1 + self.scale * way_R7[:, 0])
        crop_R = (self.crop + (1 - self.crop) * u_R7[:, 1]).sqrt()
        mirror_R = torch.where(u_R7[:, 6] < 0.5, -1.0, 1.0) if self.flip else torch.ones(len(u_R7))
        move_R2 = 2 * self.shift * way_R7[:, 2:4] + (1 - crop_R[:, None]) * way_R7[:, 4:6]
        size_R = zoom_R * crop_R
        none_R = torch.zeros(len(u_R7))
        across_R3 = torch.stack([size_R * mirror_R, none_R, move_R2[:, 0]], -1)
        down_R3 = torch.stack([none_R, size_R, move_R2[:, 1]], -1)
        return torch.stack([across_R3, down_R3], 1)


def channels_first(pixels: Sequence[Any]) -> Tensor:
    """[B, C, H, W] of pictures [H, W] or [H, W, C], float32."""
    x = torch.stack([torch.as_tensor(one) for one in pixels])
    return x[:, None] if x.dim() == 3 else x.movedim(-1, 1).contiguous()
