"""Merges an adapter of anyone's into its base, with PEFT's own forward as the measure of the result.

Three things differ from a plain merge. An adapter may bring more tokens than its base has rows for; its base may tie
the head to the embeddings, of which the adapter changes one; and a classification adapter brings the head itself.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from expunge.core.errors import BadInput
from expunge.models import schemas
from expunge.models._folder import foreign
from expunge.models.weights import thaw, untie

WEIGHTS = "adapter_model.safetensors"
PREFIX = "base_model.model."
HEADS = ("score", "classifier")
"""Heads of transformers' sequence classifiers, by path."""
CLOSE = 1e-4
"""Largest difference of logits, relative to the largest logit, that rounding may make in float32."""
PROBE = 8
"""Tokens of the random rows on which the merged model is compared with PEFT's own forward."""


def shapes_of(folder: Path) -> dict[str, tuple[int, ...]]:
    """Shapes of an adapter's tensors, by their names without PEFT's prefix; nothing where there are no weights."""
    if not (path := folder / WEIGHTS).is_file():
        return {}
    with foreign("model", str(path), "cannot be read", "save the adapter again"), safe_open(path, "pt") as file:
        return {name.removeprefix(PREFIX): tuple(file.get_slice(name).get_shape()) for name in file.keys()}


def classes_of(folder: Path) -> int:
    """Classes of a classification adapter, which its head's weights give. Raises BadInput."""
    for name, shape in shapes_of(folder).items():
        if len(shape) == 2 and name.endswith(".weight") and any(part in HEADS for part in name.split(".")):
            return shape[0]
    raise BadInput.of(
        "model", str(folder), "is a classification adapter without its head", "save it with modules_to_save: [score]"
    )


def resize(module: Any, folder: Path) -> None:
    """Gives the embeddings the rows that the adapter was trained with, where it brings more. Raises BadInput."""
    paths = {id(part): path for path, part in module.named_modules()}
    ends = [module.get_input_embeddings(), module.get_output_embeddings()]
    names = [paths[id(part)] for part in ends if part is not None]
    rows = int(module.get_input_embeddings().weight.shape[0])
    wanted, whole = rows, False
    for name, shape in shapes_of(folder).items():
        path = next((path for path in names if name.startswith(f"{path}.")), None)
        if path is None or "trainable_tokens" in name:
            continue
        kind = name.removeprefix(f"{path}.")
        if kind in ("weight", "base_layer.weight", "modules_to_save.weight", "original_module.weight"):
            wanted, whole = shape[0], True
        elif "lora_embedding_A" in kind:
            wanted = shape[1]
    if wanted == rows:
        return
    if not whole:
        raise BadInput.of(
            "model",
            str(folder),
            f"was trained with {wanted:,} tokens, and its base has {rows:,}",
            "save the adapter with its embeddings (save_embedding_layers=True)",
        )
    module.resize_token_embeddings(wanted, mean_resizing=False)


def merge_weights(module: Any, folder: Path) -> Any:
    """The module with the adapter of the folder merged into its weights.

    Raises BadInput where it cannot be merged, and where the merged model's logits are not those of PEFT's own forward.
    """
    from peft import PeftModel  # takes seconds, and plans start here

    cannot = "is an adapter that cannot be opened on its base"
    with foreign("model", str(folder), cannot, "save the adapter again"), warnings.catch_warnings():
        # on the meta device there is nothing to copy to, of which torch warns once per tensor
        warnings.filterwarnings("error", message=".*missing adapter keys.*")  # they would stay as they are drawn
        warnings.filterwarnings("ignore", message=".*copying from a non-meta parameter.*")
        warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*")  # untied below
        warnings.filterwarnings("ignore", message=".*no longer tied after merging.*")
        wrapped = PeftModel.from_pretrained(module, str(folder)).eval()
        _check_taken(wrapped, folder)
        theirs = _logits(wrapped)
        untie(wrapped.get_base_model())
    with foreign("model", str(folder), "is an adapter that cannot be merged", "merge it, and give the merged model"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*tie_word_embeddings.*|.*no longer tied.*")
            result = wrapped.merge_and_unload()
        ours = _logits(result)
    if theirs is not None and ours is not None and not _equal(ours, theirs):
        raise BadInput.of(
            "model",
            str(folder),
            "is an adapter whose merged weights do not give the logits of PEFT's own forward",
            "merge it yourself, and give the merged model",
        )
    thaw(result)
    return result


def _check_taken(wrapped: Any, folder: Path) -> None:
    """Raises BadInput where the adapter's file has more matrices than PEFT found places for: it drops them unsaid."""
    given = [name for name in shapes_of(folder) if ".lora_A." in name]
    taken = sum(name.endswith("weight") and ".lora_A." in name for name in wrapped.state_dict())
    if given and len(given) > taken:
        why = f"has matrices for {len(given)} layers, and its configuration and base take {taken}"
        raise BadInput.of(
            "model", str(folder), why, "set target_modules right, or name the base that it was trained on"
        )


@torch.no_grad()
def _logits(module: Any) -> Tensor | None:
    """Logits on one row of random tokens; None on the meta device."""
    weight = next(module.parameters())
    if weight.device.type == "meta":
        return None
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(module.config.get_text_config().vocab_size, (1, PROBE), generator=draw).to(weight.device)
    out: Tensor = module(input_ids=ids).logits
    return out


def _equal(ours: Tensor, theirs: Tensor) -> bool:
    share = max(CLOSE, 16 * torch.finfo(theirs.dtype).eps)  # merging in half precision rounds the weights
    return bool((ours.float() - theirs.float()).abs().max() <= share * theirs.float().abs().max())


def task_of(config: Mapping[str, Any], folder: Path) -> str:
    """The adapter's task, "" where it names none. Raises BadInput for a task of models that we do not open."""
    task = str(config.get("task_type") or "")
    if task in ("SEQ_2_SEQ_LM", "TOKEN_CLS", "QUESTION_ANS"):
        raise BadInput.of(
            "model",
            str(folder),
            f"is an adapter for the task {task}",
            "give an adapter of a causal language model (CAUSAL_LM) or of a sequence classifier (SEQ_CLS)",
        )
    return task


def adapter_task(folder: Path) -> str:
    """`task_of` the configuration in a folder."""
    return task_of(schemas.read(folder / "adapter_config.json", schemas.Adapter, "model"), folder)
