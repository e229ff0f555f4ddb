"""Opens what transformers opens, a hub name or a folder, and an adapter on one: nothing of theirs is believed or
run."""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import torch

from expunge.core import hub
from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.core.extras import require
from expunge.models._folder import foreign
from expunge.models.adapters import chat_template_of, merge, tokenizer_source
from expunge.models.causal_lm import CausalLM
from expunge.models.classifier import Classifier
from expunge.models.left_over import check_left_over, check_whole_numbers
from expunge.models.merging import HEADS, adapter_task, classes_of
from expunge.models.tokenizer_checks import check_files, check_loaded
from expunge.models.weights import check_finite, quiet

COUNTS = re.compile(r"(n|num)_\w*(layers?|blocks?|experts?|heads?|stages?|levels?)|\w*layers|depths?|n_layer")
"""Settings by which parts are built one after another: ten million of them take for ever, even without weights."""
DEPTHS = ("num_hidden_layers", "num_layers", "n_layer", "n_layers")
MANY, LABELS = 10_000, 10_000_000
"""More than any model has."""


def config_of(source: str, trust_code: bool, field: str = "model") -> Any:
    """The configuration, as far as it can be told that a model can be built from it. Raises BadInput."""
    from transformers import AutoConfig, PreTrainedConfig  # in functions: it takes seconds, and plans start here

    here = Path(source).is_dir()
    if not here:
        hub.go_offline_if_unreachable()
    what, fix = "has a configuration that cannot be read", "fix config.json, or save the model again"
    if not here:
        what = "is not a folder here, and cannot be had from the hub"
        fix = "give a folder, or check the name and the network"
    with foreign(field, source, what, fix):
        raw, _ = PreTrainedConfig.get_config_dict(source, trust_remote_code=trust_code)
    if why := _absurd(raw, trust_code):
        raise BadInput.of(field, source, f"has a configuration that {why}", "save the model again")
    with foreign(field, source, what, fix):
        config = AutoConfig.from_pretrained(source, trust_remote_code=trust_code)
    names = getattr(config, "architectures", None)
    if getattr(config, "is_encoder_decoder", False) and not any("Classification" in str(name) for name in names or ()):
        raise BadInput.of(
            field,
            source,
            f"is an encoder-decoder ({config.model_type}), and language models are opened only if they are causal",
            "give a causal language model or a classifier",
        )
    if names is not None and not (isinstance(names, list) and all(isinstance(name, str) for name in names)):
        raise BadInput.of(
            field,
            source,
            "has a configuration that cannot be read (architectures is not a list of names)",
            "save the model again",
        )
    return config


def _absurd(raw: Any, trust_code: bool) -> str:
    """The fault of a configuration, or with one within it, before anything is made of it."""
    for name, value in raw.items() if isinstance(raw, dict) else ():
        for number in value if isinstance(value, list) else [value]:
            if not isinstance(number, int | float):
                continue
            if number > (LABELS if name == "num_labels" else MANY if COUNTS.fullmatch(name) else math.inf):
                return f"asks for {number:,} ({name})"
            if name in DEPTHS and number < 1:
                return f"builds a network without layers ({name}: {number})"
            if ("dropout" in name or name.endswith("pdrop")) and not 0 <= number <= 1:
                return f"has a {name} of {number}, which is not a share"
        if name.endswith("_implementation") and "/" in str(value) and not trust_code:
            return f"names code on the hub ({name}: {str(value)[:60]})"
        if why := _absurd(value, trust_code):
            return why
    return ""


def open_pretrained(
    base: str, adapter: Path | None, template: str | None, *, trust_code: bool, meta: bool, dtype: torch.dtype | None
) -> Model:
    """The model of a folder or hub name, with the adapter's folder merged into it. Raises BadInput."""
    quiet()
    config = config_of(base, trust_code)
    auto, classifies, texts = _kind(config, adapter)
    labels = {}
    if adapter is not None and classifies and not _classifies(config):
        labels = {"num_labels": classes_of(adapter)}
    module = _module(auto, config, base, trust_code, meta, dtype, labels)
    if not any(parameter.numel() for parameter in module.parameters()):
        raise BadInput.of(
            "model", base, "has a configuration of no size: there is nothing to train", "save the model again"
        )
    with foreign("model", base, "has a configuration that could not be saved again", "fix config.json"):
        if hasattr(module.config, "validate"):
            module.config.validate()
    if not labels:
        check_finite(module, base)
    saved = next(module.parameters()).dtype
    module.eval()
    processor: Any = _processor(base, adapter, texts) if classifies else None
    if texts:
        _name_padding(module.config, processor)
    if adapter is not None:
        module = merge(module, adapter)
        check_finite(module, str(adapter))
    model: Any
    if classifies:
        model = Classifier(module, {}, processor)
    else:
        model = _language_model(module, base, adapter, template, trust_code, meta)
    if not meta and saved in (torch.float16, torch.bfloat16) and module.device.type == "cpu":
        module.float()  # a CPU computes in float32; the model is saved in its own dtype
        model.save_dtype = saved
    if not meta:
        with foreign("model", base, "cannot be used", "give a causal language model or a classifier"):
            model.check_batches()
    return model


def _language_model(
    module: Any, base: str, adapter: Path | None, template: str | None, trust_code: bool, meta: bool
) -> CausalLM:
    source = base if adapter is None else tokenizer_source(adapter, base)
    tokenizer = _tokenizer_or_none(source, trust_code) if meta else tokenizer_of(source, trust_code)
    if adapter is not None and (text := chat_template_of(adapter)):
        tokenizer.chat_template = text
    with foreign("model", base, "cannot be used", "give a causal language model, saved by save_pretrained"):
        model = CausalLM(module, tokenizer, template, base)
        if adapter is not None:
            model.source, model.merged = "", True  # the base's folder no longer holds these weights
        if not meta:
            model.check_head()
    return model


def _kind(config: Any, adapter: Path | None) -> tuple[Any, bool, bool]:
    """transformers' class that opens the model; whether it classifies; whether what it classifies are texts."""
    import transformers  # it takes seconds, and plans start here

    task = "" if adapter is None else adapter_task(adapter)
    if task == "SEQ_CLS" or (_classifies(config) and "Image" not in config.architectures[0]):
        return transformers.AutoModelForSequenceClassification, True, True
    if _classifies(config):
        return transformers.AutoModelForImageClassification, True, False
    return transformers.AutoModelForCausalLM, False, False


def _classifies(config: Any) -> bool:
    return "Classification" in (config.architectures or [""])[0]


def _module(
    auto: Any,
    config: Any,
    base: str,
    trust_code: bool,
    meta: bool,
    dtype: torch.dtype | None,
    labels: dict[str, int],
) -> Any:
    """The network of a folder. labels: the classes of a head that an adapter brings, where it does."""
    arguments: dict[str, Any] = {"trust_remote_code": trust_code, **labels}
    packed = _quantiser(config, base)
    if meta:
        with (
            foreign("model", base, "cannot be built", "give a causal language model or a classifier"),
            torch.device("meta"),
        ):
            for name, value in labels.items():
                setattr(config, name, value)
            return auto.from_config(config, trust_remote_code=trust_code)
    if packed:
        arguments["device_map"] = {"": "cpu"}  # it chooses a GPU itself
    with foreign("model", base, "cannot be opened", "give a folder or hub name with safetensors weights"):
        module, told = auto.from_pretrained(
            base, use_safetensors=True, dtype=dtype or "auto", output_loading_info=True, **arguments
        )
    if packed:
        module = _unpack(module, base, packed)
    else:
        check_whole_numbers(Path(base), base)
        check_left_over(module, told["unexpected_keys"], base)
    # Transformers would draw them at random, with a warning.
    if absent := sorted(n for n in told["missing_keys"] if not (labels and n.partition(".")[0] in HEADS)):
        raise BadInput.of(
            "model",
            base,
            f"holds no weights for {len(absent)} parameters ({absent[0]}, ...)",
            "save the whole model again",
        )
    return module


def _unpack(module: Any, base: str, packed: str) -> Any:
    """Return the network in floating point. packed: the method that packed its weights. Raises BadInput."""
    if not getattr(module, "is_quantized", False):
        return module
    with foreign("model", base, f"holds weights that {packed} packed", "give the model in floating point"):
        plain = module.dequantize()
    vars(plain).pop("_weight_conversions", None)  # by which transformers would pack them again as it saves
    return plain


def _quantiser(config: Any, base: str) -> str:
    """The name of the method that packed a folder's weights; empty for floating point. Raises BadInput.

    They are unpacked when they are opened: adapters are merged, weights are compared, and attacks train them.
    """
    packed = getattr(config, "quantization_config", None)
    if packed is None:
        return ""
    name = str(packed.get("quant_method", "") if isinstance(packed, dict) else packed.quant_method) or "quantisation"
    if name == "bitsandbytes":
        require("model", base, "bitsandbytes", "quantised")
    return name


def _name_padding(config: Any, tokenizer: Any) -> None:
    """Puts the padding token into a configuration that names none: a classifier on a causal base finds a text's end by
    it."""
    for part in {id(c): c for c in (config, config.get_text_config())}.values():
        if getattr(part, "pad_token_id", None) is None:
            part.pad_token_id = tokenizer.pad_token_id


def _processor(base: str, adapter: Path | None, texts: bool) -> Any:
    import transformers

    with foreign("model", base, "has no processor that can be read", "save it into the model's folder"):
        if texts:
            return tokenizer_of(base if adapter is None else tokenizer_source(adapter, base), False)
        return transformers.AutoImageProcessor.from_pretrained(base, use_fast=False)


def tokenizer_of(source: str, trust_code: bool) -> Any:
    """The tokenizer beside a model. Raises BadInput."""
    import transformers

    with foreign("model", source, "has no tokenizer that can be read", "save the tokenizer into the model's folder"):
        check_files(Path(source), "model")
        tokenizer = transformers.AutoTokenizer.from_pretrained(source, trust_remote_code=trust_code)
        check_loaded(tokenizer, source, "model")
        tokenizer("Who?")  # settings of wrong types show when they are used
        return tokenizer


def _tokenizer_or_none(source: str, trust_code: bool) -> Any:
    """A dry plan goes without a tokenizer; `check_tokenizer` says what is wrong with it before a run."""
    try:
        return tokenizer_of(source, trust_code)
    except BadInput:
        return NoTokenizer()


class NoTokenizer:
    """Stands in for a missing tokenizer in a dry plan: about four bytes per token."""

    pad_token_id = bos_token_id = eos_token_id = 0
    eos_token = ""
    chat_template = None

    def __len__(self) -> int:
        return 1000

    def __call__(self, text: str, **_: Any) -> dict[str, list[int]]:
        return {"input_ids": [0] * max(1, len(text.encode()) // 4)}
