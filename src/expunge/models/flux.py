"""FLUX: latents that a transformer moves along straight lines from noise to a picture, asked by two text encoders.

Its loss is that of flow matching (Lipman et al. 2022, arXiv:2210.02747): half the squared error of the velocity from
picture to noise; no likelihood. Nothing here was run on published weights. Shape suffixes as in models/latents.py.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.card import Example
from expunge.core.contracts import Batch, Want
from expunge.models.diffusion import SAMPLING
from expunge.models.latents import LatentDiffusion, open_part, scheduler_in, tokenizer_in
from expunge.models.weights import device_of

FLUX = "FluxPipeline"
PARTS = ("transformer", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler")
LONGEST = 512
"""Tokens of a prompt for the second encoder, as the pipeline has it."""
STRENGTH = 3.5
"""The guidance that distilled models (`guidance_embeds`) are told, as the pipeline has it."""
DEFAULTS = {"dropped": 0.0, "guidance": 1.0}


class AskedByBoth(nn.Module):
    """The transformer, which attends to the second encoder's states and is told the first one's vector."""

    def __init__(self, transformer: Any, text_encoder: Any, text_encoder_2: Any, length: int) -> None:
        super().__init__()
        self.transformer, self.text_encoder, self.text_encoder_2 = transformer, text_encoder, text_encoder_2
        self.length = length
        """Tokens of the first encoder; those of the second follow."""

    def forward(self, x_BCHW: Tensor, levels_B: Tensor, tokens_BL: Tensor) -> Tensor:
        """[B, C, H, W] velocities of latents with this share of noise, in 0-1."""
        count, _, height, width = x_BCHW.shape
        states_BLD = self.text_encoder_2(tokens_BL[:, self.length :]).last_hidden_state
        told = {"guidance": x_BCHW.new_full((count,), STRENGTH)} if self.transformer.config.guidance_embeds else {}
        found: Any = self.transformer(
            hidden_states=pack(x_BCHW),
            timestep=levels_B.to(x_BCHW),
            pooled_projections=self.text_encoder(tokens_BL[:, : self.length]).pooler_output,
            encoder_hidden_states=states_BLD,
            txt_ids=x_BCHW.new_zeros(states_BLD.shape[1], 3),
            img_ids=places(height // 2, width // 2).to(x_BCHW),
            **told,
        )
        return unpack(found.sample, height, width)


class Flux(LatentDiffusion):
    """A pipeline of flow matching."""

    within = "transformer."
    sides = ("transformer_blocks", "single_transformer_blocks")
    last = "proj_out"

    def __init__(
        self, module: Any, scheduler: Any, conditions: Mapping[str, Any], parts: Mapping[str, Any], longest: int
    ) -> None:
        super().__init__(FLUX, module, scheduler, conditions, parts)
        self.longest = longest
        self.condition_shape = (module.length + longest,)

    @property
    def unet(self) -> Any:
        return self.module.transformer

    @property
    def shape(self) -> tuple[int, int, int]:
        config = self.vae.config
        return int(config.in_channels), int(config.sample_size), int(config.sample_size)

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        config = self.vae.config
        side = int(config.sample_size) // 2 ** (len(config.block_out_channels) - 1)
        return int(self.unet.config.in_channels) // 4, side, side

    def tokens(self, prompt: str) -> Tensor:
        """[L] tokens of a prompt for the first encoder, and then for the second."""
        if prompt not in self._tokens:
            made = [
                tokenizer(prompt, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
                for tokenizer, length in (
                    (self.tokenizer, self.module.length),
                    (self.parts["tokenizer_2"], self.longest),
                )
            ]
            self._tokens[prompt] = torch.cat([one["input_ids"][0] for one in made])
        return self._tokens[prompt]

    def table_rows(self, examples: Sequence[Example]) -> list[int]:
        """The first encoder's tokens of their prompts' words."""
        first = {int(token) for row in examples for token in self.condition(row)[: self.module.length]}
        return sorted(first - set(self.tokenizer.all_special_ids))

    def _losses(self, batch: Batch, want: Want) -> Tensor:
        """[B] half the squared errors of the velocity, the mean over the draws."""
        device = device_of(self.module)
        times_BK, noise_BKCHW = batch.inputs["times"].to(device), batch.inputs["noise"].to(device)
        draws = times_BK.shape[1]
        x_RCHW = self.encode(batch.inputs["x"].to(device)).repeat_interleave(draws, 0)
        noise_RCHW = noise_BKCHW.flatten(0, 1)
        levels_R = (times_BK.flatten() + 1) / int(self.scheduler.config.num_train_timesteps)
        noisy_RCHW = x_RCHW.lerp(noise_RCHW, levels_R.reshape(-1, 1, 1, 1))
        conditions_R = batch.inputs["condition"].to(device).repeat_interleave(draws, 0)
        guess_RCHW = self.predict(noisy_RCHW, levels_R, conditions_R)
        error_R: Tensor = (guess_RCHW - (noise_RCHW - x_RCHW)).square().flatten(1).sum(1) / 2
        return error_R.reshape(-1, draws).mean(1)

    @torch.no_grad()
    def sample(self, start_BCHW: Tensor, conditions_B: Tensor, steps: int = SAMPLING) -> Tensor:
        """[B, C, H, W] pictures in 0-1, in even steps from noise: those of the pipeline where its schedule is not
        shifted."""
        device = device_of(self.module)
        x_BCHW, conditions_B = start_BCHW.to(device), conditions_B.to(device)
        levels = torch.linspace(1, 0, steps + 1, device=device)
        for level, following in itertools.pairwise(levels):
            x_BCHW = x_BCHW + (following - level) * self._guide(x_BCHW, level.expand(len(x_BCHW)), conditions_B)
        return self.decode(x_BCHW)


def pack(x_BCHW: Tensor) -> Tensor:
    """[B, H W / 4, 4 C] squares of two by two latents as one vector each."""
    count, channels, height, width = x_BCHW.shape
    squares = x_BCHW.reshape(count, channels, height // 2, 2, width // 2, 2)
    return squares.permute(0, 2, 4, 1, 3, 5).reshape(count, -1, 4 * channels)


def unpack(x_BPD: Tensor, height: int, width: int) -> Tensor:
    """[B, C, H, W] of what `pack` made."""
    squares = x_BPD.reshape(len(x_BPD), height // 2, width // 2, -1, 2, 2)
    return squares.permute(0, 3, 1, 4, 2, 5).reshape(len(x_BPD), -1, height, width)


def places(rows: int, columns: int) -> Tensor:
    """[rows columns, 3] where each vector stands: 0, its row, its column."""
    row, column = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    return torch.stack([torch.zeros_like(row), row, column], -1).reshape(-1, 3)


def open_flux(folder: Path, conditions: Mapping[str, Any] | None, *, meta: bool) -> Flux:
    """The pipeline of a folder; its structure alone, on the meta device, where `meta`."""
    from diffusers import AutoencoderKL, FluxTransformer2DModel
    from transformers import CLIPTextModel, T5EncoderModel

    kinds: dict[str, Any] = {
        "transformer": FluxTransformer2DModel,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel,
        "text_encoder_2": T5EncoderModel,
    }
    networks = {name: open_part(folder / name, kind, meta) for name, kind in kinds.items()}
    parts = {name: tokenizer_in(folder / name) for name in ("tokenizer", "tokenizer_2")}
    parts |= {"vae": networks.pop("vae"), "scheduler": scheduler_in(folder / "scheduler")}
    length = int(networks["text_encoder"].config.max_position_embeddings)
    module = AskedByBoth(**networks, length=length)
    longest = min(LONGEST, int(parts["tokenizer_2"].model_max_length))
    return Flux(module.eval(), parts["scheduler"], conditions or DEFAULTS, parts, longest)
