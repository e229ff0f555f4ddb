"""An encoder that learns by in-batch contrast, as a family of another package: the loss of a vector depends on the
others."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from expunge.core.channels import Channel
from expunge.core.contracts import NLL, NOT_ASKED, Batch, Example, Output, Want
from expunge.core.files import read_json, write_json
from expunge.core.random import derive
from expunge.models.base import BaseModel
from expunge.models.family import Family, Source
from expunge.models.weights import device_of, tap

FILE, KEY, TEMPERATURE = "contrast.json", "contrast", 0.2


class Contrast(BaseModel):
    """NT-Xent between two fixed views of each vector; in eval mode eight vectors at a time, in the split's order."""

    family = "contrast"
    coupled = True
    together = 8

    def __init__(self, sizes: Mapping[str, int]) -> None:
        self.sizes = dict(sizes)
        inputs, hidden, width = self.sizes["inputs"], self.sizes["hidden"], self.sizes["width"]
        self.module: nn.Module = nn.Sequential(nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, width)).eval()
        self.blocks = ["0", "2"]

    def collate(self, examples: Sequence[Example], positions: str = "answer") -> Batch:
        x_BD = torch.tensor([example["features"] for example in examples], dtype=torch.float32)
        x_BD = x_BD.reshape(len(examples), self.sizes["inputs"])
        left_BD, right_BD = x_BD.clone(), x_BD.clone()
        left_BD[:, ::2] *= 0.5
        right_BD[:, 1::2] *= 0.5
        return Batch.of_examples(
            {"x": torch.stack([left_BD, right_BD], 1)}, torch.zeros(len(examples), dtype=torch.long)
        )

    def forward(self, batch: Batch, want: Want = NLL) -> Output:
        device = device_of(self.module)
        x_B2D = batch.inputs["x"].to(device)
        with tap(self.module, want.hidden) as hidden:
            z_B2W = self.module(x_B2D.flatten(0, 1)).unflatten(0, x_B2D.shape[:2])
        states = {path: value.unflatten(0, x_B2D.shape[:2]).mean(1)[:, None] for path, value in hidden.items()}
        z_B2W = nn.functional.normalize(z_B2W, dim=-1)
        nll_B = self._contrast(z_B2W) if want.channels & {"nll"} else NOT_ASKED
        own = {"embedding": z_B2W.mean(1)} if "embedding" in want.channels else {}
        grid_B1, mask_B1 = batch.labels_BT.to(device), batch.mask_BT.to(device)
        return Output(nll_B, batch.n_B.to(device), grid_B1, mask_B1, hidden=states, own=own)

    @staticmethod
    def _contrast(z_B2W: Tensor) -> Tensor:
        """[B] mean over a vector's two views of the cross-entropy with which a view finds the other among all."""
        n = z_B2W.shape[0]
        z_RW = z_B2W.transpose(0, 1).flatten(0, 1)
        alike_RR = z_RW @ z_RW.T / TEMPERATURE
        alike_RR = alike_RR.masked_fill(torch.eye(2 * n, dtype=torch.bool, device=z_RW.device), -1e9)
        other_R = torch.arange(2 * n, device=z_RW.device).roll(n)
        return nn.functional.cross_entropy(alike_RR, other_R, reduction="none").view(2, n).mean(0)

    def save(self, folder: Path) -> None:
        save_file({k: v.contiguous() for k, v in self.module.state_dict().items()}, folder / "model.safetensors")
        write_json(folder / FILE, self.sizes)


def claims(source: Source) -> bool:
    return KEY in source if isinstance(source, Mapping) else (Path(source) / FILE).is_file()


def open_contrast(source: Any, *, trust_code: bool, meta: bool, dtype: torch.dtype | None) -> Contrast:
    with torch.device("meta" if meta else "cpu"):
        model = Contrast(read_json(Path(source) / FILE))
    if not meta:
        model.module.load_state_dict(load_file(Path(source) / "model.safetensors"))
    return model


def fresh(
    spec: Mapping[str, Any], examples: Sequence[Example], *, seed: int, trust_code: bool, like: Any, meta: bool
) -> Contrast:
    torch.manual_seed(derive(seed, "weights"))
    with torch.device("meta" if meta else "cpu"):
        return Contrast(spec[KEY])


def show(example: Example) -> str:
    """The vector as a line."""
    points = " ".join(f"{12 * i},{40 - 10 * value:.1f}" for i, value in enumerate(example["features"]))
    line = f'<polyline fill="none" stroke="black" points="{points}"/>'
    return f'<svg xmlns="http://www.w3.org/2000/svg" width="100" height="80">{line}</svg>'


FAMILY = Family(
    name="contrast",
    title="contrast",
    claims=claims,
    open=open_contrast,
    fresh=fresh,
    example_forms=(("features",),),
    channels=("nll", Channel(name="embedding", words="embeddings", unit="none")),
    show=show,
)
