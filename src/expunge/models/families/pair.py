"""Contrastive pairs of pictures and texts: transformers' CLIP folders, and small ones of given sizes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from pydantic import ConfigDict, Field

from expunge.core.card import Example
from expunge.core.channels import Channel
from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.core.random import seed_libraries
from expunge.core.request import parse
from expunge.models import schemas
from expunge.models._folder import foreign
from expunge.models._pretrained import config_of, tokenizer_of
from expunge.models.families.classifier import show
from expunge.models.family import Family, Source
from expunge.models.left_over import check_left_over
from expunge.models.pair import PICTURE, PROMPT, TEXT, Pair
from expunge.models.sources import check_weights, known_kind
from expunge.models.weights import check_finite, quiet

Size = Annotated[int, Field(gt=0, le=2**16)]
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>")
"""The end's number is none of 0 to 2: CLIP reads an end of 2 as that of old folders, whose vocabulary it ended."""


class Spec(schemas._File):
    """`model` of a train.yaml. side, patch: pixels; width: of both towers; size: of the common space; length: tokens of
    a caption at most. The vocabulary is the words of the training's captions."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    pair: Literal["clip"]
    side: Size = 16
    patch: Size = 4
    width: Size = 64
    layers: Annotated[int, Field(gt=0, le=1000)] = 2
    heads: Size = 2
    size: Size = 32
    length: Size = 32


def claims(source: Source) -> bool:
    """Whether it gives the sizes of a new pair, or is the folder of one."""
    return "pair" in source if isinstance(source, Mapping) else known_kind(source) == "pair"


def check(source: Source, *, trust_code: bool, weights: bool, field: str) -> None:
    """Everything that can be known of it without loading it. Raises BadInput."""
    if not isinstance(source, Mapping):
        check_weights(Path(source), "*.safetensors", weights, field)
        config_of(source, trust_code, field)
        return
    spec = parse(Spec, source, field, field)
    for name, whole, part in (("heads", spec.width, spec.heads), ("patch", spec.side, spec.patch)):
        if whole % part:
            of = {"heads": "width", "patch": "side"}[name]
            raise BadInput.of(f"{field}.{name}", part, f"does not divide {of} ({whole})", "choose one that does")


def open_pair(source: Source, *, trust_code: bool, meta: bool, dtype: torch.dtype | None = None) -> Model:
    """The pair of a folder, in float32; its structure alone where `meta`."""
    import transformers  # in functions: it takes seconds, and plans start here

    quiet()
    folder = str(source)
    config = config_of(folder, trust_code)
    tokenizer = tokenizer_of(folder, trust_code)
    with foreign("model", folder, "has no processor that can be read", "save it into the model's folder"):
        processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    with foreign("model", folder, "cannot be opened", "give a folder that CLIPModel opens"):
        if meta:
            with torch.device("meta"):
                return Pair(transformers.CLIPModel(config).eval(), tokenizer, processor)
        clip: Any = transformers.CLIPModel
        module, told = clip.from_pretrained(folder, use_safetensors=True, dtype=torch.float32, output_loading_info=True)
    check_left_over(module, told["unexpected_keys"], folder)
    if absent := sorted(told["missing_keys"]):
        why = f"holds no weights for {len(absent)} parameters ({absent[0]}, ...)"
        raise BadInput.of("model", folder, why, "save the whole model again")
    check_finite(module, folder)
    return Pair(module.eval(), tokenizer, processor)


def fresh(
    spec: Mapping[str, Any],
    examples: Sequence[Example],
    *,
    seed: int,
    trust_code: bool,
    like: Model | None,
    meta: bool,
) -> Model:
    """A new pair of these sizes, with the words of the examples or the tokenizer of `like`."""
    import transformers

    sizes = parse(Spec, spec, "model", "model")
    texts = [text for row in examples for text in (row["text"], row.get("class_prompt", ""))]
    tokenizer = getattr(like, "tokenizer", None) or words_tokenizer(texts, sizes.length)
    tower = {
        "hidden_size": sizes.width,
        "intermediate_size": 2 * sizes.width,
        "num_hidden_layers": sizes.layers,
        "num_attention_heads": sizes.heads,
    }
    ends = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    config = transformers.CLIPConfig(
        vision_config={**tower, "image_size": sizes.side, "patch_size": sizes.patch},
        text_config={**tower, "vocab_size": len(tokenizer), "max_position_embeddings": sizes.length, **ends},
        projection_dim=sizes.size,
    )
    seed_libraries(seed, "weights")
    with torch.device("meta" if meta else "cpu"):
        module = transformers.CLIPModel(config).eval()
    half = [0.5, 0.5, 0.5]
    processor = transformers.CLIPImageProcessorPil(
        do_resize=False, do_center_crop=False, do_convert_rgb=False, image_mean=half, image_std=half
    )
    return Pair(module, tokenizer, processor)


def words_tokenizer(texts: Sequence[str], length: int) -> Any:
    """A tokenizer of the texts' words, in small letters, with an end behind each text."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    split = pre_tokenizers.Whitespace()
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text.lower())})
    made = Tokenizer(models.WordLevel({word: i for i, word in enumerate((*SPECIAL, *words))}, unk_token="<unk>"))
    made.normalizer, made.pre_tokenizer = normalizers.Lowercase(), split
    made.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", special_tokens=[(name, SPECIAL.index(name)) for name in ("<s>", "</s>")]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token="<s>",
        eos_token="</s>",
        model_max_length=length,
    )


FAMILY = Family(
    name="pair",
    title="image-text pair",
    claims=claims,
    check=check,
    open=open_pair,
    fresh=fresh,
    example_forms=(("image", "text"),),
    channels=(
        "nll",
        Channel(name=PICTURE, words="embeddings of pictures", unit="none"),
        Channel(name=TEXT, words="embeddings of captions", unit="none"),
        Channel(name=PROMPT, words="embeddings of class prompts", unit="none"),
    ),
    capabilities=frozenset({"nll", "pairs"}),
    headline={
        "forgetting": ("privacy_loss_auc", "forget_nll"),
        "utility": ("test_zero_shot_accuracy", "retain_zero_shot_accuracy", "retain_nll"),
    },
    show=show,
)
