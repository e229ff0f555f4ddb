"""Makes models from nothing, and makes them again: what `train` and the gold model start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import psutil
import torch

from expunge.core import hub
from expunge.core.budget import Budget
from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.core.errors import BadInput, did_you_mean
from expunge.core.random import seed_libraries
from expunge.core.train_config import exact_of
from expunge.core.variables import expand
from expunge.data.examples import answer_of, identity, question_of
from expunge.data.load import hub_names, load
from expunge.models._folder import foreign
from expunge.models.causal_lm import CausalLM
from expunge.models.open import check, class_of, kind_of, open_on_cpu, trusted

SPECIAL = ("<pad>", "<s>", "</s>")
SIZES = {"hidden_size": 128, "layers": 4, "heads": 4, "vocab_size": 1000, "intermediate_size": None, "max_length": 512}
LARGEST = {
    "hidden_size": 200_000,
    "layers": 2_000,
    "heads": 10_000,
    "vocab_size": 10_000_000,
    "intermediate_size": 1_000_000,
    "max_length": 1_000_000_000,
}


def check_spec(spec: Any, trust_code: bool = False) -> None:
    """Raises BadInput where `train` cannot start from this model. trust_code: the request's leave."""
    if isinstance(spec, str):
        check(_place(spec), trust_code)
        return
    if "factory" in spec:
        check(spec, trust_code, weights="weights" in spec)
        return
    if "architecture" not in spec:
        raise BadInput.of("model", str(dict(spec)), "names no architecture", "add architecture: llama")
    for name, value in spec.items():
        if name == "architecture":
            _config_class(str(value))
        elif name not in SIZES:
            raise BadInput.of(f"model.{name}", name, "is no size that we know", did_you_mean(name, SIZES))
        elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise BadInput.of(f"model.{name}", value, "is no size", "give a whole number from 1 up")
        elif value > LARGEST[name]:
            raise BadInput.of(f"model.{name}", value, "is larger than any model's", f"give {LARGEST[name]:,} at most")
    if spec.get("hidden_size", 128) % spec.get("heads", 4):
        raise BadInput.of("model.heads", spec.get("heads", 4), "does not divide hidden_size", "choose one that does")


def _place(spec: str) -> str:
    """A folder or hub name with its variables put in. Raises BadInput where a value would go to the hub as a name."""
    found = expand(spec, "model")
    if "$" in spec and not Path(found).is_dir():
        raise BadInput.of("model", spec, "is no folder", "set its variables to where it lies")
    return found


def _check_leave(name: str, kind: str, leave: bool) -> None:
    """Raises BadInput where a manifest, which anyone may have written, sends us to the hub for something new."""
    if not leave and not hub.is_downloaded(name, kind):
        raise BadInput.of(
            "gold",
            "auto",
            f"cannot be had: the model's manifest names {name}, which would be asked for on the hub",
            "give gold: FOLDER, or trust_code: true",
        )


def _config_class(architecture: str) -> Any:
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if architecture not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise BadInput.of(
            "model.architecture",
            architecture,
            "is no causal language model",
            did_you_mean(architecture, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
        )
    return CONFIG_MAPPING[architecture]


def tokenizer_for(texts: Sequence[str], vocab_size: int) -> Any:
    """A byte-level BPE trained on the texts, with <pad>, <s>, </s>; in transformers' own class."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL),
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>", clean_up_tokenization_spaces=False
    )


def texts_of(examples: Sequence[Example]) -> list[str]:
    """What a tokenizer learns from: questions and answers in the plain form."""
    return [text for e in examples for text in (f"Question: {question_of(e)}\nAnswer: ", answer_of(e)) if text]


def fresh_lm(spec: Mapping[str, Any], tokenizer: Any, seed: int) -> Model:
    """A causal language model with new weights that follow from the seed."""
    seed_libraries(seed, "weights")
    module = _module(spec, tokenizer)
    module.eval()
    return CausalLM(module, tokenizer)


def _module(spec: Mapping[str, Any], tokenizer: Any) -> Any:
    from transformers import AutoModelForCausalLM

    sizes = {**SIZES, **{k: v for k, v in spec.items() if k != "architecture"}}
    config = _config_class(str(spec["architecture"]))(
        hidden_size=sizes["hidden_size"],
        num_hidden_layers=sizes["layers"],
        num_attention_heads=sizes["heads"],
        num_key_value_heads=sizes["heads"],
        intermediate_size=sizes["intermediate_size"] or 8 * round(sizes["hidden_size"] / 3),
        vocab_size=len(tokenizer),
        max_position_embeddings=sizes["max_length"],
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )
    return AutoModelForCausalLM.from_config(config)


def fresh(spec: Any, examples: Sequence[Example], seed: int, trust_code: bool = False) -> Model:
    """The model that a training run starts from: a spec, a folder, a hub name, or a factory.

    A spec's tokenizer is trained on the examples.
    """
    if isinstance(spec, Mapping) and "factory" in spec:
        seed_libraries(seed, "weights")
        return open_on_cpu(
            {k: v for k, v in spec.items() if k != "weights"} if "weights" not in spec else spec,
            trust_code=trust_code,
            fresh="weights" not in spec,
        )
    if isinstance(spec, Mapping):
        tokenizer = tokenizer_for(texts_of(examples), int(spec.get("vocab_size", SIZES["vocab_size"])))
        return fresh_lm(spec, tokenizer, seed)
    return open_on_cpu(_place(spec), trust_code=trust_code)


def again(manifest: Mapping[str, Any], model: Model) -> Model:
    """The same start as the manifest's run had: same spec, seed and tokenizer, other data.

    Code of the model's own runs only where the model was opened with leave for it: what the manifest
    says of that is not believed. Raises BadInput.
    """
    check_again(manifest, model)
    spec, seed = manifest["model"], int(manifest["seed"])
    if isinstance(spec, Mapping) and "factory" not in spec:
        return fresh_lm(spec, model.tokenizer, seed)  # type: ignore[attr-defined]
    return fresh(spec, [], seed, trust_code=trusted(model))


def check_again(manifest: Mapping[str, Any], model: Model) -> None:
    """Raises BadInput where `again` cannot, or may not, start the manifest's training once more.

    model: the model, on any device, opened with the request's leave or without. Nothing is built but shapes.
    """
    spec = manifest["model"]
    try:
        if isinstance(spec, Mapping) and "factory" in spec:
            class_of(spec["factory"], trusted(model), "model.factory", "code that came with the model")
        check_spec(spec, trusted(model))
        if isinstance(spec, str) and kind_of(_place(spec)) == "hub":
            _check_leave(spec, "model", trusted(model))
        if manifest.get("exact"):
            exact_of(manifest["exact"])
        with foreign("model", str(spec), "cannot be built", "give gold: FOLDER"):
            size = _parameters(_shapes(spec, model))
    except BadInput as error:
        raise BadInput(
            *(f"gold: 'auto' cannot be had: in the model's manifest, {fault}" for fault in error.faults)
        ) from None
    # As large as the model is what it may well be; far larger is a mistake, or a trap.
    if size > 2 * _parameters(model.module) and 4 * size > psutil.virtual_memory().available:
        raise BadInput.of(
            "gold",
            "auto",
            f"cannot be had: the training began with a model of {size:,} parameters",
            "give gold: FOLDER",
        )


def _shapes(spec: Any, model: Any) -> torch.nn.Module:
    if isinstance(spec, Mapping) and "factory" not in spec:
        with torch.device("meta"):
            return _module(spec, model.tokenizer)
    if isinstance(spec, Mapping):
        spec = {k: v for k, v in spec.items() if k != "weights"}
    return open_on_cpu(_place(spec) if isinstance(spec, str) else spec, trust_code=trusted(model), meta=True).module


def _parameters(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def training_data(manifest: Mapping[str, Any], forget: Sequence[Example], leave: bool) -> list[Example]:
    """All that the model was trained on, minus forget. Raises BadInput where the data moved.

    leave: the request's to ask the hub for what the manifest names.
    """
    if not manifest.get("data"):
        raise BadInput.of(
            "gold", "auto", "cannot be had: the model was changed since it was trained", "give gold: FOLDER"
        )
    for name in hub_names(manifest["data"]):
        _check_leave(name, "dataset", leave)
    rows = load(manifest["data"], "gold", manifest.get("columns") or {})
    hashes = [identity(row)[:16] for row in rows]
    if manifest.get("exact"):  # served deletions: what they deleted may still stand in the user's files
        left = set(manifest["hashes"])
        rows = [row for row, key in zip(rows, hashes, strict=True) if key in left]
        hashes = [key for key in hashes if key in left]
    if hashes != manifest["hashes"]:
        raise BadInput.of(
            "gold",
            "auto",
            "cannot be had: the training data changed since the model was trained",
            "put them back, or give gold: FOLDER",
        )
    gone = {identity(row) for row in forget}
    return [row for row in rows if identity(row) not in gone]


def budget_of(manifest: Mapping[str, Any]) -> Budget:
    """The budget that the manifest's run had."""
    return Budget(**manifest["budget"])
