"""A pair of encoders, of pictures and of texts, that put a picture and its caption in one place: CLIP.

An example is a picture with its caption, and has one position; its loss is the pair's symmetric contrast (Radford et
al. 2021, arXiv:2103.00020, figure 3) with the temperature that was learnt.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize

from expunge.core.card import Example
from expunge.core.contracts import NLL, NOT_ASKED, Batch, Output, Want
from expunge.core.errors import BadInput
from expunge.models.base import BaseModel
from expunge.models.classifier import check_pixels, flat, to_bytes, to_colour
from expunge.models.contrast import contrast
from expunge.models.pretext import ascend_alone
from expunge.models.weights import device_of, find_blocks, tap

PICTURE, TEXT, PROMPT = "image_embedding", "text_embedding", "prompt_embedding"
TOGETHER = 32
"""Pairs that are read together: an example's loss depends on the others."""
WARMEST = 100.0
"""The largest factor of a cosine, as the paper clips it."""


class Pair(BaseModel):
    """transformers' CLIP with its tokenizer and image processor."""

    family = "pair"
    coupled = True
    together = TOGETHER
    capabilities = frozenset({"nll", "pairs"})

    def __init__(self, module: nn.Module, tokenizer: Any, processor: Any) -> None:
        self.module: Any = module
        self.tokenizer, self.processor = tokenizer, processor
        towers = ("vision_model", "text_model")
        self.blocks = [f"{name}.{path}" for name in towers for path in find_blocks(module.get_submodule(name))]

    def collate(self, examples: Sequence[Example], positions: str = "answer") -> Batch:
        """Pixels as the processor gives them, tokens of the captions and of the class prompts."""
        tokens = self._tokens([example["text"] for example in examples])
        prompts = self._tokens([str(example.get("class_prompt", example["text"])) for example in examples])
        inputs = {"pixel_values": self._pixels(examples), **tokens, **{f"prompt_{k}": v for k, v in prompts.items()}}
        return Batch.of_examples(inputs, torch.zeros(len(examples)).long())

    def _tokens(self, texts: list[str]) -> dict[str, Tensor]:
        if not texts:
            return {"input_ids": torch.zeros(0, 1).long(), "attention_mask": torch.zeros(0, 1).long()}
        limit = min(self.tokenizer.model_max_length, self.module.config.text_config.max_position_embeddings)
        made = self.tokenizer(texts, padding=True, truncation=True, max_length=limit, return_tensors="pt")
        return {name: made[name] for name in ("input_ids", "attention_mask")}

    def _pixels(self, examples: Sequence[Example]) -> Tensor:
        side = self.module.config.vision_config.image_size
        if not examples:
            return torch.zeros(0, 3, side, side)
        pictures = [to_colour(to_bytes(example["image"])) for example in examples]
        pixels: Tensor = self.processor(pictures, return_tensors="pt")["pixel_values"]
        return pixels

    def accepts(self, split: str, rows: Sequence[Example]) -> None:
        """Raises BadInput for rows that are no pairs, and for pictures that the network cannot take."""
        super().accepts(split, rows)
        check_pixels(split, rows)
        side = self.module.config.vision_config.image_size
        for i, row in enumerate(rows):
            try:
                shape = tuple(self._pixels([row]).shape)
            except Exception as error:  # a processor of anyone's looks at rows of anyone's
                why = f"cannot be put into a batch ({error})"
                raise BadInput.of(split, f"row {i + 1}", why, "give pictures, [height, width, 3]") from None
            if shape != (1, 3, side, side):
                why = f"holds an image of {shape[2]} x {shape[3]}, and the network takes {side} x {side}"
                raise BadInput.of(split, f"row {i + 1}", why, "give pictures of that size")

    def forward(self, batch: Batch, want: Want = NLL) -> Output:
        own: dict[str, Tensor] = {}
        nll_B, device = NOT_ASKED, device_of(self.module)
        with tap(self.module, want.hidden, stop=not want.channels) as hidden:
            if want.hidden or {"nll", PICTURE} & want.channels:
                own[PICTURE] = self._picture(batch)
            if want.hidden or {"nll", TEXT} & want.channels:
                own[TEXT] = self._text(batch)
            if PROMPT in want.channels:
                own[PROMPT] = self._text(batch, "prompt_")
            if "nll" in want.channels:
                nll_B = self._losses(own[PICTURE], own[TEXT])
        seen_BS = batch.inputs["attention_mask"].to(device)
        states = {path: flat(value, seen_BS)[:, None] for path, value in hidden.items()}
        labels_B1, mask_B1 = batch.labels_BT.to(device), batch.mask_BT.to(device)
        asked = {name: value for name, value in own.items() if name in want.channels}
        return Output(nll_B, batch.n_B.to(device), labels_B1, mask_B1, hidden=states, own=asked)

    def _picture(self, batch: Batch) -> Tensor:
        """[B, D] unit vectors of the pictures."""
        out = self.module.vision_model(pixel_values=batch.inputs["pixel_values"].to(device_of(self.module)))
        return normalize(self.module.visual_projection(out.pooler_output), dim=-1)

    def _text(self, batch: Batch, which: str = "") -> Tensor:
        """[B, D] unit vectors of the captions, or of the class prompts."""
        device = device_of(self.module)
        ids, mask = (batch.inputs[which + name].to(device) for name in ("input_ids", "attention_mask"))
        out = self.module.text_model(input_ids=ids, attention_mask=mask)
        return normalize(self.module.text_projection(out.pooler_output), dim=-1)

    def _losses(self, picture_BD: Tensor, text_BD: Tensor) -> Tensor:
        """[B] the mean of both directions; what raises it moves each pair alone, and not the temperature."""
        scale = self._scale()

        def both(pictures_BD: Tensor, texts_BD: Tensor, factor: Tensor) -> Tensor:
            there = contrast(picture_BD, text_BD, texts_BD, factor, self.together)
            return (there + contrast(text_BD, picture_BD, pictures_BD, factor, self.together)) / 2

        whole_B = both(picture_BD, text_BD, scale)
        return ascend_alone(whole_B, both(picture_BD.detach(), text_BD.detach(), scale.detach()))

    def contrast_with(self, own_BD: Tensor, other_BD: Tensor) -> Tensor:
        """[B] nats by which each unit vector finds its partner among the others', at the temperature of the pair."""
        return contrast(own_BD, other_BD, other_BD, self._scale(), self.together)

    def _scale(self) -> Tensor:
        """The factor of a cosine."""
        scale: Tensor = self.module.logit_scale.exp().clamp(max=WARMEST)
        return scale

    def save(self, folder: Path) -> None:
        """The folder of transformers' own."""
        self.module.save_pretrained(folder)
        self.tokenizer.save_pretrained(folder)
        self.processor.save_pretrained(folder)
