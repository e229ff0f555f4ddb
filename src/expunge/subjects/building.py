"""Makes models from nothing, and makes them again: what `train` and the gold model start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from expunge.core.budget import Budget
from expunge.core.card import Example
from expunge.core.contracts import Subject
from expunge.core.errors import BadInput, did_you_mean
from expunge.core.random import seed_libraries
from expunge.core.variables import expand
from expunge.data.examples import answer_of, identity, question_of
from expunge.data.load import load
from expunge.subjects.opening import open_subject

SPECIAL = ("<pad>", "<s>", "</s>")
SIZES = {"hidden_size": 128, "layers": 4, "heads": 4, "vocab_size": 1000, "intermediate_size": None,
         "max_length": 512}  # fmt: skip


def check_spec(spec: Any) -> None:
    """Is this a model that `train` can start from. Raises BadInput."""
    if isinstance(spec, str) or "factory" in spec:
        from expunge.subjects.opening import check

        if isinstance(spec, str):
            check(expand(spec, "model"), False)
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
    if spec.get("hidden_size", 128) % spec.get("heads", 4):
        raise BadInput.of("model.heads", spec.get("heads", 4), "does not divide hidden_size", "choose one that does")


def _config_class(architecture: str) -> Any:
    from transformers import CONFIG_MAPPING
    from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

    if architecture not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise BadInput.of("model.architecture", architecture, "is no causal language model",
                          did_you_mean(architecture, MODEL_FOR_CAUSAL_LM_MAPPING_NAMES))  # fmt: skip
    return CONFIG_MAPPING[architecture]


def tokenizer_for(texts: Sequence[str], vocab_size: int) -> Any:
    """A byte-level BPE trained on the texts, with <pad>, <s>, </s>; in transformers' own class."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, special_tokens=list(SPECIAL), show_progress=False,
                                  initial_alphabet=pre_tokenizers.ByteLevel.alphabet())  # fmt: skip
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, pad_token="<pad>", bos_token="<s>", eos_token="</s>",
                                   clean_up_tokenization_spaces=False)  # fmt: skip


def texts_of(examples: Sequence[Example]) -> list[str]:
    """What a tokenizer learns from: questions and answers in the plain form."""
    return [text for e in examples for text in (f"Question: {question_of(e)}\nAnswer: ", answer_of(e)) if text]


def fresh_lm(spec: Mapping[str, Any], tokenizer: Any, seed: int) -> Subject:
    """A causal language model with new weights that follow from the seed."""
    from transformers import AutoModelForCausalLM

    from expunge.subjects.causal_lm import CausalLM

    sizes = {**SIZES, **{k: v for k, v in spec.items() if k != "architecture"}}
    config = _config_class(str(spec["architecture"]))(
        hidden_size=sizes["hidden_size"], num_hidden_layers=sizes["layers"], num_attention_heads=sizes["heads"],
        num_key_value_heads=sizes["heads"], intermediate_size=sizes["intermediate_size"] or 8 * round(sizes["hidden_size"] / 3),
        vocab_size=len(tokenizer), max_position_embeddings=sizes["max_length"], tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=tokenizer.bos_token_id,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    seed_libraries(seed, "weights")
    module = AutoModelForCausalLM.from_config(config)
    module.eval()
    return CausalLM(module, tokenizer)


def fresh(spec: Any, examples: Sequence[Example], seed: int, trust_code: bool = False) -> Subject:
    """The model that a training run starts from: a spec, a folder, a hub name, or a factory.

    A spec's tokenizer is trained on the examples.
    """
    if isinstance(spec, Mapping) and "factory" in spec:
        seed_libraries(seed, "weights")
        return open_subject({k: v for k, v in spec.items() if k != "weights"} if "weights" not in spec else spec,
                            trust_code=trust_code, fresh="weights" not in spec)  # fmt: skip
    if isinstance(spec, Mapping):
        tokenizer = tokenizer_for(texts_of(examples), int(spec.get("vocab_size", SIZES["vocab_size"])))
        return fresh_lm(spec, tokenizer, seed)
    return open_subject(expand(spec, "model"), trust_code=trust_code)


def again(manifest: Mapping[str, Any], subject: Subject) -> Subject:
    """The same start as the manifest's run had: same spec, seed and tokenizer, other data."""
    spec, seed = manifest["model"], int(manifest["seed"])
    if isinstance(spec, Mapping) and "factory" not in spec:
        return fresh_lm(spec, subject.tokenizer, seed)  # type: ignore[attr-defined]
    return fresh(spec, [], seed, trust_code=bool(manifest.get("trust_code")))


def training_data(manifest: Mapping[str, Any], forget: Sequence[Example]) -> list[Example]:
    """All that the model was trained on, minus forget. Raises BadInput where the data moved."""
    if not manifest.get("data"):
        raise BadInput.of("gold", "auto", "cannot be had: the model was changed since it was trained",
                          "give gold: FOLDER")  # fmt: skip
    rows = load(manifest["data"], "gold", manifest.get("columns") or {})
    hashes = [identity(row)[:16] for row in rows]
    if manifest.get("exact"):  # served deletions: what they deleted may still stand in the user's files
        left = set(manifest["hashes"])
        rows = [row for row, key in zip(rows, hashes, strict=True) if key in left]
        hashes = [key for key in hashes if key in left]
    if hashes != manifest["hashes"]:
        raise BadInput.of("gold", "auto", "cannot be had: the training data changed since the model was trained",
                          "put them back, or give gold: FOLDER")  # fmt: skip
    gone = {identity(row) for row in forget}
    return [row for row in rows if identity(row) not in gone]


def budget_of(manifest: Mapping[str, Any]) -> Budget:
    """The budget that the manifest's run had."""
    return Budget(**manifest["budget"])
