"""Causal language models: a transformers folder, a hub name, an adapter on one, or a new one of given sizes.

transformers' own classifiers have folders of the same shape: they are opened here too, as models of that family.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from expunge.core.card import Example
from expunge.core.contracts import Model
from expunge.core.errors import BadInput
from expunge.models._pretrained import config_of, open_pretrained
from expunge.models.adapters import check_adapter
from expunge.models.causal_lm import CausalLM
from expunge.models.family import Family, Source
from expunge.models.manifest import manifest_of
from expunge.models.new_lm import check_sizes, fresh_lm, module_of, tokenizer_for, vocabulary_of
from expunge.models.sources import check_weights, kind_of, known_kind

KINDS = ("folder", "hub", "adapter")
SHAPES = ["Question: Answer:"]
"""Text that a tokenizer is trained on where shapes alone are wanted."""


def claims(source: Source) -> bool:
    """Whether transformers or PEFT wrote it, or it gives the sizes of a new model."""
    if isinstance(source, Mapping):
        return "architecture" in source
    return known_kind(source) in KINDS


def check(source: Source, *, trust_code: bool, weights: bool, field: str) -> None:
    """Everything that can be known of it without loading it. Raises BadInput."""
    if isinstance(source, Mapping):
        check_sizes(source)
        return
    kind = kind_of(source, field)
    if kind == "hub":
        return
    folder = Path(source)
    check_weights(folder, "adapter_model.safetensors" if kind == "adapter" else "*.safetensors", weights, field)
    if kind == "folder":
        config_of(source, trust_code, field)
        return
    base, of_base = check_adapter(folder, field), f"{field} (the adapter's base)"
    check_base(base, of_base)
    check(base, trust_code=trust_code, weights=weights, field=of_base)


def check_base(base: str, field: str) -> None:
    """Raises BadInput unless this is one plain model, on which an adapter or soft prompts may stand."""
    if (kind := kind_of(base, field)) not in ("folder", "hub"):
        raise BadInput.of(
            field,
            base,
            f"is itself {'an' if kind[0] in 'ae' else 'a'} {kind}",
            "merge it, and give the folder of the merged model",
        )


def open_language_model(source: Source, *, trust_code: bool, meta: bool, dtype: torch.dtype | None) -> Model:
    """The model of a folder or hub name, its adapter merged."""
    adapter = Path(str(source)) if kind_of(source) == "adapter" else None
    base = check_adapter(adapter) if adapter else str(source)
    template = (manifest_of(base) or {}).get("template")
    return open_pretrained(base, adapter, template, trust_code=trust_code, meta=meta, dtype=dtype)


def fresh(
    spec: Mapping[str, Any],
    examples: Sequence[Example],
    *,
    seed: int,
    trust_code: bool,
    like: Model | None,
    meta: bool,
) -> Model:
    """A new model of the sizes of `spec`, with a tokenizer of its own or that of `like`."""
    tokenizer = getattr(like, "tokenizer", None)
    if tokenizer is None:
        tokenizer = tokenizer_for(SHAPES, 300) if meta else vocabulary_of(spec, examples)
    if not meta:
        return fresh_lm(spec, tokenizer, seed)
    with torch.device("meta"):
        return CausalLM(module_of(spec, tokenizer).eval(), tokenizer)


FAMILY = Family(
    name="causal_lm",
    title="language model",
    claims=claims,
    check=check,
    open=open_language_model,
    fresh=fresh,
    example_forms=(("question", "answer"), ("text",), ("messages",)),
    channels=("nll", "logp", "logits", "topk", "argmax", "moments", "variants", "generation"),
    capabilities=frozenset({"tokens", "nll", "generate", "mlp"}),
    headline={
        "forgetting": ("forget_nll",),
        "utility": ("retain_utility", "utility_model"),
    },
)
