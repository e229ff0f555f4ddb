"""A judge that is a Hugging Face sequence classifier: a folder or a hub name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expunge.core.errors import BadInput, did_you_mean
from expunge.core.processes import device
from expunge.models.tokenizer_checks import check_files, check_loaded
from expunge.models.weights import fingerprint_of

BATCH = 16
REFUSING = ("refus", "reject", "declin", "deny", "denied", "ablehn", "rechaz", "negativa", "rifiut", "recus", "отказ")
"""Parts of a label's name that mark it as a refusal."""
ANSWERING = ("compl", "answer", "accept")
"""Parts of a label's name that mark it as an answer."""
NOT = re.compile(r"(no|non|not|un)(?![a-z])|nonref|notref|unref|noref|nonrej|notrej")
"""The beginning of a label's name that turns it round."""


class Classifier:
    """The score is the probability of the labels whose names say refusal, or of the one named behind `#`.

    The classifier reads prompt and answer as a pair of texts, cut to its length. Only safetensors are opened. Raises
    BadInput where no name says which label is a refusal, as `LABEL_1` and `harmful` do not.
    """

    def __init__(self, source: str, field: str = "judge") -> None:
        # transformers takes seconds to import, and every plan imports this file.
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.name = f"hf:{source}"
        source, _, chosen = source.partition("#")
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
        self.refusing = refusal_labels(labels, chosen, self.name, field)
        self.several = getattr(self.module.config, "problem_type", None) == "multi_label_classification"
        self.key = {
            "judge": "hf",
            "source": source,
            "weights": str(fingerprint_of(self.module)),
            "labels": self.refusing,
            **({"several": True} if self.several else {}),
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
            one_of_all = logits.shape[-1] > 1 and not self.several
            shares_BL = (logits.float().softmax(-1) if one_of_all else logits.float().sigmoid())[:, self.refusing]
            # Labels that do not exclude one another: the likeliest of those that say refusal.
            scores += (shares_BL.sum(-1).clamp(0, 1) if one_of_all else shares_BL.amax(-1)).tolist()
        return np.array(scores)


def refusal_labels(labels: Mapping[int, str], chosen: str, judge: str, field: str = "judge") -> list[int]:
    """The numbers of the labels that mean a refusal, by their names in lower case. Raises BadInput.

    chosen: the label that the user names, or "". Of two labels, one of which says `compliance` or the like, the other
    is a refusal.
    """
    if chosen:
        if found := [i for i, name in labels.items() if name == chosen.lower()]:
            return found
        raise BadInput.of(field, judge, f"has no label {chosen!r}", did_you_mean(chosen.lower(), labels.values()))
    refusing = {i for i, name in labels.items() if any(part in name for part in REFUSING)}
    turned = {i for i in refusing if NOT.match(labels[i])}
    if found := sorted(refusing - turned):
        return found
    answering = turned | {i for i, name in labels.items() if any(p in name for p in ANSWERING) and not NOT.match(name)}
    if len(labels) == 2 and len(answering) == 1:
        return sorted(set(labels) - answering)
    raise BadInput.of(
        field,
        judge,
        f"has the labels {', '.join(labels[i] for i in sorted(labels)[:8])}, none of which says refusal",
        f"name the one that does: {judge}#LABEL",
    )
