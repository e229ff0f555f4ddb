"""A denoiser of feature vectors as a family of another package: a stochastic loss, no labels, no tokens, no answers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from expunge.core.contracts import NLL, NOT_ASKED, Batch, Example, Output, Want
from expunge.core.files import read_json, write_json
from expunge.core.random import derive
from expunge.data.examples import noise_of
from expunge.models.base import BaseModel
from expunge.models.family import Family, Source
from expunge.models.weights import device_of, tap

FILE, KEY = "denoiser.json", "denoiser"


class Network(nn.Module):
    """Predicts the noise in a noisy vector, given how noisy it is."""

    def __init__(self, inputs: int, hidden: int = 48) -> None:
        super().__init__()
        self.first = nn.Linear(inputs + 1, hidden)
        self.second = nn.Linear(hidden, hidden)
        self.last = nn.Linear(hidden, inputs)

    def forward(self, noisy_BD: Tensor, t_B: Tensor) -> Tensor:
        hidden = torch.relu(self.first(torch.cat([noisy_BD, t_B[:, None]], -1)))
        return self.last(torch.relu(self.second(hidden)))


class Denoiser(BaseModel):
    """Its loss is the squared error of the predicted noise, at times and noises that follow from the example's draw."""

    family = "denoiser"
    stochastic = True
    draws = 4
    """Times and noises per example and draw, over which the error is averaged."""

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = dict(sizes)
        self.module = Network(**self.sizes).eval()
        self.blocks = ["first", "second"]

    def collate(self, examples: Sequence[Example], positions: str = "answer") -> Batch:
        x_BD = torch.tensor([example["features"] for example in examples], dtype=torch.float32)
        x_BD = x_BD.reshape(len(examples), self.sizes["inputs"])
        t_BK = torch.zeros(len(examples), self.draws)
        noise_BKD = torch.zeros(len(examples), self.draws, self.sizes["inputs"])
        for b, example in enumerate(examples):
            drawn = noise_of(example)
            t_BK[b] = 0.1 + 0.8 * torch.rand(self.draws, generator=drawn)
            noise_BKD[b] = torch.randn(noise_BKD.shape[1:], generator=drawn)
        return Batch.of_examples(
            {"x": x_BD, "t": t_BK, "noise": noise_BKD}, torch.zeros(len(examples), dtype=torch.long)
        )

    def forward(self, batch: Batch, want: Want = NLL) -> Output:
        device = device_of(self.module)
        x_BD, t_BK, noise_BKD = (batch.inputs[name].to(device) for name in ("x", "t", "noise"))
        share_BK1 = t_BK[..., None]
        noisy_BKD = (1 - share_BK1).sqrt() * x_BD[:, None] + share_BK1.sqrt() * noise_BKD
        with tap(self.module, want.hidden) as hidden:
            guess_RD = self.module(noisy_BKD.flatten(0, 1), t_BK.flatten())
        states = {path: value.unflatten(0, t_BK.shape).mean(1)[:, None] for path, value in hidden.items()}
        error_B = (guess_RD.view_as(noise_BKD) - noise_BKD).square().mean((1, 2))
        nll_B = error_B if want.channels else NOT_ASKED
        return Output(nll_B, batch.n_B.to(device), batch.labels_BT.to(device), batch.mask_BT.to(device), hidden=states)

    def save(self, folder: Path) -> None:
        save_file({k: v.contiguous() for k, v in self.module.state_dict().items()}, folder / "model.safetensors")
        write_json(folder / FILE, self.sizes)


def claims(source: Source) -> bool:
    return KEY in source if isinstance(source, Mapping) else (Path(source) / FILE).is_file()


def open_denoiser(source: Any, *, trust_code: bool, meta: bool, dtype: torch.dtype | None) -> Denoiser:
    with torch.device("meta" if meta else "cpu"):
        model = Denoiser(read_json(Path(source) / FILE))
    if not meta:
        model.module.load_state_dict(load_file(Path(source) / "model.safetensors"))
    return model


def fresh(
    spec: Mapping[str, Any], examples: Sequence[Example], *, seed: int, trust_code: bool, like: Any, meta: bool
) -> Denoiser:
    torch.manual_seed(derive(seed, "weights"))
    with torch.device("meta" if meta else "cpu"):
        return Denoiser(spec[KEY])


def show(example: Example) -> str:
    """The vector as bars."""
    bars = "".join(
        f'<rect x="{12 * i}" y="{40 - 10 * max(0, v):.1f}" width="10" height="{10 * abs(v):.1f}"/>'
        for i, v in enumerate(example["features"])
    )
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="100" height="80">{bars}</svg>'


FAMILY = Family(
    name="denoiser",
    title="denoiser",
    claims=claims,
    open=open_denoiser,
    fresh=fresh,
    example_forms=(("features",),),
    kept="knowledge",
    knowledge=lambda error: 1 / (1 + error),
    show=show,
)
