"""A judge that is a Hugging Face sequence classifier: a folder or a hub name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expunge.core.errors import BadInput
from expunge.core.processes import device
from expunge.models.tokenizer_checks import check_files, check_loaded
from expunge.models.weights import fingerprint_of

BATCH = 16
REFUSING = ("refus", "reject", "declin", "deny")
"""Parts of a label's name that mark it as a refusal (an answer's label such as `compliance` has none)."""


class Classifier:
    """The score is the probability of the labels whose names say refusal; else of the last label (label 1 of two).

    The classifier reads prompt and answer as a pair of texts, cut to its length. Only safetensors are opened.
    """

    def __init__(self, source: str, field: str = "judge") -> None:
        # transformers takes seconds to import, and every plan imports this file.
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.name = f"hf:{source}"
        try:
            check_files(Path(source), field)
            self.tokenizer: Any = AutoTokenizer.from_pretrained(source)
            check_loaded(self.tokenizer, source, field)
            self.module: Any = AutoModelForSequenceClassification.from_pretrained(source, use_safetensors=True)
        except BadInput:
            raise
        except Exception as error:
            reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
            raise BadInput.of(
                field,
                self.name,
                f"cannot be opened as a sequence classifier ({reason})",
                "give a folder or a hub name with safetensors weights",
            ) from None
        self.module.to(device()).eval()
        labels = {int(i): str(name).lower() for i, name in self.module.config.id2label.items()}
        self.refusing = [
            i
            for i, name in sorted(labels.items())
            if any(part in name for part in REFUSING) and not name.startswith(("no", "non", "not"))
        ] or [max(labels)]
        self.key = {
            "judge": "hf",
            "source": source,
            "weights": str(fingerprint_of(self.module)),
            "labels": self.refusing,
        }

    def scores(self, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """[N] probabilities of refusal."""
        scores: list[float] = []
        longest = min(int(getattr(self.module.config, "max_position_embeddings", 512) or 512), 512)
        for start in range(0, len(answers), BATCH):
            inputs = self.tokenizer(
                list(prompts[start : start + BATCH]),
                list(answers[start : start + BATCH]),
                truncation=True,
                max_length=longest,
                padding=True,
                return_tensors="pt",
            )
            with torch.no_grad():
                logits = self.module(**{name: value.to(self.module.device) for name, value in inputs.items()}).logits
            shares = logits.float().softmax(-1) if logits.shape[-1] > 1 else logits.float().sigmoid()
            scores += shares[:, [min(i, shares.shape[-1] - 1) for i in self.refusing]].sum(-1).clamp(0, 1).tolist()
        return np.array(scores)
