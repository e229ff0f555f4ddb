"""A consistency model of pictures: a U-Net that goes from any noise to the picture in one step.

Its loss is that of improved consistency training (Song and Dhariwal 2023, arXiv:2310.14189): how far apart it takes a
picture to be from two neighbouring levels of the same noise. It is no likelihood, and its unit is that of the pixels,
in -1 to 1, over that of the noise. Shape suffixes: B examples, R draws of all examples, C H W of a picture, N levels.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.contracts import Batch, Want
from expunge.core.files import write_json
from expunge.models.diffusion import CONDITIONS, Diffusion
from expunge.models.weights import device_of

PIPELINE = "ConsistencyModelPipeline"
MEAN, DEVIATION = -1.1, 2.0
"""Of the logarithm of the noise at which training draws look (section 3.5 of the paper)."""
ROUNDED = 0.00054
"""The distance, times the root of a picture's entries, below which the loss is quadratic (equation 8 there)."""
FINAL = 80
"""Pairs of neighbouring levels at the end of a training, and of a reading."""


def scheduler_of(pairs: int, **more: Any) -> Any:
    """The levels of diffusers' consistency models, of so many neighbouring pairs."""
    from diffusers import CMStochasticIterativeScheduler

    scheduler: Any = CMStochasticIterativeScheduler
    return scheduler(num_train_timesteps=pairs + 1, **more)


class Consistency(Diffusion):
    """A U-Net whose prediction, scaled by the noise, is the clean picture; the scheduler has the levels of noise."""

    def __init__(self, module: nn.Module, scheduler: Any, conditions: Mapping[str, Any]) -> None:
        super().__init__(module, scheduler, conditions)
        self.capabilities |= {"consistency"}
        self.set_pairs(int(scheduler.config.num_train_timesteps) - 1)

    def set_pairs(self, pairs: int) -> None:
        """Divides the noise into so many neighbouring pairs of levels."""
        own = {**self.scheduler.config, "num_train_timesteps": pairs + 1}
        self.scheduler = type(self.scheduler).from_config(own)
        self.levels_N = levels_of(self.scheduler.config)
        self._until_N = shares_of(self.levels_N).cumsum(0)

    def _times(self, share_K: Tensor) -> Tensor:
        """The lower levels of the pairs at these shares of the log-normal distribution of the noise."""
        return torch.searchsorted(self._until_N, share_K).clamp(max=len(self._until_N) - 1)

    def clean(self, x_BCHW: Tensor, levels_B: Tensor, conditions_B: Tensor) -> Tensor:
        """[B, C, H, W] the pictures, in -1 to 1, that it sees behind noise of these standard deviations."""
        level_B111, data = levels_B.reshape(-1, 1, 1, 1), float(self.scheduler.config.sigma_data)
        skip_B111, out_B111 = self.scheduler.get_scalings_for_boundary_condition(level_B111)
        times_B = 250 * (levels_B + 1e-44).log()  # as the scheduler's sigma_to_t
        guess_BCHW = self.predict(x_BCHW / (level_B111**2 + data**2).sqrt(), times_B, conditions_B)
        return out_B111 * guess_BCHW + skip_B111 * x_BCHW

    def _losses(self, batch: Batch, want: Want) -> Tensor:
        """[B] distances, the mean over the draws: between what it sees at a level and at the one below, the target."""
        device, inputs = device_of(self.module), batch.inputs
        times_BK, noise_BKCHW = inputs["times"].to(device), inputs["noise"].to(device)
        draws = times_BK.shape[1]
        x_RCHW, conditions_R, shift_RD = (
            inputs[name].to(device).repeat_interleave(draws, 0) for name in ("x", "condition", "shift")
        )
        levels_N = self.levels_N.to(device)
        below_R, above_R = levels_N[times_BK.flatten()], levels_N[times_BK.flatten() + 1]
        noise_RCHW = noise_BKCHW.flatten(0, 1)
        with self._shifting(shift_RD):
            target_RCHW = torch.zeros_like(x_RCHW)
            if "nll" in want.channels:  # first, for hidden states are those of the last pass
                with torch.no_grad():
                    noisy_RCHW = x_RCHW + below_R.reshape(-1, 1, 1, 1) * noise_RCHW
                    target_RCHW = self.clean(noisy_RCHW, below_R, conditions_R)
            found_RCHW = self.clean(x_RCHW + above_R.reshape(-1, 1, 1, 1) * noise_RCHW, above_R, conditions_R)
        error_R = pseudo_huber(found_RCHW, target_RCHW) / (above_R - below_R)
        return error_R.reshape(-1, draws).mean(1)

    @torch.no_grad()
    def sample(self, start_BCHW: Tensor, conditions_B: Tensor, steps: int = 1) -> Tensor:
        """[B, C, H, W] pictures in 0-1 of these conditions, from this unit noise, in one step whatever `steps` says."""
        device = device_of(self.module)
        level_B = torch.full((len(start_BCHW),), float(self.levels_N[-1]), device=device)
        start_BCHW = start_BCHW.to(device) * level_B[0] if len(level_B) else start_BCHW
        return ((self.clean(start_BCHW, level_B, conditions_B.to(device)) + 1) / 2).clamp(0, 1)

    def save(self, folder: Path) -> None:
        """The folder of a diffusers ConsistencyModelPipeline, with safetensors, and what its labels mean."""
        from diffusers import ConsistencyModelPipeline

        pipeline: Any = ConsistencyModelPipeline(self._fold_copy(folder), self.scheduler)
        pipeline.save_pretrained(folder, safe_serialization=True)
        write_json(folder / CONDITIONS, self.conditions)


def levels_of(config: Any) -> Tensor:
    """[N] standard deviations of the noise, rising, evenly spaced in their `rho`-th root (Karras et al. 2022)."""
    low, high = (float(end) ** (1 / config["rho"]) for end in (config["sigma_min"], config["sigma_max"]))
    return (torch.linspace(low, high, int(config["num_train_timesteps"]), dtype=torch.float64) ** config["rho"]).float()


def shares_of(levels_N: Tensor) -> Tensor:
    """[N - 1] how often the pair above each level is drawn: the mass of a log-normal distribution between the two."""
    mass_N = torch.erf((levels_N.double().log() - MEAN) / (math.sqrt(2) * DEVIATION))
    return (mass_N.diff() / (mass_N[-1] - mass_N[0])).float()


def pseudo_huber(one_BCHW: Tensor, other_BCHW: Tensor) -> Tensor:
    """[B] sqrt(|one - other|^2 + c^2) - c: a distance, but for the smallest ones; c = .00054 sqrt(entries)."""
    apart_BD = (one_BCHW - other_BCHW).flatten(1)
    rounded = ROUNDED * math.sqrt(apart_BD.shape[1])
    return (apart_BD.square().sum(1) + rounded**2).sqrt() - rounded
