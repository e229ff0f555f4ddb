"""An encoder of pictures that was trained without labels: its loss is that of its pretext task.

A network maps pictures [B, C, H, W] to embeddings [B, D]; the pretext's head stands on it. An example has one position.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from expunge.core.card import Example
from expunge.core.contracts import NLL, NOT_ASKED, Batch, Output, Want
from expunge.core.errors import BadInput
from expunge.core.files import write_json
from expunge.data.examples import noise_of
from expunge.models.base import BaseModel
from expunge.models.classifier import NORMS, check_shapes, flat, floats
from expunge.models.pretext import Seen, make_pretext
from expunge.models.views import Views, channels_first
from expunge.models.weights import device_of, snapshot, tap

FILE = "encoder.json"
EMBEDDING, VIEWS = "embedding", "view_embeddings"


class Network(nn.Module):
    """The network and, on it, the head of the pretext task."""

    def __init__(self, network: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.head = head

    def forward(self, x_BCHW: Tensor) -> Tensor:
        """[B, D] embeddings: what the encoder is used for, without the head."""
        embedding: Tensor = self.network(x_BCHW)
        return embedding


class Encoder(BaseModel):
    """A network, the pretext task that trains it, and the recipe to build both again.

    build: {"encoder", "arguments", "width", "pretext", "views"}, as train.yaml has them, defaults filled in.
    """

    family = "encoder"
    stochastic = True

    def __init__(self, module: Network, build: Mapping[str, Any]) -> None:
        ((name, options),) = build["pretext"].items()
        self.module: Any = module
        self.build = dict(build)
        self.pretext = make_pretext(name, options)
        self.views = Views(**build["views"])
        self.together = self.pretext.together
        self.coupled = self.together > 0 or any(isinstance(part, NORMS) for part in module.modules())
        self.capabilities = frozenset({"nll", EMBEDDING})
        parts = module.network.named_children()
        self.blocks = [f"network.{name}" for name, part in parts if any(True for _ in part.parameters())]

    def collate(self, examples: Sequence[Example], positions: str = "answer") -> Batch:
        """Pictures as they are, and views of each that follow from the picture and its draw: never from a label."""
        x = channels_first([floats(example["image"]) for example in examples]) if examples else torch.zeros(0, 1, 1, 1)
        # The identity of the picture alone: with another label beside it, it has the same views.
        draws = [noise_of({"image": example["image"], "draw": example.get("draw", 0)}) for example in examples]
        return Batch.of_examples({"x": x, "views": self.views.of(x, draws)}, torch.zeros(len(examples)).long())

    def accepts(self, split: str, rows: Sequence[Example]) -> None:
        """Raises BadInput unless all pictures have one shape, which the network takes."""
        super().accepts(split, rows)
        if not rows:
            return
        if "image" not in rows[0]:
            raise BadInput.of(
                split, "row 1", "holds a text, and the encoder is of pictures", "give examples with image"
            )
        check_shapes(split, rows, "image")
        if np.ndim(rows[0]["image"]) not in (2, 3):
            why = f"holds an image of {np.ndim(rows[0]['image'])} dimensions"
            raise BadInput.of(split, "row 1", why, "give [height, width] or [height, width, channels]")
        x = channels_first([floats(rows[0]["image"])]).to(device_of(self.module))
        try:
            with torch.no_grad():
                self.module(x)
        except Exception as error:  # a network of anyone's on pictures of anyone's
            first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            fix = "give pictures of the size that it takes"
            raise BadInput.of(split, "row 1", f"does not fit the network ({first_line})", fix) from None

    def forward(self, batch: Batch, want: Want = NLL) -> Output:
        device = device_of(self.module)
        own, nll_B, states = {}, NOT_ASKED, {}
        if want.hidden or {"nll", VIEWS} & want.channels:
            with tap(self.module, want.hidden, stop=not want.channels) as hidden:
                h_P2BD = self.embed_views(batch)
                if "nll" in want.channels:
                    nll_B = self.losses(h_P2BD, batch)
                if VIEWS in want.channels:
                    own[VIEWS] = h_P2BD.flatten(0, 1).transpose(0, 1)
            seen = self.attention(batch)
            states = {path: self._own(flat(value, seen), batch).mean(1)[:, None] for path, value in hidden.items()}
        if EMBEDDING in want.channels:
            own[EMBEDDING] = self.embed(batch)
        labels_B1, mask_B1 = batch.labels_BT.to(device), batch.mask_BT.to(device)
        return Output(nll_B, batch.n_B.to(device), labels_B1, mask_B1, hidden=states, own=own)

    def losses(self, h_P2BD: Tensor, batch: Batch) -> Tensor:
        """[B] the loss of each example, the mean over its pairs of views."""
        device, losses = device_of(self.module), []
        x_BCHW, views_BP2CHW = batch.inputs["x"].to(device), batch.inputs["views"].to(device)
        for h_2BD, views_2BCHW in zip(h_P2BD, views_BP2CHW.permute(1, 2, 0, 3, 4, 5), strict=True):
            seen = Seen(x_BCHW, views_2BCHW, self.module)
            losses.append(self.pretext.losses_of(self.module.head, h_2BD, seen))
        return torch.stack(losses).mean(0)

    def embed(self, batch: Batch) -> Tensor:
        """[B, D] embeddings of the examples as they are."""
        embedding_BD: Tensor = self.module(batch.inputs["x"].to(device_of(self.module)))
        return embedding_BD

    def embed_views(self, batch: Batch) -> Tensor:
        """[P, 2, B, D] embeddings of each example's pairs of views."""
        views_RCHW = batch.inputs["views"].to(device_of(self.module)).flatten(0, 2)
        return self.pair_up(self.module(views_RCHW), batch)

    def attention(self, batch: Batch) -> Tensor | None:
        """[views, positions] which positions of the views count; None where all do."""
        return None

    def pair_up(self, h_RD: Tensor, batch: Batch) -> Tensor:
        """[P, 2, B, D] of the embeddings of all views, an example's one after another."""
        return self._own(h_RD, batch).unflatten(1, (self.views.pairs, 2)).permute(1, 2, 0, 3)

    def _own(self, values_RD: Tensor, batch: Batch) -> Tensor:
        """[B, views, D] of values of all views, an example's one after another."""
        return values_RD.unflatten(0, (batch.size, 2 * self.views.pairs))

    def save(self, folder: Path) -> None:
        """model.safetensors, and in encoder.json how to build the network, its task and its views."""
        state = {name: value.contiguous() for name, value in snapshot(self.module).items()}
        save_file(state, folder / "model.safetensors")
        write_json(folder / FILE, self.build)

    def fingerprint(self) -> dict[str, Any]:
        return {**super().fingerprint(), "build": self.build}
