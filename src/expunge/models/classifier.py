"""A PyTorch classifier of images, tables or texts as a model.

The module maps inputs to logits [B, C]. A classifier has one asked position (T = 1), whose
"vocabulary" is its classes. Networks with BatchNorm are `coupled`: each stream gets its own forward.
"""

from __future__ import annotations

import re
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
from expunge.models.base import BaseModel
from expunge.models.logits import fields, measure_NV
from expunge.models.networks import Hypernetwork
from expunge.models.padding import LONG, in_groups, padded_equals_alone, probe_rows
from expunge.models.weights import device_of, find_blocks, snapshot, tap

NORMS = (nn.modules.batchnorm._BatchNorm,)


class Classifier(BaseModel):
    """A module that gives logits, and the recipe to build it again.

    build: {"factory", "arguments"} for a network of the user's own. processor: a transformers image
    processor or tokenizer, for a model of theirs.
    """

    family = "classifier"

    def __init__(self, module: nn.Module, build: dict[str, Any] | None = None, processor: Any = None) -> None:
        self.module = module
        self.build = build or {}
        self.processor = processor
        self.coupled = any(isinstance(m, NORMS) for m in module.modules())
        self.capabilities = frozenset({"labels", "nll", *(["tasks"] if isinstance(module, Hypernetwork) else [])})
        children = [name for name, child in module.named_children() if any(True for _ in child.parameters())]
        self.blocks = (find_blocks(module) if processor is not None else []) or children
        self.save_dtype: torch.dtype | None = None
        self.pads = True
        """Whether texts of several lengths may share a batch: padding does not change the network's outputs."""

    def check_batches(self) -> None:
        """Finds out whether padding changes the outputs, on two random texts of different length."""
        from transformers import PreTrainedTokenizerBase  # it takes seconds, and plans start here

        if not isinstance(self.processor, PreTrainedTokenizerBase) or self.processor.pad_token_id is None:
            return
        config: Any = self.module.config
        positions = int(getattr(config, "max_position_embeddings", 0) or 0)
        limit = max(2, positions - 2) if positions > 0 else LONG + 1  # some families number positions from 2
        vocabulary = getattr(config.get_text_config(), "vocab_size", None) or len(self.processor)
        ids = [_with_end_last(row, self.processor.eos_token_id) for row in probe_rows(vocabulary, limit)]

        @torch.no_grad()
        def outputs(rows: Sequence[Sequence[int]]) -> Tensor:
            inputs = self.processor.pad({"input_ids": list(rows)}, return_tensors="pt")
            logits: Tensor = self.module(**inputs.to(device_of(self.module))).logits
            return logits

        self.pads = padded_equals_alone(outputs, ids)

    def collate(self, examples: Sequence[Example], positions: str = "answer") -> Batch:
        labels_B = torch.tensor([int(example["label"]) for example in examples])
        return Batch.of_examples(self._inputs(examples), labels_B)

    def _inputs(self, examples: Sequence[Example]) -> dict[str, Tensor]:
        if self.processor is None:
            key = "features" if examples and "features" in examples[0] else "image"
            arrays = [floats(example[key]) for example in examples]
            return {"x": torch.from_numpy(np.stack(arrays)) if arrays else torch.zeros(0)}
        if examples and "text" in examples[0]:
            texts = [e["text"] for e in examples]
            long = {"truncation": True, "max_length": self.text_limit}
            return dict(self.processor(texts, padding=True, return_tensors="pt", **long))
        return dict(self.processor([self._picture(e["image"]) for e in examples], return_tensors="pt"))

    def _picture(self, image: Any) -> np.ndarray:
        """A picture with as many channels as the network takes."""
        channels = getattr(getattr(self.module, "config", None), "num_channels", None)
        return to_colour(to_bytes(image)) if channels == 3 else to_bytes(image)

    def accepts(self, split: str, rows: Sequence[Example]) -> None:
        """Raises BadInput unless all inputs have one shape, which the network takes, and it has a class per label."""
        super().accepts(split, rows)
        if not rows:
            return
        key = next((k for k in ("features", "image") if k in rows[0]), "")
        if key and self.processor is None:
            check_shapes(split, rows, key)
        if self.processor is not None:
            self._check_outputs()
            self._check_names(split, rows)
            if key == "image":
                check_pixels(split, rows)
        if (classes := self._classes(split, rows[:2])) is None:
            return  # a network that needs real tensors: the run will tell
        for i, row in enumerate(rows):
            if int(row["label"]) >= classes:
                raise BadInput.of(
                    split,
                    f"row {i + 1}",
                    f"has the label {int(row['label'])}, and the network has {classes} classes",
                    f"give labels from 0 to {classes - 1}",
                )

    def accepts_together(self, splits: Mapping[str, Sequence[Example]]) -> None:
        """Raises BadInput where the splits go with the network each, and not with one another."""
        if self.processor is None:
            check_units(splits)

    def class_terms(self, rows: Sequence[Example]) -> dict[str, Any]:
        """How many classes there are, and the number of each that has a name."""
        names = getattr(getattr(self.module, "config", None), "id2label", None) or {}
        numbers = {f"number of the class {str(name).casefold()!r}": int(number) for number, name in names.items()}
        return {**numbers, **({"number of classes": self._classes("forget", rows[:2])} if rows else {})}

    @property
    def text_limit(self) -> int | None:
        """The tokens of a text that are read; None where nothing reads texts."""
        limit = getattr(self.processor, "model_max_length", None)
        return None if limit is None else min(int(limit), positions_of(self.module))

    def _check_outputs(self) -> None:
        """Raises BadInput for a head whose outputs are not classes that exclude one another."""
        config = getattr(self.module, "config", None)
        kind = getattr(config, "problem_type", None)
        if getattr(config, "num_labels", 2) == 1 or kind in ("regression", "multi_label_classification"):
            what = f"problem_type: {kind}" if kind else "num_labels: 1, one output"
            raise BadInput.of(
                "model", what, "does not tell classes apart with a softmax", "give a classifier of two or more classes"
            )

    def _check_names(self, split: str, rows: Sequence[Example]) -> None:
        """Raises BadInput where data and model know the same class by name and number it differently."""
        names = getattr(getattr(self.module, "config", None), "id2label", None) or {}
        numbers = {str(name).casefold(): int(number) for number, name in names.items()}
        named = [(i, row) for i, row in enumerate(rows) if isinstance(row.get("class_name"), str)]
        if not any(row["class_name"].casefold() in numbers for _, row in named):
            return  # the model's classes have other names, or none
        for i, row in named:
            number = numbers.get(row["class_name"].casefold())
            if number != int(row["label"]):
                theirs = "not a class of the model" if number is None else f"number {number} in the model"
                raise BadInput.of(
                    split,
                    f"row {i + 1}",
                    f"is of the class {row['class_name']!r}, number {int(row['label'])} in the data and {theirs}",
                    "give data with all of the model's classes, numbered as in its id2label",
                )

    def _classes(self, split: str, rows: Sequence[Example]) -> int | None:
        """The classes that the network tells apart, by trying a few rows; None where it cannot run on the meta
        device."""
        try:
            batch = self.collate(rows)
        except BadInput:
            raise
        except Exception as error:  # a processor of anyone's looks at rows of anyone's
            raise BadInput.of(
                split, "row 1", f"cannot be put into a batch ({error})", "give arrays of one shape"
            ) from None
        device = device_of(self.module)
        try:
            with torch.no_grad():
                out = self._logits({name: value.to(device) for name, value in batch.inputs.items()})
        except Exception as error:
            if device.type == "meta" and not re.search("shape|size|dim|channel|expected", str(error)):
                return None
            first_line = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise BadInput.of(
                split, "row 1", f"does not fit the network ({first_line})", "give inputs of the shape that it takes"
            ) from None
        return int(out.shape[-1])

    def _logits(self, inputs: dict[str, Tensor]) -> Tensor:
        """[B, C] of inputs on the module's device."""
        if self.processor is None:
            return self.module(inputs["x"])
        seen_BS = inputs.get("attention_mask")
        if self.pads or seen_BS is None or bool(seen_BS.all()):
            return self.module(**inputs).logits
        out = in_groups(self.module, lambda part: (self.module(**part).logits, {}), inputs)[0]
        assert out is not None
        return out

    def forward(self, batch: Batch, want: Want = NLL) -> Output:
        device = device_of(self.module)
        inputs = {name: value.to(device) for name, value in batch.inputs.items()}
        labels_B1, mask_B1 = batch.labels_BT.to(device), batch.mask_BT.to(device)
        with tap(self.module, want.hidden, stop=not want.channels) as hidden:
            out = self._logits(inputs)
        seen_BS = inputs.get("attention_mask")
        states = {path: flat(value, seen_BS)[:, None] for path, value in hidden.items()}
        if not want.channels:
            return Output(NOT_ASKED, batch.n_B.to(device), labels_B1, mask_B1, hidden=states)
        found = {k: v[:, None] for k, v in measure_NV(out, labels_B1[:, 0], want).items()}
        return Output(-found["logp"][:, 0], batch.n_B.to(device), labels_B1, mask_B1, hidden=states, **fields(found))

    def save(self, folder: Path) -> None:
        """model.safetensors and how to build the network, or the folder of transformers' own."""
        if self.processor is not None:
            self.module.save_pretrained(folder)  # type: ignore[operator]
            self.processor.save_pretrained(folder)
            return
        state = {name: value.contiguous() for name, value in snapshot(self.module).items()}
        save_file(state, folder / "model.safetensors")
        write_json(folder / "classifier.json", self.build)

    def fingerprint(self) -> dict[str, Any]:
        return {**super().fingerprint(), "build": self.build}


def _with_end_last(row: list[int], end: int | None) -> list[int]:
    """A row of tokens with the end token as its last and nowhere else, where there is one: some families read there."""
    if end is None:
        return row
    other = end - 1 if end else end + 1
    return [*(other if token == end else token for token in row[:-1]), end]


def check_shapes(split: str, rows: Sequence[Example], key: str) -> None:
    """Raises BadInput for the first row whose array under `key` has another shape than the first row's."""
    first = np.shape(rows[0][key])
    for i, row in enumerate(rows):
        if key not in row or np.shape(row[key]) != first:
            why = f"has another shape of {key} than row 1 ({list(first)})"
            raise BadInput.of(split, f"row {i + 1}", why, "bring all to one shape")


def floats(value: Any) -> np.ndarray:
    """Pixels and features as float32; bytes (as image files hold them) scaled to [0, 1]."""
    array = np.asarray(value)
    scale = 255 if array.dtype == np.uint8 else 1
    return np.asarray(array, dtype=np.float32) / scale


def positions_of(module: Any) -> int:
    """The tokens that a network has positions for; a very large number where nothing limits them."""
    limit = int(getattr(module.config, "max_position_embeddings", 0) or 0)
    for name, part in module.named_modules():
        if name.endswith("position_embeddings") and isinstance(part, nn.Embedding) and part.padding_idx is not None:
            return part.num_embeddings - part.padding_idx - 1  # some families number positions behind the padding
    return limit if limit > 0 else 2**30


def to_bytes(image: Any) -> np.ndarray:
    """A picture as an image processor takes it: 0-255, also where it is given as shares of full brightness.

    What noise moved out of the range, as an attack's copies of a picture are, goes to its end.
    """
    array = np.asarray(image)
    if array.dtype.kind != "f" or not array.size:
        return array
    return np.rint(array * (255 if array.max() <= 2 else 1)).clip(0, 255).astype(np.uint8)


def check_pixels(split: str, rows: Sequence[Example]) -> None:
    """Raises BadInput for the first picture whose values are neither bytes nor shares of full brightness, or not what
    the others' are: which of the two a dark picture means, it alone does not tell."""
    first: dict[bool, int] = {}
    for i, row in enumerate(rows):
        array = np.asarray(row["image"])
        if array.min() < 0 or array.max() > 255 or (array.dtype.kind == "f" and 1 < array.max() <= 2):
            why = f"holds an image with values from {array.min():.3g} to {array.max():.3g}"
            raise BadInput.of(split, f"row {i + 1}", why, "give 0-255, or 0-1; the model's processor standardises them")
        if array.dtype.kind == "f" and array.max() > 0:
            first.setdefault(bool(array.max() > 1), i)
        if len(first) == 2:
            other = min(first.values()) + 1
            why = f"holds an image with values up to {array.max():.3g}, and row {other} has another range"
            raise BadInput.of(split, f"row {i + 1}", why, "give all in 0-255, or all in 0-1")


def check_units(splits: Mapping[str, Sequence[Example]]) -> None:
    """Raises BadInput where some pictures are bytes, which are read as shares of 255, and others are numbers as large,
    which a network of the user's own gets as they are."""
    packed, wide = "", ("", 0, 0.0)
    for split, rows in splits.items():
        for i, row in enumerate(rows if "image" in (rows[0] if rows else ()) else ()):
            array = np.asarray(row["image"])
            if array.dtype == np.uint8:
                packed = packed or f"{split}, row {i + 1}"
            elif not wide[0] and array.size and array.max() > 2:
                wide = (split, i + 1, float(array.max()))
            if packed and wide[0]:
                why = (
                    f"holds an image with numbers up to {wide[2]:.3g}, and {packed} holds bytes, read as shares of 255"
                )
                raise BadInput.of(wide[0], f"row {wide[1]}", why, "give all as picture files, or all in 0-1")


def to_colour(image: Any) -> np.ndarray:
    """A picture as an image processor takes it: [H, W, 3]; grey ones in three equal channels, without transparency."""
    array = np.asarray(image)
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim == 3 and array.shape[-1] in (1, 2):
        array = array[..., :1].repeat(3, axis=-1)
    return array[..., :3] if array.ndim == 3 and array.shape[-1] == 4 else array


def flat(value: Tensor, seen_BS: Tensor | None) -> Tensor:
    """[B, D] of any activation: channels stay, places are averaged; padding never counts."""
    if value.dim() == 4:  # [B, channels, height, width]
        return value.mean((2, 3))
    if value.dim() == 3 and seen_BS is not None and seen_BS.shape == value.shape[:2]:
        return (value * seen_BS[..., None]).sum(1) / seen_BS.sum(1, keepdim=True).clamp(min=1)
    return value.mean(1) if value.dim() == 3 else value.flatten(1)
