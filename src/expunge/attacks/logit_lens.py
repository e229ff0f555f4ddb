"""Hidden-state attack."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from expunge.attacks.shared.recovery import MEANS, figure_of
from expunge.core.card import AttackCard
from expunge.core.contracts import Want
from expunge.evaluation.attack import Attack, Found, Target
from expunge.evaluation.scores import NotMeasured
from expunge.models.passes import passes

CARD = AttackCard(
    "Hidden-state attack",
    paper="arXiv:2309.17410",
    adversary="hidden states",
    side="robustness",
    better="gold",
    unit="share",
    capabilities=("tokens",),
    needs={"forget": {"examples"}},
    level="standard",
    passes=1,
    means=MEANS,
)
NORMS = (
    "model.norm",
    "model.final_layernorm",
    "transformer.ln_f",
    "gpt_neox.final_layer_norm",
    "model.decoder.final_layer_norm",
)
"""Paths of the norm before the head, by architecture."""


def logit_lens() -> Attack:
    """Read every layer through the model's own head; the layer that knows most counts (Patil et al. 2023).

    Per-token probability of the answer, from the output of each block after the model's final norm. It
    shows knowledge that the last layers mask; `curve` has it by layer.
    """

    @torch.no_grad()
    def attack(target: Target) -> Found:
        model, rows = target.model, target.forget
        module: Any = model.module
        blocks = model.blocks
        norm = next((found for path in NORMS if (found := _module(module, path)) is not None), None)
        if norm is None or not blocks:
            raise NotMeasured("the architecture's final norm is unknown")
        head = module.get_output_embeddings()
        found_LN = np.zeros((len(blocks), len(rows)))
        for batch, out in passes(model, rows, Want(frozenset(), hidden=tuple(blocks))):
            for level, path in enumerate(blocks):
                logp_BTV = head(norm(out.hidden[path])).log_softmax(-1)
                logp_BT = logp_BTV.gather(-1, out.labels_BT[..., None])[..., 0] * out.mask_BT
                found_LN[level, list(batch)] = (logp_BT.sum(-1) / out.n_B.clamp(min=1)).exp().double().cpu().numpy()
        by_layer = found_LN.mean(axis=1)
        best = int(by_layer.argmax())
        curve = [{"x": level, "value": float(value)} for level, value in enumerate(by_layer)]
        return Found(figure_of(found_LN[best], f"best at layer {best}"), found_LN[best], curve=curve)

    return attack


def _module(module: torch.nn.Module, path: str) -> torch.nn.Module | None:
    try:
        return module.get_submodule(path)
    except AttributeError:
        return None
