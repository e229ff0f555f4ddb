"""A judge that is a Hugging Face sequence classifier: a folder or a hub name."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from expunge.core.errors import BadInput
from expunge.models._growth import check_files, check_loaded

BATCH = 16
REFUSING = ("refus", "reject", "declin", "deny")
"""What a label's name holds when it stands for refusals (an answer's label such as `compliance` does not)."""


class Classifier:
    """The score is the probability of the labels whose names say refusal; else of the last label (label 1 of two).

    The classifier reads prompt and answer as a pair of texts, cut to its length. Only safetensors are opened.
    """

    def __init__(self, source: str, field: str = "judge") -> None:
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
            said = (str(error).strip().splitlines() or [type(error).__name__])[0][:200].rstrip(".")
            raise BadInput.of(
                field,
                self.name,
                f"is no sequence classifier that can be opened ({said})",
                "give a folder or a hub name with safetensors weights",
            ) from None
        from expunge.core.processes import device

        self.module.to(device()).eval()
        labels = {int(i): str(name).lower() for i, name in self.module.config.id2label.items()}
        self.refusing = [
            i
            for i, name in sorted(labels.items())
            if any(part in name for part in REFUSING) and not name.startswith(("no", "non", "not"))
        ] or [max(labels)]
        self.key = {"judge": "hf", "source": source, "weights": _fingerprint(self.module), "labels": self.refusing}

    def scores(self, prompts: Sequence[str], answers: Sequence[str]) -> np.ndarray:
        """[N] probabilities of refusal."""
        import torch

        found: list[float] = []
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
            found += shares[:, [min(i, shares.shape[-1] - 1) for i in self.refusing]].sum(-1).clamp(0, 1).tolist()
        return np.array(found)


def _fingerprint(module: Any) -> str:
    from expunge.models.weights import fingerprint_of

    return str(fingerprint_of(module))
