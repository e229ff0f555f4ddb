"""Shadow models: the arithmetic of LiRA, U-LiRA and RMIA on confidences, and the training of shadows.

Suffixes: M shadow models, N examples; B, T, V batch, positions and vocabulary. A confidence is phi = log(p / (1 - p)),
p the per-token probability of an example's answer (a classifier: the probability of its label). in_MN says whether
shadow m was trained on example n.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from expunge.attacks.shared.recovery import answer_probability
from expunge.core import cache
from expunge.core.card import Example
from expunge.core.context import Context
from expunge.core.contracts import Model, Output, want_of
from expunge.core.errors import BadInput
from expunge.core.files import digest
from expunge.core.random import permutation
from expunge.data.batching import ROWS
from expunge.data.examples import identity
from expunge.evaluation.scores import NotMeasured
from expunge.methods.exact.retrain import train
from expunge.models.build import again, budget_of, check_again, training_data
from expunge.models.family import family, likelihood
from expunge.models.passes import passes

OWN_SPREAD = 64
"""Shadows from which each example gets its own spread; with fewer all share one (Carlini et al. 2022, section VI)."""
EPSILON = 1e-6
CHUNK = 2**24
"""Logits in double precision held at once (elements): 128 MB."""


def confidence(loss: np.ndarray) -> np.ndarray:
    """phi = log(p / (1 - p)) of losses -log p in nats per token, in double precision and without a cut.

    The attacks work in the tail where p is almost 1, which only the loss still resolves. A loss of 0 counts as the
    smallest number above 0.
    """
    nll = np.maximum(np.asarray(loss, dtype=np.float64), np.nextafter(0, 1))
    return np.asarray(-nll - np.log(-np.expm1(-nll)))


def answer_losses(model: Model, rows: Sequence[Example]) -> np.ndarray:
    """[N] loss of each answer in nats per token, in double precision. Raises NotMeasured for a model that has diverged.

    From logits where the model's family gives them: a loss in single precision is 0 from a margin of about 16 on.
    """
    kind = family(model.family)
    if kind.knowledge is not likelihood or "logits" not in kind.gives:
        return np.asarray(-np.log(np.maximum(answer_probability(model, rows), np.nextafter(0, 1))))
    longest = max((model.length(row) for row in rows), default=1)
    size = max(1, min(ROWS, CHUNK // max(1, longest * int(getattr(model, "vocabulary", 1)))))
    losses_N = np.zeros(len(rows))
    for indices, out in passes(model, rows, want_of({"nll", "logits"}), size=size):
        losses_N[indices] = _losses(out).cpu().numpy()
    if not np.isfinite(losses_N).all():
        raise NotMeasured("the model has diverged: its losses are not finite")
    return losses_N


def _losses(out: Output) -> torch.Tensor:
    """[B] mean of log(1 + exp(others - label)) over the answer: exact where the label has almost all of the mass."""
    logits_BTV = out.logits_BTV.double()
    label_BT1 = torch.where(out.mask_BT, out.labels_BT, 0)[..., None]
    others_BT = logits_BTV.scatter(-1, label_BT1, -torch.inf).logsumexp(-1)
    lead_BT = others_BT - logits_BTV.gather(-1, label_BT1)[..., 0]
    nll_BT = torch.logaddexp(torch.zeros_like(lead_BT), lead_BT)
    return torch.where(out.mask_BT, nll_BT, 0.0).sum(-1) / out.n_B.clamp(min=1)


def lira(
    phi_N: np.ndarray,
    shadow_MN: np.ndarray,
    in_MN: np.ndarray,
    *,
    offline: bool = False,
    out_MN: np.ndarray | None = None,
) -> np.ndarray:
    """[N] log-likelihood ratio of "trained on" against "not trained on" (Carlini et al. 2022, algorithms 1 and 2).

    Gaussians in phi, fitted on the shadows that had the example and on those that had not (out_MN;
    default: all others). Offline: how far phi lies above the shadows that had not. U-LiRA is the same
    with shadows that had the example and then unlearned it in place of those that had it (Hayes et
    al. 2024; `expunge.attacks.population.statistics`). An example that no shadow had (or all had) scores NaN.
    """
    from scipy import stats  # half a second, and every plan imports this file

    out = np.ma.masked_array(shadow_MN, mask=in_MN if out_MN is None else ~out_MN.astype(bool))
    inside = np.ma.masked_array(shadow_MN, mask=~in_MN.astype(bool))
    out_mean, out_spread = _fit(out)
    if offline:
        return np.ma.filled(
            np.ma.masked_array(stats.norm.logcdf(phi_N, out_mean, out_spread), out.count(0) == 0), np.nan
        )
    in_mean, in_spread = _fit(inside)
    ratio = stats.norm.logpdf(phi_N, in_mean, in_spread) - stats.norm.logpdf(phi_N, out_mean, out_spread)
    return np.where((out.count(0) > 0) & (inside.count(0) > 0), ratio, np.nan)


def _fit(phi_MN: np.ma.MaskedArray) -> tuple[np.ndarray, np.ndarray]:
    """([N] means, [N] deviations); one pooled deviation where shadows are few."""
    mean = np.ma.filled(phi_MN.mean(axis=0), 0.0)
    own = np.ma.filled(phi_MN.std(axis=0), 0.0)
    pooled = float(np.sqrt(np.ma.mean((phi_MN - mean) ** 2))) if phi_MN.count() else 1.0
    return mean, np.maximum(own if len(phi_MN) >= OWN_SPREAD else np.full(len(mean), pooled), EPSILON)


def rmia(
    p_N: np.ndarray,
    shadow_MN: np.ndarray,
    in_MN: np.ndarray,
    z_p: np.ndarray,
    z_shadow: np.ndarray,
    *,
    gamma: float = 1.0,
    a: float = 0.3,
) -> np.ndarray:
    """[N] share of population points z that x beats: p(x | model) / p(x) >= gamma p(z | model) / p(z).

    p(x) is estimated offline from the shadows without x: ((1 + a) p_out + 1 - a) / 2 (Zarifzadeh et
    al. 2024). z_p [Z], z_shadow [M, Z]: probabilities of points that the model never saw, masked under the
    shadows that did.
    """
    out_N = np.ma.filled(np.ma.masked_array(shadow_MN, mask=in_MN).mean(axis=0), 1.0)
    ratio_N = p_N / np.maximum(EPSILON, ((1 + a) * out_N + 1 - a) / 2)
    ratio_Z = z_p / np.maximum(EPSILON, ((1 + a) * np.ma.filled(np.ma.mean(z_shadow, axis=0), 1.0) + 1 - a) / 2)
    return np.asarray((ratio_N[:, None] >= gamma * ratio_Z[None, :]).mean(axis=1))


def leave_one_out_scores(
    shadow_MN: np.ndarray, in_MN: np.ndarray, score: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
) -> tuple[np.ndarray, np.ndarray]:
    """(members' scores, others' scores), each shadow in turn being the target and the others its shadows.

    Pooling over targets gives the many non-members that a low false-positive rate needs.
    """
    members, others = [], []
    for m in range(len(shadow_MN)):
        rest = np.arange(len(shadow_MN)) != m
        found = score(shadow_MN[m], shadow_MN[rest], in_MN[rest])
        kept, inside = np.isfinite(found), in_MN[m].astype(bool)
        members.append(found[kept & inside])
        others.append(found[kept & ~inside])
    return np.concatenate(members), np.concatenate(others)


def draw_memberships(count: int, examples: int, seed: int) -> np.ndarray:
    """[M, N] bool: each example is in half of the shadows (M even), drawn by seed."""
    in_NM = np.zeros((examples, count), dtype=bool)
    for n in range(examples):
        in_NM[n, permutation(count, seed, "shadow", n)[: count // 2]] = True
    return in_NM.T


def shadow_losses(
    manifest: Mapping[str, Any], lender: Model, candidates: Sequence[Example], count: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """(`answer_losses` [M, N] of the candidates, in [M, N]); attacks that ask for the same shadows share them.

    Each shadow is trained as the model was, on the rest of its training data and a seeded half of
    the candidates; only its losses are kept. lender: the model whose tokenizer and trust in code they take over.
    Raises NotMeasured where the training data are not available, or the base needs a trust that the lender lacks.
    """
    try:
        rest = training_data(manifest, candidates, lender.trusted)
        check_again(manifest, lender)
    except BadInput as error:
        raise NotMeasured(f"shadow models cannot be trained: {error.faults[0].partition(': ')[2]}") from None
    in_MN = draw_memberships(count, len(candidates), seed)
    recipe = {k: manifest.get(k) for k in ("model", "data", "budget", "seed", "hashes")}
    losses_MN = []
    for m in range(count):
        key = digest([recipe, [identity(row) for row in candidates], in_MN[m].tolist(), m])
        entry = f"shadow_losses/{key}.json"
        if (known := cache.load(entry)) is None:
            chosen = [row for row, inside in zip(candidates, in_MN[m], strict=True) if inside]
            with tempfile.TemporaryDirectory() as folder:
                context = Context(budget_of(manifest), Path(folder), seed, f"shadow/{m}")
                shadow = train(again(manifest, lender), [*rest, *chosen], context)
            known = answer_losses(shadow, candidates).tolist()
            cache.save(entry, known)
        losses_MN.append(known)
    return np.array(losses_MN), in_MN
