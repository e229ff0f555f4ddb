"""Pipelines of latents: Stable Diffusion 1 and 2, and SDXL; with a transformer: models/flux.py.

An autoencoder makes latents of a picture, which are noised and denoised; it is part of no method and stays as it is.
Pictures are encoded by the mean of their latents, so that readings repeat. Nothing here was run on published weights.
Shape suffixes as in models/text_diffusion.py.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.core.errors import BadInput
from expunge.core.files import read_json, write_json
from expunge.models.diffusion import CONDITIONS
from expunge.models.text_diffusion import Asked, TextDiffusion
from expunge.models.weights import device_of

STABLE, XL = "StableDiffusionPipeline", "StableDiffusionXLPipeline"
PARTS = {
    STABLE: ("unet", "vae", "text_encoder", "tokenizer", "scheduler"),
    XL: ("unet", "vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2", "scheduler"),
}
"""Parts of a pipeline that are opened; a safety checker is none, and is not in what is saved."""
NETWORKS = ("unet", "transformer", "vae", "text_encoder", "text_encoder_2")
"""Parts that have weights."""
DEFAULTS = {"dropped": 0.1, "guidance": 7.5}
"""Of a folder without conditions.json: as Stable Diffusion was trained, and as its pipeline draws."""
OWN: dict[str, Any] = {"local_files_only": True}


class AskedTwice(Asked):
    """SDXL's U-Net and its two text encoders, of which the second also gives one vector for the whole prompt."""

    def __init__(self, unet: Any, text_encoder: Any, text_encoder_2: Any, padding: tuple[int, int, int]) -> None:
        super().__init__(unet, text_encoder)
        self.text_encoder_2 = text_encoder_2
        self.end, self.second, self.side = padding
        """The token that ends a prompt, the one that pads it for the second encoder, and the picture's side."""

    def _both(self, tokens_BL: Tensor) -> tuple[Tensor, Tensor]:
        """(states [B, L, D], vectors [B, E]); of a prompt without a word zeros, as the pipeline has it."""
        ended_BL = ((tokens_BL == self.end).cumsum(1) - (tokens_BL == self.end).long()) > 0
        second_BL = tokens_BL.masked_fill(ended_BL, self.second)
        one = self.text_encoder(tokens_BL, output_hidden_states=True)
        two = self.text_encoder_2(second_BL, output_hidden_states=True)
        words_B = (tokens_BL[:, 1] != self.end).to(two.text_embeds.dtype)
        states_BLD = torch.cat([one.hidden_states[-2], two.hidden_states[-2]], -1)
        return states_BLD * words_B[:, None, None], two.text_embeds * words_B[:, None]

    def states(self, tokens_BL: Tensor) -> Tensor:
        return self._both(tokens_BL)[0]

    def forward(self, x_BCHW: Tensor, times_B: Tensor, tokens_BL: Tensor) -> Tensor:
        states_BLD, vectors_BE = self._both(tokens_BL)
        sizes_B6 = vectors_BE.new_tensor([self.side, self.side, 0, 0, self.side, self.side]).expand(len(x_BCHW), 6)
        more = {"text_embeds": vectors_BE, "time_ids": sizes_B6}
        guess: Any = self.unet(x_BCHW, times_B, encoder_hidden_states=states_BLD, added_cond_kwargs=more)
        guess_BCHW: Tensor = guess.sample
        return guess_BCHW


class LatentDiffusion(TextDiffusion):
    """A pipeline of latents. parts: all that the pipeline is built of, by name; None on the meta device."""

    def __init__(
        self, name: str, module: Asked, scheduler: Any, conditions: Mapping[str, Any], parts: Mapping[str, Any]
    ) -> None:
        self.name, self.parts, self.vae = name, dict(parts), parts["vae"].requires_grad_(False).eval()
        super().__init__(module, scheduler, conditions, parts["tokenizer"])

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        return super().shape

    @property
    def shape(self) -> tuple[int, int, int]:
        _, height, width = self.noise_shape
        times = 2 ** (len(self.vae.config.block_out_channels) - 1)
        return int(self.vae.config.in_channels), height * times, width * times

    @torch.no_grad()
    def encode(self, x_BCHW: Tensor) -> Tensor:
        """[B, c, h, w] latents of pictures in -1 to 1: the means of the autoencoder's distributions, scaled."""
        config = self.vae.config
        mean_Bchw = self.vae.to(x_BCHW.device).encode(x_BCHW).latent_dist.mode()
        latents_Bchw: Tensor = (mean_Bchw - (config.shift_factor or 0.0)) * config.scaling_factor
        return latents_Bchw

    @torch.no_grad()
    def decode(self, x_BCHW: Tensor) -> Tensor:
        config = self.vae.config
        latents_Bchw = x_BCHW / config.scaling_factor + (config.shift_factor or 0.0)
        return super().decode(self.vae.to(device_of(self.module)).decode(latents_Bchw).sample)

    def save(self, folder: Path) -> None:
        """The pipeline's folder, as its class in diffusers writes and opens it, with safetensors."""
        import diffusers

        module = self._fold_copy(folder)
        own = {name: getattr(module, name) for name in NETWORKS if hasattr(module, name)}
        more = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
        pipeline = getattr(diffusers, self.name)(**self.parts, **own, **(more if self.name == STABLE else {}))
        pipeline.save_pretrained(folder, safe_serialization=True)
        write_json(folder / CONDITIONS, self.conditions)


def check_parts(folder: Path, name: str, parts: tuple[str, ...], field: str) -> None:
    """Raises BadInput where a part of the pipeline is missing."""
    for part in parts:
        if not (folder / part).is_dir():
            why = f"holds no {part}, which a {name} has"
            raise BadInput.of(field, str(folder), why, "save the whole pipeline again")


def open_latents(folder: Path, name: str, conditions: Mapping[str, Any] | None, *, meta: bool) -> LatentDiffusion:
    """The pipeline of a folder; its structure alone, on the meta device, where `meta`. Raises BadInput."""
    from diffusers import AutoencoderKL, DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextModel, CLIPTextModelWithProjection

    networks: dict[str, Any] = {
        "unet": UNet2DConditionModel,
        "vae": AutoencoderKL,
        "text_encoder": CLIPTextModel,
        "text_encoder_2": CLIPTextModelWithProjection,
    }
    parts = {part: open_part(folder / part, networks[part], meta) for part in PARTS[name] if part in networks}
    parts |= {part: tokenizer_in(folder / part) for part in PARTS[name] if part.startswith("tokenizer")}
    unet, encoder = parts.pop("unet"), parts.pop("text_encoder")
    module = Asked(unet, encoder)
    if name == XL:
        times = 2 ** (len(parts["vae"].config.block_out_channels) - 1)
        padding = (*_padding_of(parts), int(unet.config.sample_size) * times)
        module = AskedTwice(unet, encoder, parts.pop("text_encoder_2"), padding)
    parts["scheduler"] = scheduler_in(folder / "scheduler")
    noise: Any = DDPMScheduler.from_config(parts["scheduler"].config)
    return LatentDiffusion(name, module.eval(), noise, conditions or DEFAULTS, parts)


def open_part(folder: Path, kind: Any, meta: bool) -> Any:
    """A network of a pipeline, in float32, of diffusers or transformers."""
    if not meta:
        more = {"low_cpu_mem_usage": False} if hasattr(kind, "load_config") else {}
        return kind.from_pretrained(folder, use_safetensors=True, torch_dtype=torch.float32, **more, **OWN)
    with torch.device("meta"):
        if hasattr(kind, "load_config"):
            return kind.from_config(kind.load_config(folder, **OWN))
        return kind(kind.config_class.from_pretrained(folder, **OWN))


def tokenizer_in(folder: Path) -> Any:
    """The tokenizer of a folder, without code of its own."""
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(folder, trust_remote_code=False, **OWN)


def scheduler_in(folder: Path) -> Any:
    """The scheduler of a folder, of whichever of diffusers' classes. Raises BadInput for another class."""
    import diffusers

    name = str(read_json(folder / "scheduler_config.json").get("_class_name"))
    kind = getattr(diffusers, name, None) if name.endswith("Scheduler") else None
    if kind is None or not hasattr(kind, "from_pretrained"):
        raise BadInput.of("model", name, "is no scheduler of diffusers", "save the pipeline with one of them")
    return kind.from_pretrained(folder, **OWN)


def _padding_of(parts: Mapping[str, Any]) -> tuple[int, int]:
    """(the token that ends a prompt, that which pads the second encoder's). Raises BadInput where words differ."""
    one, two = parts["tokenizer"], parts["tokenizer_2"]
    if one.get_vocab() != two.get_vocab():
        raise BadInput.of("model", "tokenizer_2", "has other tokens than the first tokenizer", "give SDXL's own two")
    return int(one.eos_token_id), int(two.pad_token_id)
