"""Opens an encoder in a folder of transformers or sentence-transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.core.errors import BadInput
from expunge.models._folder import foreign
from expunge.models._pretrained import config_of, tokenizer_of
from expunge.models.dropout import dropouts
from expunge.models.left_over import check_left_over
from expunge.models.padding import padded_equals_alone, probe_rows
from expunge.models.pretrained_encoder import Pooled, PretrainedEncoder
from expunge.models.sentence_files import sentence_files
from expunge.models.sources import check_weights
from expunge.models.weights import check_finite, quiet

OURS = "give a folder that AutoModel opens"


def check_encoder_folder(folder: str, trust_code: bool, weights: bool, field: str) -> None:
    """Everything that can be known of the folder without loading it. Raises BadInput."""
    check_weights(Path(folder), "*.safetensors", weights, field)
    sentence_files(Path(folder), field)
    if getattr(config_of(folder, trust_code, field), "quantization_config", None) is not None:
        raise BadInput.of(field, folder, "holds packed weights", "give the encoder in floating point")


def open_encoder_folder(folder: str, trust_code: bool, meta: bool) -> PretrainedEncoder:
    """The encoder with its tokenizer or image processor, in float32. Raises BadInput."""
    import transformers  # in functions: it takes seconds, and plans start here
    from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES as SEEING

    quiet()
    config = config_of(folder, trust_code)
    texts = config.model_type not in SEEING
    files = sentence_files(Path(folder), "model")
    if texts:
        processor: Any = tokenizer_of(folder, trust_code)
    else:
        with foreign("model", folder, "has no processor that can be read", "save it into the model's folder"):
            processor = transformers.AutoImageProcessor.from_pretrained(folder, backend="pil")
    inner = _network(transformers.AutoModel, folder, config, trust_code, meta)
    if texts and not dropouts(inner):
        why = "has no dropout layer, by which two views of a text differ"
        raise BadInput.of("model", folder, why, "give an encoder with dropout")
    if texts and not meta:
        _check_padding(folder, Pooled(inner, files.pooling).eval(), processor)
    return PretrainedEncoder(inner.eval(), processor, texts, files)


def _network(auto: Any, folder: str, config: Any, trust_code: bool, meta: bool) -> Any:
    """The network of the folder; its shapes alone where `meta`."""
    if meta:
        with foreign("model", folder, "cannot be built", OURS), torch.device("meta"):
            return auto.from_config(config, trust_remote_code=trust_code)
    with foreign("model", folder, "cannot be opened", OURS):
        inner, told = auto.from_pretrained(
            folder,
            use_safetensors=True,
            dtype=torch.float32,
            output_loading_info=True,
            trust_remote_code=trust_code,
        )
    check_left_over(inner, told["unexpected_keys"], folder)
    absent = sorted(told["missing_keys"])
    if absent and all(name.startswith("pooler.") for name in absent):
        inner.pooler = None  # transformers would draw it at random, and no embedding comes of it
    elif absent:
        why = f"holds no weights for {len(absent)} parameters ({absent[0]}, ...)"
        raise BadInput.of("model", folder, why, "save the whole model again")
    check_finite(inner, folder)
    return inner


def _check_padding(folder: str, pooled: Pooled, tokenizer: Any) -> None:
    """Raises BadInput where a text's embedding depends on how much of its batch is padding."""
    config: Any = pooled.inner.config
    rows = probe_rows(config.vocab_size, 24)

    @torch.no_grad()
    def outputs(some: Any) -> Tensor:
        found: Tensor = pooled(tokenizer.pad({"input_ids": list(some)}, return_tensors="pt"))
        return found

    with foreign("model", folder, "cannot be used", "give an encoder that AutoModel opens, with its tokenizer"):
        equal = padded_equals_alone(outputs, rows)
    if not equal:
        raise BadInput.of("model", folder, "embeds a text differently beside longer ones", "give another encoder")
