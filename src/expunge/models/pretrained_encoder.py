"""Encoders of texts or pictures that transformers wrote: the same embeddings, with a loss to forget by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.card import Example
from expunge.core.contracts import Batch
from expunge.core.errors import BadInput
from expunge.data.examples import noise_of
from expunge.models.base import BaseModel
from expunge.models.classifier import check_pixels, flat, positions_of, to_bytes, to_colour
from expunge.models.dropout import LARGE, row_dropout
from expunge.models.encoder import Encoder, Network
from expunge.models.sentence_files import SentenceFiles
from expunge.models.views import Views
from expunge.models.weights import device_of, find_blocks

TASK = {"simcse": {"temperature": 0.05, "together": 64}}
"""What the embeddings themselves are contrasted by: a folder holds no head of a task."""
DROPPED = 0.1
"""The share that two views of a text drop of the hidden states, as the paper's models do."""


class Pooled(nn.Module):
    """A transformer of texts or a network of pictures, and on it one embedding of each example."""

    def __init__(self, inner: nn.Module, pooling: str = "mean") -> None:
        super().__init__()
        self.inner, self.pooling = inner, pooling

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """[B, D] unit vectors. inputs: `pixel_values`, or what the tokenizer gives."""
        out = self.inner(**inputs)
        states: Tensor = out.last_hidden_state
        if states.dim() == 4:  # a convolutional network pools itself, and may standardise what it pooled
            pooled = getattr(out, "pooler_output", None)
            found = flat(states, None) if pooled is None else pooled.flatten(1)
        elif self.pooling == "cls":
            found = states[:, 0]
        else:
            found = flat(states, inputs.get("attention_mask"))
        return nn.functional.normalize(found, dim=-1)


class PretrainedEncoder(Encoder):
    """An encoder in a folder of transformers. processor: its tokenizer or image processor; texts: which of both."""

    def __init__(self, inner: nn.Module, processor: Any, texts: bool, files: SentenceFiles) -> None:
        build = {"pretext": TASK, "views": Views().model_dump(), "pooling": files.pooling}
        super().__init__(Network(Pooled(inner, files.pooling), nn.Identity()).eval(), build)
        self.processor, self.texts, self.files = processor, texts, files
        self.blocks = [f"network.inner.{path}" for path in find_blocks(inner)] or self.blocks

    @property
    def inner(self) -> Any:
        """transformers' own network."""
        return self.module.network.inner

    def collate(self, examples: Sequence[Example], positions: str = "answer") -> Batch:
        """Tokens and the seeds of their views, or pictures as the processor gives them and views of these."""
        none = torch.zeros(len(examples)).long()
        key = "text" if self.texts else "image"  # of this alone: with another label beside it, it has the same views
        draws = [noise_of({key: example[key], "draw": example.get("draw", 0)}) for example in examples]
        if not self.texts:
            x = self._pixels(examples)
            return Batch.of_examples({"x": x, "views": self.views.of(x, draws)}, none)
        seeds = [torch.randint(LARGE, (2 * self.views.pairs,), generator=draw) for draw in draws]
        inputs = self._tokens([example["text"] for example in examples])
        seeds_BW = torch.stack(seeds) if seeds else none.reshape(0, 2 * self.views.pairs)
        return Batch.of_examples({**inputs, "seeds": seeds_BW}, none)

    def _tokens(self, texts: list[str]) -> dict[str, Tensor]:
        if not texts:
            return {"input_ids": torch.zeros(0, 1).long(), "attention_mask": torch.zeros(0, 1).long()}
        long = {"truncation": True, "max_length": self.text_limit}
        return dict(self.processor(texts, padding=True, return_tensors="pt", **long))

    @property
    def text_limit(self) -> int | None:
        """The tokens of a text that are read; None for an encoder of pictures."""
        limits = [positions_of(self.inner), self.files.length or 2**30]
        return min(int(self.processor.model_max_length), *limits) if self.texts else None

    def _pixels(self, examples: Sequence[Example]) -> Tensor:
        if not examples:
            return torch.zeros(0, 3, 1, 1)
        colours = getattr(self.inner.config, "num_channels", 3) == 3
        pictures = [to_bytes(example["image"]) for example in examples]
        made = self.processor([to_colour(one) if colours else one for one in pictures], return_tensors="pt")
        pixels: Tensor = made["pixel_values"]
        return pixels

    def accepts(self, split: str, rows: Sequence[Example]) -> None:
        """Raises BadInput for examples of the other kind, and for pictures that the processor cannot prepare."""
        BaseModel.accepts(self, split, rows)
        key, other = ("text", "image") if self.texts else ("image", "text")
        for i, row in enumerate(rows):
            if key not in row:
                why = f"holds {'an image' if other == 'image' else 'a text'}, and the encoder is of {key}s"
                raise BadInput.of(split, f"row {i + 1}", why, f"give examples with {key}")
        if not self.texts:
            check_pixels(split, rows)
            for i, row in enumerate(rows):
                if row["image"] is None or to_bytes(row["image"]).ndim not in (2, 3):
                    why = f"holds an image of {to_bytes(row['image']).ndim} dimensions"
                    raise BadInput.of(split, f"row {i + 1}", why, "give [height, width] or [height, width, channels]")

    def _inputs(self, batch: Batch, times: int = 1) -> dict[str, Tensor]:
        """The network's inputs on its device, each example `times` times."""
        device = device_of(self.module)
        found = {name: value for name, value in batch.inputs.items() if name not in ("x", "views", "seeds")}
        return {name: value.to(device).repeat_interleave(times, 0) for name, value in found.items()}

    def embed(self, batch: Batch) -> Tensor:
        inputs = self._inputs(batch) if self.texts else {"pixel_values": batch.inputs["x"].to(device_of(self.module))}
        embedding_BD: Tensor = self.module(inputs)
        return embedding_BD

    def embed_views(self, batch: Batch) -> Tensor:
        if self.texts:
            with row_dropout(self.module.network, DROPPED, batch.inputs["seeds"].flatten().tolist()):
                found_RD = self.module(self._inputs(batch, 2 * self.views.pairs))
        else:
            found_RD = self.module({"pixel_values": batch.inputs["views"].to(device_of(self.module)).flatten(0, 2)})
        return self.pair_up(found_RD, batch)

    def losses(self, h_P2BD: Tensor, batch: Batch) -> Tensor:
        """[B] the loss of each example, of its embeddings alone."""
        return torch.stack([self.pretext.losses(self.module.head, h_2BD) for h_2BD in h_P2BD]).mean(0)

    def attention(self, batch: Batch) -> Tensor | None:
        return self._inputs(batch, 2 * self.views.pairs).get("attention_mask") if self.texts else None

    def save(self, folder: Path) -> None:
        """The folder of transformers' own, with what sentence-transformers wrote beside it."""
        self.inner.save_pretrained(folder)
        self.processor.save_pretrained(folder)
        self.files.write(folder)
