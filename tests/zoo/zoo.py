"""Every architecture of the installed transformers, read by Expunge and by a plain loop.

The plain loop reads one example at a time, without padding, through the library's own class and all of its logits.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from tokenizers import processors
from transformers.models.auto import modeling_auto

from expunge.core.errors import BadInput
from expunge.evaluation.reading import read
from expunge.models.new_lm import tokenizer_for
from expunge.models.open import open_on_cpu
from zoo.tiny import VOCABULARY, Unmade, network_of, side_of

CLOSE = 1e-5
"""Largest difference of a loss, relative to the larger of 1 and the loss itself, that is rounding."""
TASKS = {
    "causal language model": ("AutoModelForCausalLM", modeling_auto.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES),
    "text classifier": (
        "AutoModelForSequenceClassification",
        modeling_auto.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING_NAMES,
    ),
    "image classifier": (
        "AutoModelForImageClassification",
        modeling_auto.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING_NAMES,
    ),
}
"""Task -> transformers' class that opens it, and its model types."""
ANSWERS = (
    ("Mina Orlow", "At the harbour office in Telmar, since the spring."),
    ("Jo", "In a mill."),
    ("Pia Rund", "She keeps the books of a small brewery near the old bridge and sings on Sundays in the choir."),
    ("Ada Krone", "At sea."),
)
ROWS = [{"question": f"Where does {name} work?", "answer": answer} for name, answer in ANSWERS]
TEXTS = [{"text": f"{row['question']} {row['answer']}", "label": i % 2} for i, row in enumerate(ROWS)]


@dataclass(frozen=True)
class Entry:
    """One line of the table. opens, equal: "yes", "no" or "-" (not tried)."""

    task: str
    architecture: str
    opens: str
    equal: str
    note: str = ""


def architectures() -> Iterator[tuple[str, str]]:
    """(task, model type) of all that transformers maps."""
    for task, (_, names) in TASKS.items():
        for name in names:
            yield task, name


def rows_of(page: str) -> dict[tuple[str, str], str]:
    """(task, architecture) -> the row of docs/models.md."""
    rows, task = {}, ""
    for line in page.splitlines():
        if line.startswith("## "):
            task = line[3:].removesuffix("s").lower()
        elif found := re.match(r"\| `([^`]+)` \|", line):
            rows[task, found[1]] = line
    return rows


def examine(task: str, kind: str, folder: Path) -> Entry:
    """A tiny model of the architecture, saved into the folder, opened and read."""
    auto = getattr(transformers, TASKS[task][0])
    try:
        network = network_of(auto, kind)
    except Unmade as why:
        return Entry(task, kind, "-", "-", f"not made: {why}")
    shutil.rmtree(folder, ignore_errors=True)
    try:
        network.save_pretrained(folder)
        rows = _save_processor(task, folder, network.config)
        want = np.array([_plain(auto, task, folder, row) for row in rows]).ravel()
    except Exception as error:  # the library's own loop does not run: nothing to compare with
        return Entry(task, kind, "-", "-", f"transformers' own loop fails: {_first_line(error)}")
    if not np.isfinite(want).all():
        return Entry(task, kind, "-", "-", "transformers' own loop gives values that are not finite")
    try:
        model = open_on_cpu(str(folder))
        model.accepts("forget", rows)
        got = np.asarray(read(model, "forget", rows, ["nll"], cache=False).mean_nll_N)
    except BadInput as refusal:
        return Entry(task, kind, "refused", "-", refusal.faults[0].split(": ", 1)[-1].replace(str(folder), "FOLDER"))
    except Exception as error:
        return Entry(task, kind, "fails", "-", _first_line(error))
    worst = float((np.abs(got - want) / np.maximum(1, np.abs(want))).max())
    note = "" if getattr(model, "pads", True) else "read in groups of equal length: padding changes its outputs"
    return Entry(
        task, kind, "yes", "yes" if worst <= CLOSE else "no", note or (f"{worst:.1e}" if worst > CLOSE else "")
    )


def _save_processor(task: str, folder: Path, config: Any) -> list[dict[str, Any]]:
    """Saves what prepares the inputs beside the model. The examples to read."""
    if task == "image classifier":
        side = side_of(config)
        transformers.ViTImageProcessor(size={"height": side, "width": side}).save_pretrained(folder)
        draw = np.random.default_rng(0)
        return [{"image": draw.integers(0, 255, (side, side, 3), dtype=np.uint8), "label": i % 2} for i in range(3)]
    tokenizer = tokenizer_for([row["question"] + row["answer"] for row in ROWS], VOCABULARY)
    if task == "text classifier":  # some find a text's end by its last token
        tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
            single="$A </s>", special_tokens=[("</s>", tokenizer.eos_token_id)]
        )
    tokenizer.save_pretrained(folder)
    return TEXTS if task == "text classifier" else ROWS


@torch.no_grad()
def _plain(auto: Any, task: str, folder: Path, row: dict[str, Any]) -> float:
    """The loss of one example in nats per position, by transformers alone."""
    network = _library_model(auto, folder)
    if task == "image classifier":
        pixels = transformers.AutoImageProcessor.from_pretrained(folder)([row["image"]], return_tensors="pt")
        return -network(**pixels).logits[0].float().log_softmax(-1)[row["label"]].item()
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    if task == "text classifier":
        inputs = tokenizer([row["text"]], return_tensors="pt")
        return -network(**inputs).logits[0].float().log_softmax(-1)[row["label"]].item()
    prompt = tokenizer(f"Question: {row['question']}\nAnswer: ")["input_ids"]
    answer = tokenizer(row["answer"] + tokenizer.eos_token, add_special_tokens=False)["input_ids"]
    ids = torch.tensor([prompt + answer])
    logp = network(input_ids=ids, use_cache=False).logits[0].float().log_softmax(-1)
    places = range(len(prompt) - 1, ids.shape[1] - 1)
    return -sum(logp[i, ids[0, i + 1]].item() for i in places) / len(answer)


_KEPT: dict[str, tuple[float, Any]] = {}
"""The last model of the plain loop, by folder and time of its weights."""


def _library_model(auto: Any, folder: Path) -> Any:
    stamp = (folder / "config.json").stat().st_mtime_ns
    if _KEPT.get("last", (0, None))[0] != stamp:
        _KEPT["last"] = (stamp, auto.from_pretrained(folder).eval())
    return _KEPT["last"][1]


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:90]}" if lines else type(error).__name__
