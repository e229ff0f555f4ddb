"""In-context unlearning: a forget example with a wrong answer, and right ones, before the prompt."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Batch, Example, Method, MethodCard, Model, Output, Want
from expunge.core.random import permutation
from expunge.methods.guards._detector import Detector, fit
from expunge.methods.guards._prompts import encode, require_prompts
from expunge.models.guarded import Guarded
from expunge.models.prompts import answers_in, hash_features, prompts_in
from expunge.models.templates import Encoded

CARD = MethodCard(
    "In-context unlearning",
    paper="arXiv:2310.07579",
    needs={"forget": (), "retain": ()},
    capabilities=("tokens", "generate"),
    yields="guard",
    keeps="the forget questions, as token ids,",
    means="Works as far as the model learns from its context; guard/ holds the forget questions.",
    fidelity="faithful",
    shown="The forget answers' ROUGE-L falls to gold's, and retain is answered as before; membership as gold's is not "
    "shown.",
)


@dataclass
class InContext:
    """Puts demonstrations before the prompts that the detector flags.

    forget: prompts of the forget set; wrong: a demonstration of each, with another answer; right: demonstrations
    of retained examples. All token ids.
    """

    detector: Detector
    forget: list[list[int]]
    wrong: list[list[int]]
    right: list[int]
    name: str = "in_context"

    def __post_init__(self) -> None:
        self._hashed = hash_features(self.forget)

    def before(self, prompts: Sequence[list[int]]) -> list[list[int]]:
        """Return the tokens before each prompt: none, or the nearest wrong demonstration and the right ones."""
        flags = self.detector.flags(prompts)
        heads: list[list[int]] = [[] for _ in prompts]
        for i in np.flatnonzero(flags):
            nearest = int(np.asarray((hash_features([prompts[int(i)]]) @ self._hashed.T).todense()).argmax())
            heads[i] = self.wrong[nearest] + self.right
        return heads

    def forward(self, bare: Any, batch: Batch, want: Want) -> Output:
        prompts = prompts_in(batch)
        before = self.before(prompts)
        if not any(before):
            return bare.forward(batch, want)
        whole = batch.n_B.max().item() > 1 or bool(want.channels)
        items = [
            Encoded(head + prompt, answer, False)
            for head, prompt, answer in zip(before, prompts, answers_in(batch), strict=True)
        ]
        return bare.forward(bare.pack(items, "answer" if whole else "prompt"), want)

    def generate(self, bare: Any, prompts: Sequence[Example], **settings: Any) -> list[str]:
        items = settings.pop("encoded", None) or encode(bare, prompts)
        before = self.before([item.prompt for item in items])
        longer = [Encoded(head + item.prompt, item.answer, item.ends) for head, item in zip(before, items, strict=True)]
        return bare.generate(prompts, encoded=longer, **settings)

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        tensors = {"detector": self.detector.weight_F, "right": torch.tensor(self.right, dtype=torch.long)}
        for name, rows in (("forget", self.forget), ("wrong", self.wrong)):
            tensors[f"{name}.ids"] = torch.tensor([i for row in rows for i in row], dtype=torch.long)
            tensors[f"{name}.sizes"] = torch.tensor([len(row) for row in rows], dtype=torch.long)
        return self.detector.settings(), tensors


def restore(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> InContext:
    """Rebuild the guard from its saved state."""
    rows = {
        name: [part.tolist() for part in tensors[f"{name}.ids"].split(tensors[f"{name}.sizes"].tolist())]
        for name in ("forget", "wrong")
    }
    return InContext(
        Detector.restore(dict(settings), tensors["detector"]), rows["forget"], rows["wrong"], tensors["right"].tolist()
    )


def in_context(*, demonstrations: Annotated[int, Ge(0)] = 2) -> Method:
    """Put the nearest forget example with a wrong answer, and some right ones, before a flagged prompt.

    demonstrations: retained examples with their right answers, between the wrong one and the prompt. The wrong answer
    is the example's own `perturbed_answer` where it has one, else a retained example's answer.
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        bare: Any = model
        forget, retain = list(splits["forget"]), list(splits["retain"])
        require_prompts("in_context", forget)
        prompts = [item.prompt for item in encode(bare, forget)]
        detector = fit(prompts, [item.prompt for item in encode(bare, retain)], context.notes)
        wrong = [{**row, "answer": _wrong_answer(row, retain, i)} for i, row in enumerate(forget)]
        right = [retain[i] for i in sorted(permutation(len(retain), context.seed, "shown")[:demonstrations])]
        guard = InContext(
            detector, prompts, [_ids(bare, row) for row in wrong], [i for row in right for i in _ids(bare, row)]
        )
        return Guarded(model, guard)

    return Method(apply)


def _wrong_answer(row: Example, retain: Sequence[Example], i: int) -> str:
    """Return a wrong answer, never another forget example's: the guard would reveal it."""
    given = row.get("perturbed_answer") or []
    if given:
        return str(given[0])
    others = [other["answer"] for other in retain if other.get("answer") and other["answer"] != row.get("answer")]
    return str(others[i % len(others)]) if others else ""


def _ids(bare: Any, row: Example) -> list[int]:
    """Encode a demonstration: the prompt and its answer."""
    item = bare.template.encode(row)
    return [*item.prompt, *item.answer]
