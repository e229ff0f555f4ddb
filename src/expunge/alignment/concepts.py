"""Concept vectors by layer: what a domain's prompts add to the control's, and how entangled domains are.

A vector is the mean hidden state of a domain's prompts less that of the benign control's, taken at the prompt's last
token, where the model decides how to begin. What all domains add is the refusal direction. Where it makes up most of
every vector, all cosines are near 1 and hide what else two domains share; so cosines are also taken of the centred
vectors (less the mean of the domains, as in arXiv:2312.03813), together with their length: centred vectors of no length
are noise.
Shapes: L layers, D domains, H width, N prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from expunge.core.card import Example
from expunge.core.contracts import Model, Want
from expunge.data.packs import CONTROL, SENSITIVE
from expunge.models.passes import passes

EARLY = 0.5
"""The share of layers, from the first, that count as early (arXiv:2511.14017 finds spill-over there)."""


def states(model: Model, prompts: Sequence[Example]) -> np.ndarray:
    """[N, L, H] hidden states at each prompt's last token, after every layer."""
    bare = [{"question": row["question"]} for row in prompts]
    paths = tuple(model.blocks)
    states_N: list[Any] = [None] * len(bare)
    for batch, out in passes(model, bare, Want(frozenset(), paths), positions="prompt"):
        last = torch.stack([out.hidden[path][:, -1] for path in paths], 1).float().cpu().numpy()
        for place, i in enumerate(batch):
            states_N[i] = last[place]
    return np.stack(states_N)


@dataclass
class Concepts:
    """The domains' vectors (without the control's, which is 0 by definition), and the refusal direction."""

    domains: list[str]
    vectors_DLH: np.ndarray
    refusal_LH: np.ndarray
    """Mean over the domains of their vectors: from what is answered to what is refused."""

    @property
    def cosine_LDD(self) -> np.ndarray:
        """[L, D, D] cosine of every two domains' vectors: entanglement."""
        unit = _unit(self.vectors_DLH).transpose(1, 0, 2)
        return np.clip(unit @ unit.transpose(0, 2, 1), -1, 1)

    @property
    def centred_LDD(self) -> np.ndarray:
        """[L, D, D] cosine of every two domains' centred vectors: what they share besides refusing.

        -1 / (D - 1) for D domains that are all equally far apart.
        """
        unit = _unit(self.vectors_DLH - self.refusal_LH).transpose(1, 0, 2)
        return np.clip(unit @ unit.transpose(0, 2, 1), -1, 1)

    @property
    def own_L(self) -> np.ndarray:
        """[L] length of a domain's centred vector (mean over domains), as a share of the refusal direction's."""
        own = np.linalg.norm(self.vectors_DLH - self.refusal_LH, axis=-1).mean(0)
        return np.asarray(own / np.maximum(1e-12, np.linalg.norm(self.refusal_LH, axis=-1)))

    def left_LD(self, after: Concepts) -> np.ndarray:
        """[L, D] share of each domain's component along this refusal direction that is left after: 1 all, 0 none."""
        unit = _unit(self.refusal_LH)
        then, now = ((one.vectors_DLH * unit).sum(-1).T for one in (self, after))
        return np.asarray(now / np.where(np.abs(then) > 1e-12, then, 1e-12))

    @property
    def leaning_LD(self) -> np.ndarray:
        """[L, D] cosine of a domain's vector with the mean of the OTHER domains': how far it relies on refusing."""
        unit = self.vectors_DLH
        others = (unit.sum(0, keepdims=True) - unit) / max(1, len(unit) - 1)
        return np.clip((_unit(unit) * _unit(others)).sum(-1).T, -1, 1)

    def with_target(self, target: str) -> dict[str, float]:
        """Domain -> mean cosine with the target's vector over the early layers."""
        place = self.domains.index(target)
        early = max(1, round(EARLY * self.cosine_LDD.shape[0]))
        rows = self.cosine_LDD[:early, place].mean(0)
        return {name: float(rows[i]) for i, name in enumerate(self.domains) if i != place}

    def to_json(self) -> dict[str, Any]:
        return {
            "domains": self.domains,
            "cosine": rounded(self.cosine_LDD),
            "centred": rounded(self.centred_LDD),
            "own": rounded(self.own_L),
            "leaning": rounded(self.leaning_LD),
        }


def rounded(x: np.ndarray) -> list[Any]:
    """The array as nested lists, with four decimals."""
    return np.round(x.astype(np.float64), 4).tolist()


def _unit(x: np.ndarray) -> np.ndarray:
    return x / np.maximum(1e-12, np.linalg.norm(x, axis=-1, keepdims=True))


def _place(name: str) -> int:
    """The fixed order of the domains; others (the forget set) come last."""
    return SENSITIVE.index(name) if name in SENSITIVE else len(SENSITIVE)


def concepts(model: Model, prompts: Sequence[Example]) -> Concepts | None:
    """The concept vectors of the prompts' domains; None without a control or without a domain."""
    by_domain = {row["domain"]: [r for r in prompts if r["domain"] == row["domain"]] for row in prompts}
    names = sorted((name for name in by_domain if name != CONTROL), key=_place)
    if CONTROL not in by_domain or not names:
        return None
    rows = [row for name in (CONTROL, *names) for row in by_domain[name]]
    all_NLH, means, start = states(model, rows), {}, 0
    for name in (CONTROL, *names):
        means[name] = all_NLH[start : start + len(by_domain[name])].mean(0)
        start += len(by_domain[name])
    vectors = np.stack([means[name] - means[CONTROL] for name in names])
    return Concepts(names, vectors, vectors.mean(0))
