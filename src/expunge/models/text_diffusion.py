"""A diffusion model of pictures that is asked by texts: CLIP's text encoder, and a U-Net that attends to its states.

It draws pixels, without an autoencoder. An example is asked for by its `class_prompt`; a text of no words stands for
nothing in particular. Shape suffixes: B examples, L tokens, C H W of a picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expunge.core.card import Example
from expunge.core.errors import BadInput
from expunge.core.files import write_json
from expunge.models.diffusion import CONDITIONS, Diffusion

PIPELINE = "TextToPixels"
"""The class in model_index.json: no pipeline of diffusers, whose parts open one by one."""
INDEX = "model_index.json"
PARTS = ("unet", "text_encoder", "tokenizer", "scheduler")
PROMPT = "class_prompt"
SPECIAL = ("[PAD]", "[BOS]", "[EOS]", "[UNK]")


class Asked(nn.Module):
    """A U-Net and the text encoder whose states it attends to."""

    def __init__(self, unet: Any, text_encoder: Any) -> None:
        super().__init__()
        self.unet, self.text_encoder = unet, text_encoder

    def states(self, tokens_BL: Tensor) -> Tensor:
        """[B, L, D] what the network attends to."""
        states_BLD: Tensor = self.text_encoder(tokens_BL).last_hidden_state
        return states_BLD

    def forward(self, x_BCHW: Tensor, times_B: Tensor, tokens_BL: Tensor) -> Tensor:
        """[B, C, H, W] the predicted noise."""
        states_BLD = self.states(tokens_BL)
        guess_BCHW: Tensor = self.unet(x_BCHW, times_B, encoder_hidden_states=states_BLD).sample
        return guess_BCHW


class TextDiffusion(Diffusion):
    """A U-Net with cross-attention, its text encoder and tokenizer, and the scheduler of its noise."""

    within = "unet."
    table = "text_encoder.embeddings.token_embedding.weight"

    def __init__(self, module: Asked, scheduler: Any, conditions: Mapping[str, Any], tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.condition_shape = (int(module.text_encoder.config.max_position_embeddings),)
        self._tokens: dict[str, Tensor] = {}
        super().__init__(module, scheduler, {"classes": 0, "null": None, **conditions})
        self.capabilities |= {"conditions", "prompts"}

    @property
    def unet(self) -> Any:
        return self.module.unet

    def condition(self, example: Example) -> Tensor:
        return self.tokens(str(example.get(PROMPT, "")))

    @property
    def nothing(self) -> Tensor | None:
        return self.tokens("") if float(self.conditions.get("dropped") or 0.0) > 0 else None

    def without_condition(self, example: Example) -> Example:
        return {**example, PROMPT: ""}

    def table_rows(self, examples: Sequence[Example]) -> list[int]:
        """The tokens of their prompts' words."""
        found = {int(token) for row in examples for token in self.condition(row)}
        return sorted(found - set(self.tokenizer.all_special_ids))

    def tokens(self, prompt: str) -> Tensor:
        """[L] tokens of a prompt, padded."""
        if prompt not in self._tokens:
            (length,) = self.condition_shape
            made = self.tokenizer(prompt, padding="max_length", truncation=True, max_length=length, return_tensors="pt")
            self._tokens[prompt] = made["input_ids"][0]
        return self._tokens[prompt]

    def accepts(self, split: str, rows: Sequence[Example]) -> None:
        """Raises BadInput unless all pictures have the network's shape, and a prompt."""
        super().accepts(split, rows)
        for i, row in enumerate(rows):
            if not isinstance(row.get(PROMPT), str):
                why = f"has no {PROMPT}, by which the model is asked"
                raise BadInput.of(split, f"row {i + 1}", why, "add one: a text that says what the picture shows")

    def predict(self, x_BCHW: Tensor, times_B: Tensor, conditions_B: Tensor) -> Tensor:
        guess_BCHW: Tensor = self.module(x_BCHW, times_B, conditions_B)
        return guess_BCHW

    def save(self, folder: Path) -> None:
        """A folder for each part, as its library writes it, and what an empty prompt means."""
        module = self._fold_copy(folder)
        parts = zip(PARTS, (module.unet, module.text_encoder, self.tokenizer, self.scheduler), strict=True)
        for name, part in parts:
            part.save_pretrained(folder / name)
        write_json(folder / CONDITIONS, self.conditions)
        write_json(folder / INDEX, {"_class_name": PIPELINE})


def open_parts(folder: Path, conditions: Mapping[str, Any], *, meta: bool) -> TextDiffusion:
    """The model of a folder that `save` wrote; its structure alone, on the meta device, where `meta`."""
    from diffusers import DDPMScheduler, UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel, PreTrainedTokenizerFast

    own: dict[str, Any] = {"local_files_only": True}
    if meta:
        net: Any = UNet2DConditionModel
        with torch.device("meta"):
            unet = net.from_config(net.load_config(folder / "unet", **own))
            encoder: Any = CLIPTextModel(CLIPTextConfig.from_pretrained(folder / "text_encoder", **own))
    else:
        unet = UNet2DConditionModel.from_pretrained(
            folder / "unet", use_safetensors=True, low_cpu_mem_usage=False, **own
        )
        encoder = CLIPTextModel.from_pretrained(folder / "text_encoder", use_safetensors=True, **own)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder / "tokenizer", **own)
    scheduler: Any = DDPMScheduler.from_pretrained(folder / "scheduler", **own)
    return TextDiffusion(Asked(unet, encoder).eval(), scheduler, conditions, tokenizer)


def new_parts(sizes: Any, tokenizer: Any, scheduler: Any) -> TextDiffusion:
    """A new model of these sizes (`TextSpec` of the family), which attends to the text from the second block on."""
    from diffusers import UNet2DConditionModel
    from transformers import CLIPTextConfig, CLIPTextModel

    rest = len(sizes.widths) - 1
    net: Any = UNet2DConditionModel
    unet = net(
        sample_size=sizes.side,
        in_channels=sizes.channels,
        out_channels=sizes.channels,
        block_out_channels=tuple(sizes.widths),
        layers_per_block=sizes.layers,
        down_block_types=("DownBlock2D", *("CrossAttnDownBlock2D",) * rest),
        up_block_types=(*("CrossAttnUpBlock2D",) * rest, "UpBlock2D"),
        norm_num_groups=sizes.groups,
        cross_attention_dim=sizes.text_width,
        attention_head_dim=2,  # heads: diffusers' own name for their number
    )
    config = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=sizes.text_width,
        intermediate_size=2 * sizes.text_width,
        num_hidden_layers=sizes.text_layers,
        num_attention_heads=2,
        max_position_embeddings=sizes.tokens,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
    )
    conditions = {"dropped": sizes.dropped, "guidance": sizes.guidance}
    return TextDiffusion(Asked(unet, CLIPTextModel(config)).eval(), scheduler, conditions, tokenizer)


def tokenizer_of(prompts: Iterable[str]) -> Any:
    """A tokenizer whose tokens are the words of the prompts, in lower case."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = sorted({word for prompt in prompts for word in prompt.casefold().split()})
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate([*SPECIAL, *words])}, unk_token=SPECIAL[3]))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single=f"{SPECIAL[1]} $A {SPECIAL[2]}", special_tokens=[(SPECIAL[1], 1), (SPECIAL[2], 2)]
    )
    names = dict(zip(("pad_token", "bos_token", "eos_token", "unk_token"), SPECIAL, strict=True))
    return PreTrainedTokenizerFast(tokenizer_object=made, **names)
