"""New language models of given sizes, and the tokenizers that are trained for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.core.errors import BadInput, did_you_mean
from expunge.core.random import seed_libraries
from expunge.data.examples import answer_of, question_of
from expunge.models.causal_lm import CausalLM

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


def check_sizes(spec: Mapping[str, Any]) -> None:
    """Raises BadInput for a specification of which no model can be made."""
    if "architecture" not in spec:
        raise BadInput.of("model", str(dict(spec)), "names no architecture", "add architecture: llama")
    for name, value in spec.items():
        if name == "architecture":
            _config_class(str(value))
        elif name not in SIZES:
            raise BadInput.of(f"model.{name}", name, "unknown size", did_you_mean(name, SIZES))
        elif not isinstance(value, int) or isinstance(value, bool) or value < 1:
            raise BadInput.of(f"model.{name}", value, "is not a size", "give a whole number from 1 up")
        elif value > LARGEST[name]:
            raise BadInput.of(f"model.{name}", value, "is larger than any model's", f"give {LARGEST[name]:,} at most")
    if spec.get("hidden_size", 128) % spec.get("heads", 4):
        raise BadInput.of("model.heads", spec.get("heads", 4), "does not divide hidden_size", "choose one that does")


def _config_class(architecture: str) -> Any:
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if architecture not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise BadInput.of(
            "model.architecture",
            architecture,
            "is not a causal language model",
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
    """The texts that a tokenizer learns from: questions and answers in the plain form."""
    return [text for e in examples for text in (f"Question: {question_of(e)}\nAnswer: ", answer_of(e)) if text]


def fresh_lm(spec: Mapping[str, Any], tokenizer: Any, seed: int) -> Model:
    """A causal language model with new weights that follow from the seed."""
    seed_libraries(seed, "weights")
    module = module_of(spec, tokenizer)
    module.eval()
    return CausalLM(module, tokenizer)


def module_of(spec: Mapping[str, Any], tokenizer: Any) -> Any:
    """The network of the specification's sizes, with random weights."""
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


def vocabulary_of(spec: Mapping[str, Any], examples: Sequence[Example]) -> Any:
    """A tokenizer of the specification's size, trained on the examples."""
    return tokenizer_for(texts_of(examples), int(spec.get("vocab_size", SIZES["vocab_size"])))
