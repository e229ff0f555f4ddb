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
from expunge.methods._keys import prompt_states
from expunge.methods.guards._prompts import encode, require_prompts, silence, with_logp
from expunge.models.guarded import Guarded
from expunge.models.prompts import prompts_in

CARD = MethodCard(
    "Key-space detection (skill unlearning)",
    paper="arXiv:2503.21730",
    needs={"forget": ()},
    capabilities=("tokens", "generate", "mlp"),
    yields="guard",
    means="An abstention reveals nothing of the answer (uniform over the vocabulary); the weights keep the knowledge. "
    "Shown where the skills' questions differ in form; among questions of one form most are let through.",
    fidelity="variant",
    leaves_out="the published cube and threshold: held-out prompts choose them",
    shown="Of two skills whose questions begin in different words it takes four fifths of one and a tenth of the "
    "other at most.",
)
MISSED = 0.05
"""Share of the forget prompts that the cube may miss, each tested on a cube made without it."""
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
        """Share [N] of each key's entries that lie in the cube."""
        return _share_inside(key_NM, self.low_M, self.high_M)

    def flags(self, bare: Any, prompts: Sequence[Sequence[int]]) -> np.ndarray:
        return self.inside(_keys(bare, prompts, self.layer)) >= self.share

    def forward(self, bare: Any, batch: Batch, want: Want) -> Output:
        out = bare.forward(batch, with_logp(want))
        if not want.channels:
            return out
        flags = torch.tensor(self.flags(bare, prompts_in(batch)), device=out.mask_BT.device)
        return silence(out, flags[:, None] & out.mask_BT, bare.vocabulary, want)

    def generate(self, bare: Any, prompts: Sequence[Example], **settings: Any) -> list[str]:
        items = settings.pop("encoded", None) or encode(bare, prompts)
        flags = self.flags(bare, [item.prompt for item in items])
        rows = [i for i in range(len(items)) if not flags[i]]
        texts = [self.abstention] * len(items)
        if rows:
            answers = bare.generate([prompts[i] for i in rows], encoded=[items[i] for i in rows], **settings)
            for i, text in zip(rows, answers, strict=True):
                texts[i] = text
        return texts

    def state(self) -> tuple[dict[str, Any], dict[str, Tensor]]:
        return (
            {"layer": self.layer, "share": self.share, "abstention": self.abstention},
            {"low": self.low_M, "high": self.high_M},
        )


def restore(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> KeySpace:
    """Rebuild the guard from its saved state."""
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
    inside when the share of its entries that are inside reaches a threshold, which at most a twentieth of the forget
    prompts miss, each held out from its cube. With retain data the threshold is the middle of the gap between the two;
    without a gap, the share that one in a hundred retain prompts reaches. The evidence gives the recall.
    layer: by default the one that separates held-out forget prompts from retain prompts best (without retain data: the
    middle one).
    """

    def apply(model: Model, splits: Mapping[str, Sequence[Example]], context: Context) -> Model:
        require_prompts("key_space", splits["forget"])
        forget = [item.prompt for item in encode(model, splits["forget"])]
        others = [item.prompt for item in encode(model, [*splits.get("retain", []), *splits.get("reference", [])])]
        if layer is None and others:
            layers = list(range(len(model.blocks)))
        else:
            layers = [len(model.blocks) // 2 if layer is None else layer]
        cubes = [_cube_at(model, forget, others, at, width, context) for at in layers]
        best = max(cubes, key=lambda cube: (cube.recall - cube.false_alarms, -cube.layer))
        rates = {"recall": best.recall, "false_alarms": best.false_alarms}
        context.notes["detector"] = {"layer": best.layer, **rates}
        return Guarded(model, KeySpace(best.layer, best.share, best.low_M, best.high_M, abstention))

    return Method(apply)


@dataclass(frozen=True)
class _Cube:
    """The forget prompts' cube at one layer, its threshold and its held-out rates."""

    layer: int
    share: float
    low_M: Tensor
    high_M: Tensor
    recall: float
    false_alarms: float


def _cube_at(
    bare: Any,
    forget: Sequence[Sequence[int]],
    others: Sequence[Sequence[int]],
    layer: int,
    width: float,
    context: Context,
) -> _Cube:
    """Measure the cube of a layer, with a threshold by the held-out forget prompts and the others, if any."""
    key_NM = _keys(bare, forget, layer)
    held_out_N = _held_out_shares(key_NM, width, context)
    low_M, high_M = _bounds(key_NM, width)
    other_N = _share_inside(_keys(bare, others, layer), low_M, high_M)
    share = float(np.quantile(held_out_N, MISSED))
    if len(other_N):  # the guard may not cost the retain set more than its false alarms
        edge = float(np.quantile(other_N, 1 - FALSE_ALARMS))
        share = (share + edge) / 2 if edge < share else edge + 1e-6
    alarms = float((other_N >= share).mean()) if len(other_N) else 0.0
    return _Cube(layer, share, low_M, high_M, float((held_out_N >= share).mean()), alarms)


def _keys(bare: Any, prompts: Sequence[Sequence[int]], layer: int) -> Tensor:
    """Inputs [N, M] of the layer's down-projection at the prompts' last tokens."""
    return prompt_states(bare, prompts, f"{bare.down(layer)}:in") if prompts else torch.zeros(0, 1)


def _bounds(key_NM: Tensor, width: float) -> tuple[Tensor, Tensor]:
    mean_M, spread_M = key_NM.mean(0), key_NM.std(0, unbiased=False)
    return mean_M - width * spread_M, mean_M + width * spread_M


def _share_inside(key_NM: Tensor, low_M: Tensor, high_M: Tensor) -> np.ndarray:
    if not len(key_NM):
        return np.zeros(0)
    return ((key_NM >= low_M) & (key_NM <= high_M)).float().mean(-1).numpy()


def _held_out_shares(key_NM: Tensor, width: float, context: Context) -> np.ndarray:
    """Share [N] of each key's entries inside the cube of the other folds."""
    count = len(key_NM)
    order_N = torch.randperm(count, generator=context.generator("folds"))
    share_N = np.zeros(count)
    for part_K in order_N.chunk(min(FOLDS, count)):
        rest = torch.ones(count, dtype=torch.bool)
        if count > 1:
            rest[part_K] = False
        share_N[part_K.numpy()] = _share_inside(key_NM[part_K], *_bounds(key_NM[rest], width))
    return share_N
