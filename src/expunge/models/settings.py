"""The settings that figures depend on besides weights and data: configuration, generation, tokenizer, template.

A fingerprint says whether two models are the same; a cache must know more. The same weights under another sliding
window, rope scale or list of stop tokens give other figures.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from expunge.core.contracts import Model
from expunge.core.files import digest

UNREAD = ("_name_or_path", "name_or_path", "architectures", "transformers_version", "dtype", "torch_dtype")
"""Entries that say where a model came from, or that the fingerprint has already."""


def settings_digest(model: Model) -> str:
    """SHA-256 of the settings of a model and of the models within it."""
    import transformers  # in functions: it takes seconds, and readers are imported where plans start

    return digest(
        {
            "networks": _networks(model.module),
            "tokenizers": _tokenizers(model),
            "transformers": transformers.__version__,
            **getattr(model, "read_with", {}),  # a family of another package need not have it
        }
    )


def _networks(module: nn.Module) -> list[Any]:
    """The configuration and generation settings of each transformers model in a module, the outermost first."""
    from transformers import PreTrainedModel

    found = []
    for part in module.modules():
        if isinstance(part, PreTrainedModel):
            own = getattr(part, "generation_config", None)  # only models with a head have one
            generation = {} if own is None else own.to_dict()
            entry = [_read_entries(part.config.to_dict()), _read_entries(generation)]
            if entry not in found:
                found.append(entry)
    return found


def _read_entries(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _read_entries(item) for key, item in value.items() if key not in UNREAD}
    return [_read_entries(item) for item in value] if isinstance(value, list | tuple) else str(value)


def _tokenizers(model: Any) -> list[Any]:
    """The tokenizers and image processors of a model and its members."""
    from transformers import ImageProcessingMixin, PreTrainedTokenizerBase

    found = []
    for name in ("tokenizer", "processor"):
        tool = getattr(model, name, None)  # a family of another package need have neither
        if isinstance(tool, PreTrainedTokenizerBase):
            backend = getattr(tool, "backend_tokenizer", None)  # only fast tokenizers have one
            whole = backend.to_str() if backend is not None else sorted(tool.get_vocab().items())
            sides = [tool.padding_side, tool.truncation_side, str(tool.model_max_length)]
            found.append(digest([whole, tool.chat_template, _read_entries(tool.special_tokens_map), sides]))
        elif isinstance(tool, ImageProcessingMixin):
            found.append(digest(_read_entries(tool.to_dict())))
    for member in getattr(model, "members", ()):
        found.extend(_tokenizers(member))
    return found
