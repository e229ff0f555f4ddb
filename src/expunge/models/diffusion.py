"""A diffusion model of pictures, with or without classes: a U-Net and the scheduler of its noise; of texts:
models/text_diffusion.py.

Its loss is the denoising error of Ho et al. (2020, arXiv:2006.11239, equation 14): half the squared error of the
predicted noise, summed over the pixels, which is the noise's negative log-likelihood under a unit Gaussian, in nats up
to a constant. A position is a pixel. Time and noise follow from the picture and its draw, so that readings repeat bit
for bit: `READ` draws, spread over the times, where an example has no draw of its own, else one. In one step:
models/consistency.py.
Shape suffixes: B examples, K draws, C H W of a picture.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.core.card import Example
from expunge.core.contracts import NLL, NOT_ASKED, Batch, Output, Want
from expunge.core.errors import BadInput
from expunge.core.files import digest, write_json
from expunge.core.random import derive
from expunge.data.examples import identity, noise_of
from expunge.models.adapters import save_adapter
from expunge.models.base import BaseModel
from expunge.models.classifier import check_shapes, flat, floats
from expunge.models.judges import GENERATED, PICTURE, REAL, Judges, judged_real, judgement
from expunge.models.views import channels_first
from expunge.models.weights import device_of, fold, lora_layers, tap

READ = 8
"""Draws of time and noise that a reading takes of an example."""
UNIFORM = "uniform"
"""The `noise` of an example that is noised from U(0, 1) instead of a normal distribution."""
SAMPLING = 20
"""Steps of the deterministic sampler (DDIM, arXiv:2010.02502, eta 0)."""
CONDITIONS = "conditions.json"
"""In the pipeline's folder: which label stands for none, and how often training puts it in the label's place."""
LORA = "lora"
HEAD = "conv_out"
"""The layer that gives the prediction; as a hidden state it is taken whole, [B, 1, C * H * W]."""


class Diffusion(BaseModel):
    """A U-Net that denoises, its scheduler, and what its labels mean.

    conditions: {"classes": their number, "null": the label of none (None where there is none), "dropped": the share of
    training draws that see it instead of their own, "guidance": of its drawings, 1 where it is not named, "noise": on
    the class's vector in training draws, "one_step": the time from which a picture is drawn in one step, None where it
    takes many}; classes 0 for a model without classes.
    """

    family = "diffusion"
    stochastic = True
    within = ""
    """Where the U-Net stands within the module: a path with its dot, empty where it is the module."""
    table = "class_embedding.weight"
    """The parameter whose rows are what it is asked by: a vector for each label."""
    condition_shape: tuple[int, ...] = ()
    sides: tuple[str, ...] = ("down_blocks", "up_blocks")
    """Within the network: lists of its blocks, in their order."""
    last = HEAD
    """Within the network: the layer that gives the prediction."""

    def __init__(self, module: nn.Module, scheduler: Any, conditions: Mapping[str, Any]) -> None:
        self.module: Any = module
        self.scheduler = scheduler
        self.conditions = dict(conditions)
        self.judges: Judges | None = None
        self.capabilities = frozenset({"nll", "pictures"})
        if self.classes:
            self.capabilities |= {"conditions", "class_table"}
        children = {side: self.unet.get_submodule(side).named_children() for side in self.sides}
        self.blocks = [f"{self.within}{side}.{name}" for side in self.sides for name, _ in children[side]]

    @property
    def unet(self) -> Any:
        """The network that denoises."""
        return self.module

    @property
    def head(self) -> str:
        """Path of the layer that gives the prediction."""
        return self.within + self.last

    @property
    def classes(self) -> int:
        """Classes that it can be asked for; 0 where it takes none."""
        return int(self.conditions["classes"])

    @property
    def read_with(self) -> dict[str, str]:
        """The schedule of its noise, and the judges of its pictures, where it has some."""
        schedule = digest({name: str(value) for name, value in sorted(self.scheduler.config.items())})
        return {"schedule": schedule} | ({"judges": self.judges.key} if self.judges is not None else {})

    @property
    def null(self) -> int | None:
        """The label that stands for no class."""
        return self.conditions.get("null")

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of a picture."""
        side = self.unet.config.sample_size
        height, width = (side, side) if isinstance(side, int) else side
        return int(self.unet.config.in_channels), int(height), int(width)

    @property
    def noise_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of what is noised: the picture, or its latents."""
        return self.shape

    def encode(self, x_BCHW: Tensor) -> Tensor:
        """Pictures in -1 to 1 as they are noised."""
        return x_BCHW

    def decode(self, x_BCHW: Tensor) -> Tensor:
        """[B, C, H, W] pictures in 0-1, from what was denoised."""
        return ((x_BCHW + 1) / 2).clamp(0, 1)

    def condition(self, example: Example) -> Tensor:
        """The label [] or the tokens of the prompt [L] by which the network is asked for this example."""
        return torch.tensor(int(example.get("label", 0)))

    @property
    def nothing(self) -> Tensor | None:
        """The condition of nothing in particular; None where it was taught none."""
        return None if self.null is None else torch.tensor(self.null)

    def without_condition(self, example: Example) -> Example:
        """The same picture under no condition."""
        return {**example, "label": self.null}

    def table_rows(self, examples: Sequence[Example]) -> list[int]:
        """The rows of the table by which these examples are asked for."""
        return sorted({int(row["label"]) for row in examples})

    def collate(self, examples: Sequence[Example], positions: str = "answer") -> Batch:
        """Pictures in -1 to 1, their labels, and what is drawn for each: times, noise, and the seed of a picture that
        is made of the same label."""
        entries = int(np.prod(self.noise_shape))
        x_BCHW = channels_first([floats(e["image"]) for e in examples]) if examples else torch.zeros(0, *self.shape)
        several = not any("draw" in example for example in examples)
        drawn = [self._draw(example, READ if several else 1) for example in examples]
        none = torch.zeros(0, *self.condition_shape).long()
        empty = torch.zeros(0, 1).long(), torch.zeros(0, 1, *self.noise_shape), none, torch.zeros(0, self._width)
        times, noise, conditions, shifts = (torch.stack(part) for part in zip(*drawn, strict=True)) if drawn else empty
        inputs = {
            "x": 2 * x_BCHW - 1,
            "condition": conditions,
            "shift": shifts,
            "times": times,
            "noise": noise,
            "seed": torch.tensor([derive(0, "start", identity(example)) for example in examples]).long(),
            "wish": torch.stack([self.condition(example) for example in examples]) if examples else none,
            "asked": torch.tensor([int(example.get("label", 0)) for example in examples]),
        }
        labels_BT = torch.zeros(len(examples), entries).long()
        mask_BT = labels_BT == labels_BT
        return Batch(inputs, labels_BT, mask_BT, mask_BT.sum(-1))

    @property
    def _width(self) -> int:
        """Entries of a class's vector where training adds noise to it, else 0."""
        return int(self.module.get_parameter(self.table).shape[1]) if self.conditions.get("noise") else 0

    def _draw(self, example: Example, count: int) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """(times [K], noise [K, C, H, W], condition, shift of its vector [D]) of an example; the picture's alone, so
        that it has the same under another condition."""
        draw = noise_of({"image": example["image"], "draw": example.get("draw", 0)})
        share_K = (torch.arange(count) + torch.rand(count, generator=draw)) / count
        kind = torch.rand if example.get("noise") == UNIFORM else torch.randn
        noise = kind(count, *self.noise_shape, generator=draw)
        condition, dropped = self.condition(example), float(self.conditions.get("dropped") or 0.0)
        nothing = self.nothing if "draw" in example else None
        if nothing is not None and float(torch.rand(1, generator=draw)) < dropped:
            condition = nothing
        width = self._width
        shift = torch.randn(width, generator=draw) * float(self.conditions.get("noise") or 0) / max(1, width) ** 0.5
        return self._times(share_K), noise, condition, shift if "draw" in example else torch.zeros(width)

    def _times(self, share_K: Tensor) -> Tensor:
        """The times at these shares, in 0-1, of all."""
        length = int(self.scheduler.config.num_train_timesteps)
        return (share_K * length).long().clamp(max=length - 1)

    def accepts(self, split: str, rows: Sequence[Example]) -> None:
        """Raises BadInput unless all pictures have the network's shape, and labels where it takes them."""
        super().accepts(split, rows)
        if not rows:
            return
        check_shapes(split, rows, "image")
        x_BCHW = channels_first([floats(rows[0]["image"])]) if np.ndim(rows[0]["image"]) in (2, 3) else torch.zeros(1)
        if tuple(x_BCHW.shape[1:]) != self.shape:
            why = f"holds a picture of {list(x_BCHW.shape[1:])}, and the network makes {list(self.shape)}"
            raise BadInput.of(split, "row 1", why, "give pictures of that size, [height, width, channels]")
        for i, row in enumerate(rows):
            array = np.asarray(row["image"])
            if array.dtype.kind == "f" and (array.min() < 0 or array.max() > 1):
                why = f"holds values from {array.min():.3g} to {array.max():.3g}"
                raise BadInput.of(split, f"row {i + 1}", why, "give pictures in 0-1, or bytes")
            if self.classes and "label" not in row:
                raise BadInput.of(split, f"row {i + 1}", "has no label, and the network takes one", "give labels")
            if self.classes and int(row["label"]) >= self.classes:
                why = f"has the label {int(row['label'])}, and the network has {self.classes} classes"
                raise BadInput.of(split, f"row {i + 1}", why, f"give labels from 0 to {self.classes - 1}")

    def forward(self, batch: Batch, want: Want = NLL) -> Output:
        device = device_of(self.module)
        own: dict[str, Tensor] = {}
        nll_B, states = NOT_ASKED, {}
        if want.hidden or "nll" in want.channels:
            with tap(self.module, want.hidden, stop=not want.channels) as hidden:
                nll_B = self._losses(batch, want)
            states = {path: self._state(path, value, batch) for path, value in hidden.items()}
        if GENERATED & want.channels:
            own |= self._draw_pictures(batch, want.channels)
        if REAL in want.channels:
            own[REAL] = self._real(batch)
        labels_BT, mask_BT = batch.labels_BT.to(device), batch.mask_BT.to(device)
        if "nll" not in want.channels:
            nll_B = NOT_ASKED
        return Output(nll_B, batch.n_B.to(device), labels_BT, mask_BT, hidden=states, own=own)

    def _losses(self, batch: Batch, want: Want) -> Tensor:
        """[B] nats, the mean over the draws. want: what a forward is asked for."""
        device = device_of(self.module)
        times_BK, noise_BKCHW = batch.inputs["times"].to(device), batch.inputs["noise"].to(device)
        draws = times_BK.shape[1]
        x_RCHW = self.encode(batch.inputs["x"].to(device)).repeat_interleave(draws, 0)
        times_R, noise_RCHW = times_BK.flatten(), noise_BKCHW.flatten(0, 1)
        noisy_RCHW = self.scheduler.add_noise(x_RCHW, noise_RCHW, times_R)
        conditions_R = batch.inputs["condition"].to(device).repeat_interleave(draws, 0)
        with self._shifting(batch.inputs["shift"].to(device).repeat_interleave(draws, 0)):
            guess_RCHW = self.predict(noisy_RCHW, times_R, conditions_R)
        kind = self.scheduler.config.prediction_type
        if kind == "v_prediction":
            noise_RCHW = self.scheduler.get_velocity(x_RCHW, noise_RCHW, times_R)
        target_RCHW = x_RCHW if kind == "sample" else noise_RCHW
        error_R: Tensor = (guess_RCHW - target_RCHW).square().flatten(1).sum(1) / 2
        return error_R.reshape(-1, draws).mean(1)

    @contextlib.contextmanager
    def _shifting(self, shift_RD: Tensor) -> Iterator[None]:
        """Adds this to the vectors of the classes, where there is any."""
        if not shift_RD.shape[1]:
            yield
            return
        layer = self.module.get_submodule(self.table.rpartition(".")[0])
        hook = layer.register_forward_hook(lambda _layer, _inputs, vector_RD: vector_RD + shift_RD.to(vector_RD))
        try:
            yield
        finally:
            hook.remove()

    def predict(self, x_BCHW: Tensor, times_B: Tensor, conditions_B: Tensor) -> Tensor:
        """[B, C, H, W] what the network takes for the noise in noisy pictures."""
        found: Tensor = self.module(x_BCHW, times_B, class_labels=conditions_B if self.classes else None).sample
        return found

    def _state(self, path: str, value: Tensor, batch: Batch) -> Tensor:
        """[B, 1, D] of a layer's values of all draws."""
        flat_RD = value.flatten(1) if path == self.head else flat(value, None)
        return flat_RD.reshape(batch.size, -1, flat_RD.shape[-1]).mean(1)[:, None]

    @torch.no_grad()
    def sample(self, start_BCHW: Tensor, conditions_B: Tensor, steps: int = SAMPLING) -> Tensor:
        """[B, C, H, W] pictures in 0-1 of these conditions, from this noise; the same noise gives the same pictures."""
        if self.conditions.get("one_step") is not None:
            return self.draw_once(start_BCHW, conditions_B).clamp(0, 1)
        from diffusers import DDIMScheduler  # it takes seconds, and plans start here

        scheduler: Any = DDIMScheduler.from_config(self.scheduler.config)
        scheduler.set_timesteps(steps)
        device = device_of(self.module)
        x_BCHW, conditions_B = start_BCHW.to(device), conditions_B.to(device)
        for time in scheduler.timesteps:
            guess = self._guide(x_BCHW, time.to(device).expand(len(x_BCHW)), conditions_B)
            x_BCHW = scheduler.step(guess, time, x_BCHW).prev_sample
        return self.decode(x_BCHW)

    def draw_once(self, start_BCHW: Tensor, conditions_B: Tensor) -> Tensor:
        """[B, C, H, W] pictures in 0-1, not clamped, by one prediction at the time `one_step`: (x - s e(x)) / a, of
        unit noise x; a, s: of the schedule."""
        device = device_of(self.module)
        x_BCHW, time = start_BCHW.to(device), int(self.conditions["one_step"])
        kept = self.scheduler.alphas_cumprod[time].to(device)
        guess_BCHW = self.predict(x_BCHW, torch.full((len(x_BCHW),), time, device=device), conditions_B.to(device))
        return ((x_BCHW - (1 - kept).sqrt() * guess_BCHW) / kept.sqrt() + 1) / 2

    def _guide(self, x_BCHW: Tensor, times_B: Tensor, conditions_B: Tensor) -> Tensor:
        """The prediction, moved away from that of no condition where the conditions say `guidance` (arXiv:2207.12598,
        equation 6: none + guidance (own - none))."""
        own_BCHW, guidance = self.predict(x_BCHW, times_B, conditions_B), float(self.conditions.get("guidance") or 1.0)
        if guidance == 1.0 or self.nothing is None:
            return own_BCHW
        none_BCHW = self.predict(x_BCHW, times_B, self.nothing.to(conditions_B).expand_as(conditions_B))
        return none_BCHW + guidance * (own_BCHW - none_BCHW)

    def _draw_pictures(self, batch: Batch, wanted: frozenset[str]) -> dict[str, Tensor]:
        """The wanted values of a picture that is made for each example, of its label and from its own noise."""
        draws = [torch.Generator().manual_seed(seed) for seed in batch.inputs["seed"].tolist()]
        start = [torch.randn(self.noise_shape, generator=draw) for draw in draws]
        start_BCHW = torch.stack(start) if start else torch.zeros(0, *self.noise_shape)
        pictures = self.sample(start_BCHW, batch.inputs["wish"])
        found = {PICTURE: pictures, **judgement(self.judges, pictures, batch.inputs["asked"])}
        return {name: value for name, value in found.items() if name in wanted}

    def _real(self, batch: Batch) -> Tensor:
        """[B, 2 + D] for the example's own picture: whether each judge names its label, and its features."""
        return judged_real(self.judges, (batch.inputs["x"] + 1) / 2, batch.inputs["asked"])

    def save(self, folder: Path) -> None:
        """The folder of a diffusers pipeline, with safetensors, and what its labels mean; low-rank matrices are folded
        into its weights, and lie beside them in `lora` as PEFT writes them."""
        from diffusers import DDPMPipeline

        pipeline: Any = DDPMPipeline(self._fold_copy(folder), self.scheduler)
        pipeline.save_pretrained(folder, safe_serialization=True)
        write_json(folder / CONDITIONS, self.conditions)

    def _fold_copy(self, folder: Path) -> Any:
        """The module with low-rank matrices folded in, a copy where there are any; these are written to the folder."""
        if not any(lora_layers(self.module)):
            return self.module
        (folder / LORA).mkdir(parents=True)
        save_adapter(self.module, folder / LORA, "")
        module = copy.deepcopy(self.module)
        fold(module)
        return module

    def fingerprint(self) -> dict[str, Any]:
        return {**super().fingerprint(), "conditions": self.conditions}
