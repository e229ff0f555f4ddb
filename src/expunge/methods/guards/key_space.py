"""Key-space detection: abstain where the FFN's keys of a prompt lie in the forget set's hypercube."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import numpy as np
import torch
from annotated_types import Ge, Gt
from torch import Tensor

from expunge.core.context import Context
from expunge.core.contracts import Batch, Example, Method, MethodCard, Model, Output, Want
from expunge.methods.edits._keys import prompt_states
from expunge.methods.guards._prompts import encoded, needs_prompts, silenced, with_logp
from expunge.models.guarded import Guarded
from expunge.models.prompts import prompts_in

CARD = MethodCard(
    "Key-space detection (skill unlearning)",
    paper="arXiv:2503.21730",
    needs={"forget": ()},
    capabilities=("tokens", "generate", "mlp"),
    yields="guard",
    means="An abstention tells nothing of the answer (uniform over the vocabulary); the weights keep the knowledge.",
)
MISSED = 0.05
"""Share of the forget prompts that the cube may miss, each left out when its cube was made."""
FALSE_ALARMS = 0.01
"""Share of the retain prompts that may lie inside."""
FOLDS = 5


@dataclass
class KeySpace:
    """Abstains where at least `share` of the key's entries lie in the cube [low_M, high_M]."""

    layer: int
    share: float
    low_M: Tensor
    high_M: Tensor
    abstention: str
    name: str = "key_space"

    def inside(self, key_NM: Tensor) -> np.ndarray:
        """[N] share of each key's entries that lie in the cube."""
        return _inside(key_NM, self.low_M, self.high_M)

    def flags(self, bare: Any, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        return self.inside(_keys(bare, prompts, self.layer)) >= self.share

    def forward(self, bare: Any, batch: Batch, want: Want) -> Output:
        out = bare.forward(batch, with_logp(want))
        if not want.channels:
            return out
        flags = torch.tensor(self.flags(bare, prompts_in(batch)), device=out.mask_BT.device)
        return silenced(out, flags[:, None] & out.mask_BT, bare.vocabulary, want)

    def generate(self, bare: Any, prompts: Sequence[Example], **settings: Any) -> list[str]:
        items = settings.pop("encoded", None) or encoded(bare, prompts)
        flags = self.flags(bare, [item.prompt for item in items])
        open_rows = [i for i in range(len(items)) if not flags[i]]
        texts = [self.abstention] * len(items)
        if open_rows:
            said = bare.generate([prompts[i] for i in open_rows], encoded=[items[i] for i in open_rows], **settings)
            for i, text in zip(open_rows, said, strict=True):
                texts[i] = text
        return texts

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return (
            {"layer": self.layer, "share": self.share, "abstention": self.abstention},
            {"low": self.low_M, "high": self.high_M},
        )


def restore(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> KeySpace:
    """The guard as it was saved."""
    return KeySpace(
        int(settings["layer"]), float(settings["share"]), tensors["low"], tensors["high"], str(settings["abstention"])
    )


def key_space(
    *,
    layer: Annotated[int, Ge(0)] | None = None,
    width: Annotated[float, Gt(0)] = 2.0,
    abstention: str = "I don't know.",
) -> Method:
    """Abstain on prompts whose MLP keys fall into the hypercube that the forget prompts span.

    The cube is mean +- width deviations of the down-projection's input at the prompts' last tokens. A prompt is
    inside when the share of entries that are reaches a threshold which at most a twentieth of the forget prompts
    miss, each held out from its cube; with retain data the middle of the gap to theirs, and where there is no gap
    the share that one in a hundred of the retain prompts reaches: the evidence says how many are caught. layer:
    by default the one whose shares tell held-out forget prompts from retain prompts best (without retain data: the
    middle one).
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        bare: Any = model
        needs_prompts("key_space", splits["forget"])
        forget = [item.prompt for item in encoded(bare, splits["forget"])]
        others = [item.prompt for item in encoded(bare, [*splits.get("retain", []), *splits.get("reference", [])])]
        layers = (
            range(len(model.blocks))
            if layer is None and others
            else [len(model.blocks) // 2 if layer is None else layer]
        )
        tried = []
        for at in layers:
            key_NM = _keys(bare, forget, at)
            held_N = _held_out(key_NM, width, context)
            low_M, high_M = _cube(key_NM, width)
            other_N = _inside(_keys(bare, others, at), low_M, high_M)
            share = float(np.quantile(held_N, MISSED))
            if len(other_N):  # the guard may not cost the retain set more than its false alarms
                edge = float(np.quantile(other_N, 1 - FALSE_ALARMS))
                share = (share + edge) / 2 if edge < share else edge + 1e-6
            caught, alarms = float((held_N >= share).mean()), float((other_N >= share).mean()) if len(other_N) else 0.0
            tried.append((caught - alarms, -at, share, low_M, high_M, {"recall": caught, "false_alarms": alarms}))
        _, minus, share, low_M, high_M, rates = max(tried, key=lambda item: item[:2])
        context.notes["detector"] = {"layer": -minus, **rates}
        return Guarded(model, KeySpace(-minus, share, low_M, high_M, abstention))

    return Method(apply)


def _keys(bare: Any, prompts: Sequence[Sequence[int]], layer: int) -> Tensor:
    """[N, M]: inputs of the layer's down-projection at the prompts' last tokens."""
    return prompt_states(bare, prompts, f"{bare.down(layer)}:in") if prompts else torch.zeros(0, 1)


def _cube(key_NM: Tensor, width: float) -> tuple[Tensor, Tensor]:
    mean_M, spread_M = key_NM.mean(0), key_NM.std(0, unbiased=False)
    return mean_M - width * spread_M, mean_M + width * spread_M


def _inside(key_NM: Tensor, low_M: Tensor, high_M: Tensor) -> np.ndarray:
    if not len(key_NM):
        return np.zeros(0)
    return ((key_NM >= low_M) & (key_NM <= high_M)).float().mean(-1).numpy()


def _held_out(key_NM: Tensor, width: float, context: Context) -> np.ndarray:
    """[N] shares inside the cube of the other folds."""
    count = len(key_NM)
    order_N = torch.randperm(count, generator=context.generator("folds"))
    found = np.zeros(count)
    for part_K in order_N.chunk(min(FOLDS, count)):
        rest = torch.ones(count, dtype=torch.bool)
        if count > 1:
            rest[part_K] = False
        found[part_K.numpy()] = _inside(key_NM[part_K], *_cube(key_NM[rest], width))
    return found
